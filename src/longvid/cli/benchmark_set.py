"""`longvid benchmark-set SET`: a video of every prompt of a set, every one measured, resumably."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from longvid.cli.generate_options import DTYPES
from longvid.cli.interrupts import Interrupts
from longvid.cli.parser import Parser, at_least, one_of, say
from longvid.cli.request import DEFAULT_MODEL, GenerateSettings
from longvid.cli.settings import merge_settings, split_overrides

ABOUT = """\
SET is harivo (100 prompts), streaming-t2v (10 of 50 printed), streaming-t2v-figures (15), ucf-101 (101
class names), or a .txt file with one prompt per line. Each video is made under a hidden name and gets
its own when it is complete; run the same command again to go on where it was stopped. What is finished
is not made again, what is measured is not measured again; metrics that are new are added.
"""
EXAMPLES = """\
examples:
  longvid benchmark-set harivo --model my-model/ --output harivo/ --num-frames 24 --videos-per-prompt 4
  longvid benchmark-set my-prompts.txt --output mine/ --num-frames 32 --metrics scuts,clip_score,flicker
  longvid benchmark-set ucf-101 --model my-model/ --output ucf/ --metrics fvd fvd.features=i3d:i3d_torchscript.pt \\
      fvd.reference=ucf-101-videos/

Words METRIC.OPTION=VALUE go to the metrics (docs: Metrics with weights), other words key=value to the
pipeline's call as in `longvid generate`: noise_level=100, scheduler.name=ddim, options.eta=0.5.
"""
FORMATS = {"png": "", "mp4": ".mp4", "webm": ".webm", "mkv": ".mkv"}
REPORT = "report.json"
_OWN = ("set", "output", "videos_per_prompt", "metrics", "format", "quiet", "debug", "command")


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid benchmark-set`."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} SET --output DIR [options] [METRIC.OPTION=VALUE ...] [key=value ...]",
        description=f"longvid benchmark-set: {summary}.\n\n{ABOUT}",
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("set", metavar="SET", help="name of a set, or a .txt file")
    parser.add_argument("-o", "--output", metavar="DIR", required=True, help="folder of the videos and the report")
    parser.add_argument("--model", metavar="NAME", help=f"bundled name, folder or hub id (default: {DEFAULT_MODEL})")
    parser.add_argument("--num-frames", metavar="N", type=at_least(1), help="length of every video")
    parser.add_argument(
        "--videos-per-prompt", metavar="N", type=at_least(1), default=1, help="each from a seed of its own; default: 1"
    )
    parser.add_argument("--seed", metavar="S", type=at_least(0), help="of the first video; default: 0")
    parser.add_argument(
        "--metrics", metavar="A,B,...", default=None,
        help="which metrics; none: only make the videos; default: all of single videos that can be computed here",
    )  # fmt: skip
    parser.add_argument(
        "--format", type=one_of(tuple(FORMATS)), default="png",
        help="png (default), a folder per video, is lossless; mp4, webm and mkv are smaller and change the numbers",
    )  # fmt: skip
    parser.add_argument("--height", metavar="PIXELS", type=at_least(1))
    parser.add_argument("--width", metavar="PIXELS", type=at_least(1))
    parser.add_argument("--num-inference-steps", metavar="N", type=at_least(1))
    parser.add_argument("--guidance-scale", metavar="X", type=float)
    parser.add_argument("--negative-prompt", metavar="TEXT")
    parser.add_argument("--fps", metavar="X", dest="output.fps", type=float, help="default: 8")
    parser.add_argument("--device", metavar="NAME", help="default: cuda where there is one")
    parser.add_argument("--dtype", metavar="NAME", type=one_of(DTYPES), help="float32 (default), float16, bfloat16")
    parser.add_argument("--quiet", action="store_true", default=False, help="no progress")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Check everything, make the videos that are missing, measure, print the table and write the report."""
    from longvid.cli.benchmark_videos import check_manifest, make_videos, plan_videos
    from longvid.cli.metric_options import split_metric_options
    from longvid.metrics.prompt_sets import load_prompt_set
    from longvid.pipelines.sources import local_source

    parser.check_unknown(rest)
    options, others = split_metric_options(rest)
    plain_words, overrides = split_overrides(others)
    if plain_words:
        parser.error(f"expected one SET; got {plain_words[0]!r} as well")
    prompts = load_prompt_set(arguments.set)
    values = {key: value for key, value in vars(arguments).items() if key not in _OWN}
    settings = merge_settings(GenerateSettings, overrides=overrides, options=values)
    settings.seed = settings.seed or 0
    _check_settings(settings)
    local_source(settings.model)
    folder, suffix = Path(arguments.output), FORMATS[arguments.format]
    manifest = check_manifest(folder, prompts, settings, suffix)
    scoring = _scoring(arguments, options, settings, prompts.prompts[0])
    if prompts.printed:
        say(f"{prompts.title}: {prompts.printed} prompts are printed in the source", quiet=arguments.quiet)
    videos = plan_videos(
        prompts, folder, seed=settings.seed, videos_per_prompt=arguments.videos_per_prompt, suffix=suffix
    )
    with Interrupts():
        make_videos(videos, manifest, settings, quiet=arguments.quiet, debug=arguments.debug)
        _report(videos, manifest, scoring)
    return 0


def _check_settings(settings: GenerateSettings) -> None:
    for name in ("prompt", "image", "video", "frames_per_prompt"):
        if getattr(settings, name):
            raise ValueError(f"{name} cannot be set: the videos of a benchmark are made from the prompts of the set")
    if settings.output.fps is not None and not 0 < settings.output.fps <= 1000:
        raise ValueError(f"--fps must lie in (0, 1000]; got {settings.output.fps}")


def _scoring(
    arguments: argparse.Namespace, options: dict[str, dict[str, Any]], settings: GenerateSettings, prompt: str
) -> Any:
    from longvid.cli.benchmark_scores import Scoring
    from longvid.cli.load import usable_device
    from longvid.cli.metric_options import check_options
    from longvid.metrics.base import METRICS, metric_class

    device = usable_device(settings.device)
    if arguments.metrics is None:
        of_sets = [name for name in METRICS if _sees_a_set(metric_class(name)) and name not in options]
        names = [name for name in METRICS if name not in of_sets]
        check_options(list(options), options, prompt=prompt, device=device)
    else:
        words = [word.strip() for word in arguments.metrics.split(",")]
        names = [] if words == ["none"] else list(dict.fromkeys(filter(None, words)))
        check_options(names, options, prompt=prompt, device=device)
    together = [name for name in names if _sees_a_set(metric_class(name))]
    return Scoring([name for name in names if name not in together], together, options, device, arguments.quiet)


def _sees_a_set(metric: Any) -> bool:
    return getattr(metric, "over_a_set", False)


def _report(videos: list[Any], manifest: Any, scoring: Any) -> None:
    from longvid.cli.benchmark_scores import format_summary, summarise
    from longvid.cli.record import Record

    records = scoring.score_each(videos)
    together = scoring.score_together(videos)
    rows = summarise(records, together, scoring.metrics)
    listed = [{"name": video.name, **record} for video, record in zip(videos, records, strict=True)]
    head = {key: value for key, value in manifest.values.items() if key != "format"}
    report = Record(manifest.path.parent / REPORT)
    report.save(format=1, **head, metrics=rows, not_measured=scoring.not_measured, videos=listed)
    if rows or scoring.not_measured:
        print(format_summary(rows, {name: why for name, why in scoring.not_measured.items() if name not in rows}))
    say(f"{report.path}: {len(videos)} videos and all their numbers", quiet=scoring.quiet)
