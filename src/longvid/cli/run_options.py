"""The arguments of the commands on run folders."""

from __future__ import annotations

from typing import Any

from longvid.cli.parser import Parser, at_least, one_of

WATCH_OPTIONS = ("plain", "events", "preview")
PROBLEM_OPTIONS = ("on_problem", "max_rerolls", "limit")
RUN_OPTIONS = (
    "run_dir", "keep_states", "no_keep_frames", "chunk_frames", "prompts", "allow_different", *PROBLEM_OPTIONS, *WATCH_OPTIONS
)  # fmt: skip


def add_run_arguments(parser: Parser, *, model: bool = True) -> None:
    """The arguments that every command on a run folder takes."""
    parser.add_argument("run", metavar="RUN", help="the run folder")
    if model:
        parser.add_argument("--model", metavar="NAME", help="where the run's model is now, if it was moved")
        parser.add_argument("--device", metavar="NAME", help="cuda, cuda:1, mps, cpu (default: as the run was begun)")
        parser.add_argument(
            "--allow-different", action="store_true", help="go on although the model or the machine differs"
        )
        add_watch_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print the manifest on stdout")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no summary")


def add_generate_arguments(group: Any) -> None:
    """The options of `longvid generate` for run folders."""
    group.add_argument(
        "--run-dir", metavar="FOLDER", default=None, help="keep the run in a folder, to be resumed and changed"
    )
    group.add_argument(
        "--prompts", metavar="FILE", default=None,
        help="a run for each line, in folders within --run-dir: .txt with prompts, or .jsonl with settings",
    )  # fmt: skip
    group.add_argument(
        "--allow-different", action="store_true", default=False,
        help="with --prompts: go on although the model or the machine differs",
    )  # fmt: skip
    group.add_argument(
        "--keep-states", metavar="N", type=at_least(2), default=None,
        help="chunks that can be gone on from, counted from the newest (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--no-keep-frames", action="store_true", default=False,
        help="keep the encoded video only, not the frames as they were made",
    )  # fmt: skip
    group.add_argument(
        "--chunk-frames", metavar="N", type=at_least(1), default=None,
        help="frames of a chunk of the run, the overlap counted (default: 16)",
    )  # fmt: skip
    group.add_argument(
        "--on-problem", metavar="WHAT", type=one_of(("warn", "stop", "reroll")), default=None,
        help="when a chunk jumps, drifts, stands still or is black: warn (default), stop behind it, or reroll it",
    )  # fmt: skip
    group.add_argument(
        "--max-rerolls", metavar="N", type=at_least(0), default=None, help="rerolls of one chunk at most (default: 2)"
    )
    group.add_argument(
        "--limit", metavar="NAME=X", action="append", default=None,
        help="where a problem begins: seam, color, contrast, still or black (docs: Long runs)",
    )  # fmt: skip
    add_watch_arguments(group)


def add_watch_arguments(group: Any) -> None:
    """The options to see a run while it is made."""
    group.add_argument("--plain", action="store_true", default=False, help="one line per chunk in place of the bar")
    group.add_argument("--events", metavar="FILE", default=None, help="add every event to a file, as a line of JSON")
    group.add_argument(
        "--preview", action="store_true", default=False, help="refresh preview.png and preview.mp4 in the run folder"
    )
