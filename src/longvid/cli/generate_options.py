"""The options of `longvid generate`."""

from __future__ import annotations

import argparse
from typing import Any

from longvid.cli.parser import Parser, at_least, guidance, one_of
from longvid.cli.request import DEFAULT_MODEL
from longvid.cli.run_options import RUN_OPTIONS, add_generate_arguments

EXAMPLES = """\
examples:
  longvid generate "a red circle moving right on a blue checkered background" --num-frames 64 --output demo.mp4
  longvid generate "a red circle moving right" "the red circle bouncing" --frames-per-prompt 32 --output story.webm
  longvid generate "a green star spinning" --image first.png --output frames/ --contact-sheet sheet.png
  longvid generate "a red circle moving right" --video demo.mp4 --num-frames 100 --output more.mp4
  longvid generate "a red circle moving right" --show-masks masks.png --scheduler ddim num_inference_steps=30
  longvid generate --config run.yaml output.crf=12 scheduler.options.eta=0.5
  longvid generate --from-json demo.json --output again.mp4
  longvid generate "a red circle moving right" --num-frames 2400 --run-dir runs/circle
  longvid generate --prompts prompts.txt --num-frames 240 --run-dir runs

Any setting can stand in the YAML file of --config, as an option, or as a word key=value:
prompt, negative_prompt, image, video, model, seed, num_frames, frames_per_prompt, height, width,
num_inference_steps, guidance_scale, reference_guidance_scale, anchor_guidance_scale, noise_level, device, dtype,
scheduler.name, scheduler.options.KEY, output.path, output.fps, output.codec, output.crf, output.pixel_format,
output.contact_sheet, output.show_masks, output.overwrite, and options.KEY for any other argument of the pipeline.
What is left out takes the model's own recommendation. Options and words win over the file.
"""

ABOUT = """\
Frames are written as they are made, so that a video can be of any length, and what is
made is kept when the run is stopped. Beside demo.mp4, demo.json records how to make it again.
"""
DTYPES = ("float32", "float16", "bfloat16")


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid generate`."""
    parser = Parser(
        prog=prog,
        usage=f"{prog} PROMPT [PROMPT ...] [options] [key=value ...]",
        description=f"longvid generate: {summary}.\n\n{ABOUT}",
        epilog=EXAMPLES,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("words", metavar="PROMPT", nargs="*", default=[], help="what to show; several tell one video")
    _add_content(parser.add_argument_group("what"))
    _add_sampling(parser.add_argument_group("how (default: what the model recommends)"))
    _add_output(parser.add_argument_group("output"))
    _add_run(parser.add_argument_group("run"))
    add_generate_arguments(parser.add_argument_group("long runs, in a folder (longvid resume, reroll, extend, branch)"))
    return parser


def option_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given as options, by dotted key."""
    others = ("words", "config", "from_json", "json", "quiet", "command", "debug", *RUN_OPTIONS)
    return {key: value for key, value in vars(arguments).items() if key not in others}


def _add_content(group: Any) -> None:
    group.add_argument("--model", metavar="NAME", help=f"bundled name, folder or hub id (default: {DEFAULT_MODEL})")
    group.add_argument("--num-frames", metavar="N", type=at_least(1), help="length of the video, of any size")
    group.add_argument(
        "--frames-per-prompt", metavar="N[,N...]", type=_lengths,
        help="frames of each prompt, one number or one for each (default: even shares)",
    )  # fmt: skip
    group.add_argument("--image", metavar="FILE", help="the first frame")
    group.add_argument("--video", metavar="FILE", help="a video to continue; only new frames are made")
    group.add_argument("--negative-prompt", metavar="TEXT", help="what to steer away from")
    group.add_argument("--height", metavar="PIXELS", type=at_least(1))
    group.add_argument("--width", metavar="PIXELS", type=at_least(1))
    group.add_argument("--seed", metavar="S", type=at_least(0), help="start of the random numbers (default: drawn)")


def _add_sampling(group: Any) -> None:
    group.add_argument("--num-inference-steps", metavar="N", type=at_least(1), help="denoising steps of each frame")
    group.add_argument(
        "--guidance-scale", metavar="X", type=guidance, help="guidance on the text; 1: off; 12.5:7.5: high, then low"
    )
    group.add_argument("--reference-guidance-scale", metavar="X", type=float, help="on the frames before; 0: off")
    group.add_argument("--anchor-guidance-scale", metavar="X", type=float, help="on the first frame; 0: off")
    group.add_argument("--noise-level", metavar="K", type=at_least(0), help="how noisy the frames before are made")
    group.add_argument("--scheduler", metavar="NAME", dest="scheduler.name", help="ddim, euler-ancestral, ...")


def _add_output(group: Any) -> None:
    group.add_argument(
        "-o", "--output", metavar="PATH", dest="output.path",
        help=".mp4, .webm, .gif, or a folder for PNGs (default: video.mp4, or the next free name)",
    )  # fmt: skip
    group.add_argument("--fps", metavar="X", dest="output.fps", type=float, help="frames per second (default: 8)")
    group.add_argument("--codec", metavar="NAME", dest="output.codec", help="libx264, libx265, libvpx-vp9, ...")
    group.add_argument(
        "--crf", metavar="X", dest="output.crf", type=float, help="smaller: better, larger file (default: 18)"
    )
    group.add_argument("--pixel-format", metavar="NAME", dest="output.pixel_format", help="yuv420p, yuv444p, ...")
    group.add_argument(
        "--contact-sheet", metavar="FILE", dest="output.contact_sheet", help="the frames on one .png page"
    )
    group.add_argument(
        "--show-masks", metavar="FILE", dest="output.show_masks",
        help="draw the predicted masks, black = predicted anew, white = copied: .png for some frames, .mp4 for all",
    )  # fmt: skip
    group.add_argument(
        "--no-overwrite", dest="output.overwrite", action="store_false", help="refuse to replace what exists"
    )


def _add_run(group: Any) -> None:
    group.add_argument("--device", metavar="NAME", help="cuda, cuda:1, mps, cpu (default: cuda where there is one)")
    group.add_argument("--dtype", metavar="NAME", type=one_of(DTYPES), help="float32 (default), float16, bfloat16")
    group.add_argument("--config", metavar="FILE", default=None, help="settings from a YAML file")
    group.add_argument("--from-json", metavar="FILE", default=None, help="make the video of a record again")
    group.add_argument("--json", action="store_true", default=False, help="print the record on stdout")
    group.add_argument("--quiet", action="store_true", default=False, help="no progress bar, no summary")


def _lengths(word: str) -> int | list[int]:
    try:
        numbers = [int(part) for part in word.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise argparse.ArgumentTypeError(f"expected whole numbers of at least 1, such as 16 or 16,32; got {word!r}")
    return numbers[0] if len(numbers) == 1 else numbers
