"""`longvid enhance`: a video in, the same number of frames out, made anew by a video model under a prompt."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from longvid.cli.generate_options import DTYPES
from longvid.cli.interrupts import Interrupts
from longvid.cli.job import DEFAULT_FPS, Job, report
from longvid.cli.load import num_launched
from longvid.cli.output_paths import OutputPaths, check_outputs, check_sources_kept, free_name
from longvid.cli.parser import Parser, at_least, guidance, one_of
from longvid.cli.request import OutputSettings, SchedulerSettings

ABOUT = """\
Noise is added to the video up to some timestep and taken away again under the prompt, by overlapping
chunks that are joined at a random frame at every step. As many frames come out as went in. All steps
are made before the first frame is written; what is written is kept when the run is stopped, and with
--checkpoint the steps are, too.

longvid/enhancer-tiny, the default, knows the built-in world alone. --model takes the folder or hub id
of any text-to-video model of diffusers with a 3-D UNet, such as cerspense/zeroscope_v2_XL or
ali-vilab/text-to-video-ms-1.7b.
"""
EXAMPLES = """\
examples:
  longvid enhance demo.mp4 --prompt "a red circle moving right on a blue checkered background" --strength 0.3
  longvid enhance in.mp4 --prompt "a cat running on the street" --model cerspense/zeroscope_v2_XL --output out.mp4
  longvid enhance in.mp4 --prompt "a cat" --model my-model/ --height 576 --width 1024 --strength 0.4
  longvid enhance frames/ --prompt "a cat" --model my-model/ --chunk-size 16 --overlap 4 --dtype float16
"""
CALL_KEYS = (
    "negative_prompt", "height", "width", "strength", "noise_timestep", "num_inference_steps", "guidance_scale",
    "guidance_rescale", "chunk_size", "overlap", "blending", "frames_per_batch", "host_memory_limit",
    "checkpoint",
)  # fmt: skip
"""Settings that are arguments of the pipeline's call, by the same names; those left None are not passed."""

DEFAULT_MODEL = "longvid/enhancer-tiny"


@dataclass
class EnhanceSettings:
    """One run."""

    video: str
    prompt: list[str]
    model: str
    seed: int
    negative_prompt: str | None = None
    height: int | None = None
    width: int | None = None
    strength: float | None = None
    noise_timestep: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: Any = None
    guidance_rescale: float | None = None
    chunk_size: int | None = None
    overlap: int | None = None
    blending: str | None = None
    frames_per_batch: int | None = None
    host_memory_limit: int | None = None
    checkpoint: str | None = None
    device: str | None = None
    dtype: str = "float32"
    scheduler: SchedulerSettings = field(default_factory=SchedulerSettings)
    output: OutputSettings = field(default_factory=OutputSettings)

    def call_arguments(self) -> dict[str, Any]:
        """The keyword arguments of the pipeline's call that these settings name, without the video."""
        named = {key: getattr(self, key) for key in CALL_KEYS if getattr(self, key) is not None}
        return {"prompt": self.prompt[0], **named}


class EnhanceJob(Job):
    """One run of `longvid enhance`; the pipeline draws its own bars: encoding, denoising, decoding."""

    pipeline_kind = "VideoEnhancerPipeline"

    def _count_frames(self, request: Any) -> int:
        return request.video.num_frames

    def _make_bar(self) -> Any:
        terminal = sys.stderr.isatty()
        self.pipe.set_progress_bar_config(
            disable=self.quiet, dynamic_ncols=True, mininterval=0.1 if terminal else 10.0, maxinterval=float("inf")
        )
        return _NoBar()

    def _note_border(self, chunk: Any) -> None:
        """What is decoded together says nothing about the windows that were denoised."""

    def _kept(self) -> str:
        kept, name = super()._kept(), self.settings.checkpoint
        if name is not None and Path(name).exists():
            return f"{kept}; {name} keeps the steps made so far; the same command goes on from them"
        return kept if name is not None or self.num_frames else f"{kept}; with --checkpoint FILE, steps are kept"


