"""`longvid generate`: a prompt in, a video file and its record out; frames are written as they are made."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from longvid.cli.generate_options import make_parser, option_values
from longvid.cli.interrupts import Interrupts
from longvid.cli.job import Job, report
from longvid.cli.load import num_launched
from longvid.cli.output_paths import OutputPaths, check_outputs, check_sources_kept, free_name
from longvid.cli.parser import Parser
from longvid.cli.request import GenerateSettings, read_record
from longvid.cli.run_options import RUN_OPTIONS
from longvid.cli.settings import merge_settings, split_overrides

__all__ = ["make_parser", "run"]

Prepared: TypeAlias = tuple[GenerateSettings, OutputPaths | None, Any, dict[str, Any] | None]


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Make the video; what can be checked is checked before the model is loaded."""
    parser.check_unknown(rest)
    if arguments.prompts is not None:
        from longvid.cli.many_runs import make_all

        return make_all(arguments, read_settings(arguments, [*arguments.words, *rest]))
    settings = read_settings(arguments, [*arguments.words, *rest])
    prepare = partial(_prepare, parser, arguments, settings)
    if num_launched() > 1:
        from longvid.cli.together import make_together

        return make_together(prepare, Job, arguments, device=settings.device)
    settings, paths, image, earlier = prepare()
    with Interrupts() as interrupts:
        if paths is None:
            from longvid.cli.run_job import RunJob

            run_job = RunJob(settings, arguments, interrupts)
            run_job.load(image, None)
            return run_job.make()
        job = Job(settings, paths, interrupts, command=arguments.command, quiet=arguments.quiet, debug=arguments.debug)
        job.load(image, earlier)
        code = job.make()
    report(job, arguments)
    return code


def _prepare(parser: Parser, arguments: argparse.Namespace, settings: GenerateSettings) -> Prepared:
    """Check all that can be checked without the model; there are no paths for a run in a folder."""
    settings = settle(settings)
    if not settings.prompt:
        parser.error('expected a prompt, such as "a red circle moving right"')
    in_folder = arguments.run_dir is not None
    if any(getattr(arguments, name) not in (None, False) for name in RUN_OPTIONS):
        from longvid.cli.run_job import check_generate_arguments, check_one_process

        check_generate_arguments(arguments, settings.output)
        check_one_process()
    paths = None if in_folder else check_outputs(settings.output)
    settings.call_arguments()
    image = open_image(settings.image)
    check_sources(settings)
    events = Path(arguments.events) if arguments.events else None  # what else a run folder holds is new
    check_sources_kept(paths.named() if paths else {"--events": events}, sources_of(settings))
    return settings, paths, image, read_record(arguments.from_json) if arguments.from_json else None


def read_settings(arguments: argparse.Namespace, words: Sequence[str]) -> GenerateSettings:
    """The settings that a command line names, not yet checked."""
    prompts, overrides = split_overrides(words)
    options = option_values(arguments)
    if prompts:
        options["prompt"] = prompts
    base = None
    if arguments.from_json:
        base = dict(read_record(arguments.from_json)["settings"])
        output = dict(base["output"])
        path = Path(output["path"] or "video.mp4")
        output |= {"path": str(free_name(path)), "contact_sheet": None, "show_masks": None}
        base["output"] = output
    return merge_settings(GenerateSettings, base=base, file=arguments.config, overrides=overrides, options=options)


def settle(settings: GenerateSettings) -> GenerateSettings:
    """Check the prompts and the seed, draw a seed where there is none, and find the files.

    Raises:
        ValueError: for prompts that are no texts, or a seed out of its range.
    """
    settings.prompt = [settings.prompt] if isinstance(settings.prompt, str) else settings.prompt
    if not (isinstance(settings.prompt, list) and all(isinstance(text, str) for text in settings.prompt)):
        raise ValueError(f"prompt must be a text or a list of texts; got {settings.prompt!r}")
    settings.seed = secrets.randbelow(2**32) if settings.seed is None else settings.seed
    if not 0 <= settings.seed < 2**63:
        raise ValueError(f"seed must lie in [0, 2^63); got {settings.seed}")
    settings.image = str(Path(settings.image).resolve()) if settings.image else None
    settings.video = str(Path(settings.video).resolve()) if settings.video else None
    return settings


def open_image(path: str | None) -> Any:
    """The first frame, or None where none is named.

    Raises:
        ValueError: if there is no such image.
    """
    if path is None:
        return None
    from PIL import Image

    try:
        return Image.open(path).convert("RGB")
    except FileNotFoundError as error:
        raise ValueError(f"--image: there is no file {path}") from error
    except Exception as error:  # PIL raises many kinds for damaged files
        raise ValueError(f"--image: {path} is damaged or not an image") from error


def sources_of(settings: GenerateSettings) -> dict[str, str | None]:
    """What a run reads beside its model, by what it is."""
    return {"video": settings.video, "image": settings.image}


def check_sources(settings: GenerateSettings) -> None:
    """Check that the model and the video are there.

    Raises:
        ValueError: if one is not.
    """
    from longvid.pipelines.sources import local_source

    local_source(settings.model)
    if settings.video is not None and not Path(settings.video).exists():
        raise ValueError(f"--video: there is no file {settings.video}")
