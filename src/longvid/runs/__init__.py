"""Long runs in a folder: a video that survives its process, goes on bit for bit, and can be changed in part."""

from longvid.runs.begin import begin as begin
from longvid.runs.begin import check_request as check_request
from longvid.runs.begin import generate_to as generate_to
from longvid.runs.manifest import ChunkRecord as ChunkRecord
from longvid.runs.options import RunOptions as RunOptions
from longvid.runs.run import Run as Run
from longvid.runs.watcher import RunWatcher as RunWatcher