class _NoBar:
    """What a job tells its bar, unheard."""

    def on_step(self, *_: Any) -> dict:
        return {}

    def on_chunk(self, _num_frames: int) -> None:
        pass

    def close(self) -> None:
        pass


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid enhance`."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} VIDEO --prompt TEXT [--model FOLDER_OR_ID] [options]",
        description=f"longvid enhance: {summary}.\n\n{ABOUT}",
        epilog=EXAMPLES,
    )
    parser.add_argument("video", metavar="VIDEO", nargs="?", help="the video: a file, or a folder of PNGs")
    what = parser.add_argument_group("what")
    what.add_argument("--prompt", metavar="TEXT", help="what the video shows")
    what.add_argument("--negative-prompt", metavar="TEXT", help="what to steer away from")
    what.add_argument(
        "--model",
        metavar="NAME",
        default=DEFAULT_MODEL,
        help=f"bundled name, folder or hub id of a text-to-video model; {DEFAULT_MODEL}",
    )
    what.add_argument("--height", metavar="PIXELS", type=at_least(1), help="of the result (default: the video's own,")
    what.add_argument("--width", metavar="PIXELS", type=at_least(1), help="or what keeps the proportions)")
    what.add_argument("--seed", metavar="S", type=at_least(0), help="start of the random numbers (default: drawn)")
    _add_sampling(parser.add_argument_group("how (default: what the model recommends, else the number named)"))
    _add_output(parser.add_argument_group("output"))
    run_group = parser.add_argument_group("run")
    run_group.add_argument("--device", metavar="NAME", help="cuda, cuda:1, mps, cpu (default: cuda where there is one)")
    run_group.add_argument("--dtype", metavar="NAME", type=one_of(DTYPES), default="float32", help=", ".join(DTYPES))
    run_group.add_argument(
        "--checkpoint", metavar="FILE", help="keep the steps in a file; the same command goes on from it; needs --seed"
    )
    run_group.add_argument(
        "--host-memory-limit", metavar="GIB", type=_gibibytes,
        help="latents of the whole video beyond it lie in temporary files (TMPDIR); 4",
    )  # fmt: skip
    run_group.add_argument("--json", action="store_true", help="print the record on stdout")
    run_group.add_argument("--quiet", action="store_true", help="no progress bars, no summary")
    return parser


def _add_sampling(group: Any) -> None:
    group.add_argument("--strength", metavar="X", type=_share, help="how much is made anew, in (0, 1]; 0.6")
    group.add_argument("--noise-timestep", metavar="T", type=float, help="the same as a timestep: 600 of 1000")
    group.add_argument(
        "--num-inference-steps", metavar="N", type=at_least(1), help="of the whole schedule; its lower part is made; 50"
    )
    group.add_argument("--guidance-scale", metavar="X", type=guidance, help="guidance on the text, 1: off; 7.5")
    group.add_argument("--guidance-rescale", metavar="X", type=float, help="contrast that guidance gives back; 0.2")
    group.add_argument("--chunk-size", metavar="N", type=at_least(1), help="frames the network sees at once; 24")
    group.add_argument("--overlap", metavar="N", type=at_least(0), help="frames that neighbouring chunks share; 8")
    group.add_argument(
        "--blending", metavar="NAME", type=one_of(("paper", "released")),
        help="cuts from 0 to overlap (paper, the default), or to overlap - 1 (released)",
    )  # fmt: skip
    group.add_argument("--frames-per-batch", metavar="N", type=at_least(1), help="frames the VAE sees at once; 8")
    group.add_argument("--scheduler", metavar="NAME", help="ddim, euler-ancestral, dpm-solver-multistep, ...")


def _add_output(group: Any) -> None:
    group.add_argument(
        "-o", "--output", metavar="PATH",
        help=".mp4, .webm, .gif, or a folder for PNGs (default: VIDEO-enhanced.mp4, or the next free name)",
    )  # fmt: skip
    group.add_argument("--fps", metavar="X", type=float, help="frames per second (default: those of the video)")
    group.add_argument("--codec", metavar="NAME", help="libx264, libx265, libvpx-vp9, ...")
    group.add_argument("--crf", metavar="X", type=float, help="smaller: better, larger file (default: 18)")
    group.add_argument("--pixel-format", metavar="NAME", help="yuv420p, yuv444p, ...")
    group.add_argument("--contact-sheet", metavar="FILE", help="the frames on one .png page")
    group.add_argument("--no-overwrite", dest="overwrite", action="store_false", help="refuse to replace what exists")


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Enhance the video; what can be checked is checked before the model is loaded."""
    parser.check_unknown(rest)
    if rest:
        parser.error(f"expected one video; got {rest[0]!r} as well")
    if arguments.video is None:
        parser.error("expected a video, such as in.mp4")
    if arguments.prompt is None:
        parser.error("expected --prompt, what the video shows")
    if num_launched() > 1:
        from longvid.cli.together import make_together

        return make_together(partial(_prepare, arguments), EnhanceJob, arguments, device=arguments.device)
    settings, paths, image, earlier = _prepare(arguments)
    with Interrupts() as interrupts:
        job = EnhanceJob(
            settings, paths, interrupts, command=arguments.command, quiet=arguments.quiet, debug=arguments.debug
        )
        job.load(image, earlier)
        code = job.make()
    report(job, arguments)
    return code


def _prepare(arguments: argparse.Namespace) -> tuple[EnhanceSettings, OutputPaths, None, None]:
    """Check all that can be checked without the model; there is no first frame and no earlier record."""
    from longvid.pipelines.sources import local_source
    from longvid.video.io import read_video

    settings = _read_settings(arguments)
    source = read_video(arguments.video)
    paths = check_outputs(settings.output)
    steps = None if settings.checkpoint is None else Path(settings.checkpoint)
    check_sources_kept({**paths.named(), "--checkpoint": steps}, {"video": settings.video})
    check_sources_kept(paths.named(), {"file of --checkpoint": settings.checkpoint})
    local_source(settings.model)
    settings.output.fps = settings.output.fps or source.fps or DEFAULT_FPS
    return settings, paths, None, None


def _read_settings(arguments: argparse.Namespace) -> EnhanceSettings:
    given = vars(arguments)
    output = {each.name: given[each.name] for each in fields(OutputSettings) if each.name in given}
    video = Path(arguments.video)
    path = arguments.output or str(free_name(Path(f"{video.stem or 'video'}-enhanced.mp4")))
    plain = {each.name: given[each.name] for each in fields(EnhanceSettings) if each.name in given}
    own = {
        "video": str(video.resolve()),
        "prompt": [arguments.prompt],
        "seed": secrets.randbelow(2**32) if arguments.seed is None else arguments.seed,
        "scheduler": SchedulerSettings(arguments.scheduler),
        "output": OutputSettings(**{**output, "path": path}),
    }
    settings = EnhanceSettings(**{**plain, **own})
    if settings.seed >= 2**63:
        raise ValueError(f"seed must lie in [0, 2^63); got {settings.seed}")
    if settings.strength is not None and settings.noise_timestep is not None:
        raise ValueError("expected --strength or --noise-timestep; got both")
    if settings.checkpoint is not None and arguments.seed is None:
        raise ValueError("--checkpoint needs --seed, so that the same command makes the same video")
    if settings.chunk_size is not None and settings.overlap is not None and settings.overlap >= settings.chunk_size:
        raise ValueError(f"--overlap must be below --chunk-size; got {settings.overlap} and {settings.chunk_size}")
    return settings


def _share(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"expected a number in (0, 1]; got {word!r}")
    return number


def _gibibytes(word: str) -> int:
    try:
        number = float(word)
    except ValueError:
        number = -1.0
    if not 0 <= number < 2**30:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, in GiB; got {word!r}")
    return round(number * 2**30)
