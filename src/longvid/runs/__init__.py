"""Long runs in a folder: a video that survives its process, goes on bit for bit, and can be changed in part."""

from longvid.runs.begin import begin as begin
from longvid.runs.begin import check_request as check_request
from longvid.runs.begin import generate_to as generate_to
from longvid.runs.events import EventWatcher as EventWatcher
from longvid.runs.manifest import ChunkRecord as ChunkRecord
from longvid.runs.options import RunOptions as RunOptions
from longvid.runs.pace import Pace as Pace
from longvid.runs.preview import PreviewWatcher as PreviewWatcher
from longvid.runs.run import Run as Run
from longvid.runs.takes import ProblemFound as ProblemFound
from longvid.runs.watcher import RunPlan as RunPlan
from longvid.runs.watcher import RunWatcher as RunWatcher
from longvid.runs.watcher import Watchers as Watchers
