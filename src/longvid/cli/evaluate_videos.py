"""`longvid evaluate VIDEO ...`: every metric of every video, as a table, as JSON and as one HTML page."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longvid.cli.parser import Parser, say

if TYPE_CHECKING:
    from longvid.metrics.evaluate import VideoReport

FORMAT = 1
MAX_VIDEOS_ON_A_PAGE = 6


def add_options(parser: Parser) -> None:
    """The options of the evaluation of videos."""
    parser.add_argument(
        "--prompt", metavar="TEXT", help="what the videos should show, for metrics that compare with text"
    )
    parser.add_argument("--metrics", metavar="A,B,...", help="which metrics; default: all that can be computed here")
    parser.add_argument(
        "--borders",
        metavar="FRAMES",
        help="first frames of the chunks: 16,24,32, or 16:8 for 16 and every 8 from there",
    )
    parser.add_argument("--flow", metavar="NAME", help="raft or dis; default: raft where its weights are, else dis")
    parser.add_argument("--flow-weights", metavar="FILE", help="RAFT's weights")
    parser.add_argument(
        "--flow-size",
        metavar="HxW",
        default="720x720",
        help="frames are resized to this for the flow, as in the papers; 'own' leaves them; default: 720x720",
    )
    parser.add_argument("--html", metavar="FILE", help="write one self-contained page with curves and pictures")


def run(arguments: argparse.Namespace) -> int:
    """Check everything, measure each video, print the table, write the files."""
    borders, flow_size = parse_borders(arguments.borders), parse_size(arguments.flow_size)
    names = None if arguments.metrics is None else [name.strip() for name in arguments.metrics.split(",")]
    from longvid.cli.evaluated import find_evaluated
    from longvid.cli.load import usable_device
    from longvid.cli.metric_options import split_metric_options
    from longvid.metrics.evaluate import check_metrics, evaluate_video
    from longvid.metrics.flow import make_flow
    from longvid.metrics.table import format_table

    check_metrics(names)
    options, paths = split_metric_options(arguments.videos)
    videos = find_evaluated(paths, prompt=arguments.prompt, borders=borders)
    if arguments.html and len(videos) > MAX_VIDEOS_ON_A_PAGE:
        raise ValueError(f"--html compares at most {MAX_VIDEOS_ON_A_PAGE} videos; got {len(videos)}")
    for option in ("json", "html"):
        if getattr(arguments, option):
            check_writable(Path(getattr(arguments, option)), f"--{option}")
    device = usable_device(arguments.device)
    chosen = arguments.flow or arguments.flow_weights
    flow = make_flow(arguments.flow, weights=arguments.flow_weights, device=device) if chosen else None
    reports = []
    for video in videos:
        with _Frames(video.path.name, video.num_frames, quiet=arguments.quiet) as bar:
            report = evaluate_video(
                video.files,
                name=str(video.path),
                metrics=names,
                prompt=video.prompt,
                borders=video.borders,
                flow=flow,
                flow_size=flow_size,
                device=device,
                options=options,
                progress=bar.show,
            )
        reports.append(report)
    print(format_table(reports))
    _write(arguments, reports)
    return 0


def _write(arguments: argparse.Namespace, reports: list[VideoReport]) -> None:
    if arguments.json:
        values: dict[str, Any] = {
            "format": FORMAT,
            "command": arguments.command,
            "prompt": arguments.prompt,
            "videos": [report.as_dict() for report in reports],
        }
        text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
        say(f"{arguments.json}: all numbers and curves", quiet=arguments.quiet)
    if arguments.html:
        from longvid.metrics.page import html_page

        Path(arguments.html).write_text(html_page(reports), encoding="utf-8")
        say(f"{arguments.html}: the page, to be opened in a browser", quiet=arguments.quiet)


def parse_borders(text: str | None) -> Callable[[int], Sequence[int]] | None:
    """A function from the number of frames to the chunk borders; None for None.

    Raises:
        ValueError: if `text` is neither ``first:period`` nor whole numbers from 1 on with commas between.
    """
    if text is None:
        return None
    from longvid.metrics.seams import every

    if re.fullmatch(r"[1-9]\d*:[1-9]\d*", text):
        first, period = map(int, text.split(":"))
        return lambda num_frames: every(num_frames, first=first, period=period)
    if re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        frames = [int(word) for word in text.split(",")]
        return lambda num_frames: frames
    raise ValueError(f"--borders: expected frames such as 16,24,32, or first:period such as 16:8; got {text!r}")


def parse_size(text: str) -> tuple[int, int] | None:
    """Height and width; None for ``own``.

    Raises:
        ValueError: if `text` is neither.
    """
    if text == "own":
        return None
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise ValueError(f"--flow-size: expected height x width such as 720x720, or own; got {text!r}")
    height, width = map(int, text.split("x"))
    return height, width


def check_writable(path: Path, option: str) -> None:
    """Raise ValueError if `path` cannot be written; leaves everything as it was."""
    existed = path.exists()
    try:
        path.open("ab").close()
    except OSError as error:
        raise ValueError(f"{option}: cannot write {str(path)!r}: {error.strerror}") from error
    if not existed:
        path.unlink()


class _Frames:
    """A progress bar over the frames of one video."""

    def __init__(self, name: str, num_frames: int, *, quiet: bool) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=num_frames, desc=name, unit="frame", disable=quiet, file=sys.stderr, dynamic_ncols=True)

    def __enter__(self) -> _Frames:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, done: int) -> None:
        """Move to `done`."""
        self._bar.update(done - self._bar.n)
