"""`longvid train RECIPE`: settings from a file and the command line, a line now and then and a log; the run does the rest."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from longvid.cli.interrupts import Interrupted, Interrupts
from longvid.cli.parser import Parser, at_least, nearest, say
from longvid.cli.settings import merge_settings, split_overrides

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ABOUT = """\
A run that was stopped goes on from its last checkpoint when it is started again with the same settings.
Several processes: accelerate launch -m longvid.cli.main train ...
"""
EXAMPLES = """\
examples:
  longvid train base --output models/base-tiny
  longvid train art-v --base models/base-tiny --output models/art-v-tiny num_steps=1000
  longvid train harivo --config harivo-tiny-baseline --output models/harivo-baseline
  longvid train art-v --config my.yaml --data clips/ --output models/waves optimizer.learning_rate=3e-4
  longvid train video-base --output models/video-base-tiny
  longvid train streaming-t2v --base models/video-base-tiny --output models/streaming-t2v-tiny
  longvid train art-v --config art-v-paper --show-config
"""


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid train`."""
    epilog = f"configs that ship: {', '.join(shipped_configs()) or 'none'}\n\n{EXAMPLES}"
    parser = Parser(
        prog=prog,
        usage=f"{prog} RECIPE [--config NAME|FILE] [options] [key=value ...]",
        description=f"longvid train: {summary}.\n\n{ABOUT}",
        epilog=epilog,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="base (VAE, CLIP, image UNet), art-v, harivo, video-base or streaming-t2v"
    )
    parser.add_argument("words", metavar="key=value", nargs="*", default=[], help="changes to the settings")
    parser.add_argument("--config", metavar="NAME|FILE", help="a config that ships, or a YAML file")
    parser.add_argument("--output", metavar="FOLDER", help="where checkpoints and the model go (the setting `output`)")
    parser.add_argument("--data", metavar="FOLDER|CSV", help="your own captioned videos (the setting `data.path`)")
    parser.add_argument("--base", metavar="MODEL", help="the model to start from (the setting `base`)")
    parser.add_argument(
        "--log", metavar="FILE", help="a line of JSON every --log-every steps (OUTPUT/training/log.jsonl)"
    )
    parser.add_argument("--log-every", metavar="N", type=at_least(1), default=50, help="default: 50")
    parser.add_argument("--show-config", action="store_true", help="print the settings as YAML and stop")
    parser.add_argument("--quiet", action="store_true", help="no lines about the progress")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Settle the settings and run the recipe."""
    parser.check_unknown(rest)
    plain, overrides = split_overrides([*arguments.words, *rest])
    if plain:
        parser.error(f"expected settings as key=value; got {plain[0]!r}")
    from longvid.training.loop import this_process
    from longvid.training.run import RECIPES

    if arguments.recipe not in RECIPES:
        known = ", ".join(RECIPES)
        parser.error(f"unknown recipe {arguments.recipe!r}{nearest(arguments.recipe, RECIPES)} (known: {known})")
    recipe = RECIPES[arguments.recipe]
    given = {"output": arguments.output, "data.path": arguments.data, "base": arguments.base}
    options = {key: value for key, value in given.items() if value is not None}
    file = find_config(arguments.config) if arguments.config else None
    settings = merge_settings(recipe.schema, file=file, overrides=overrides, options=options)
    if arguments.show_config:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(OmegaConf.structured(settings)), end="")
        return 0
    log = arguments.log or (settings.output and Path(settings.output, "training", "log.jsonl"))
    with Interrupts():
        try:
            follow(recipe.run(settings), log=log, every=arguments.log_every, quiet=arguments.quiet)
        except Interrupted as stop:
            say("longvid: stopped; the same command goes on from the last checkpoint")
            return stop.exit_code
    say(f"longvid: the model is in {settings.output}", quiet=arguments.quiet or not this_process().is_main_process)
    return 0


def shipped_configs() -> list[str]:
    """Names of the configs inside the package."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def find_config(name: str) -> Path:
    """The file of a config that ships, or `name` itself as a path.

    Raises:
        ValueError: if it is neither.
    """
    if name in shipped_configs():
        return CONFIGS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    known = shipped_configs()
    raise ValueError(f"config {name!r} is no file and none that ships{nearest(name, known)} ({', '.join(known)})")


def follow(records: Iterable[Any], *, log: str | Path | None, every: int, quiet: bool) -> None:
    """Show every `every`-th record of a run, and the last of a stage, as a line, and append it to `log` as JSON.

    Metrics are means over the steps since the line before.
    """
    since: list[Any] = []
    for record in records:
        if not record.is_main_process:
            continue
        if since and record.stage != since[-1].stage:
            since = []
        since.append(record)
        if record.step % every and record.step != record.num_steps:
            continue
        metrics = {name: sum(one.metrics[name] for one in since) / len(since) for name in record.metrics}
        seconds = sum(one.seconds for one in since) / len(since)
        since = []
        say(describe(record, metrics, seconds), quiet=quiet)
        if log and metrics:
            values = {
                "step": record.step,
                "learning_rate": record.learning_rate,
                "seconds": round(seconds, 4),
                **metrics,
            }
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            with open(log, "a", encoding="utf-8") as file:
                file.write(json.dumps({"stage": record.stage, **values}) + "\n")


def describe(record: Any, metrics: Mapping[str, float], seconds: float) -> str:
    """One line about a step: where the run is, how it goes, when the stage will be done."""
    words = [f"{record.stage or 'step'} {record.step}/{record.num_steps}"]
    words += [f"{name} {value:.4g}" for name, value in metrics.items()]
    if metrics:
        left = round(seconds * (record.num_steps - record.step))
        words += [f"lr {record.learning_rate:.2e}", f"{seconds:.3g} s/step", f"{timedelta(seconds=left)} left"]
    return "  ".join(words)
