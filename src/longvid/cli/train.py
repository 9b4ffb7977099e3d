"""`longvid train RECIPE`: settings from a file and the command line, a bar and a log; the recipe does the rest."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from longvid.cli.interrupts import Interrupted, Interrupts
from longvid.cli.parser import Parser, nearest, say
from longvid.cli.settings import merge_settings, split_overrides

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
ABOUT = """\
A run that was stopped goes on from its last checkpoint when it is started again with the same settings.
Several processes: accelerate launch -m longvid.cli.main train ...
"""
EXAMPLES = """\
examples:
  longvid train base --output models/base-tiny
  longvid train art-v --config art-v-tiny --output models/art-v-tiny num_steps=1000
  longvid train art-v --config my.yaml optimizer.learning_rate=3e-4 --log run.jsonl
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
    parser.add_argument("recipe", metavar="RECIPE", help="base (VAE, CLIP, image UNet) or art-v")
    parser.add_argument("words", metavar="key=value", nargs="*", default=[], help="changes to the settings")
    parser.add_argument("--config", metavar="NAME|FILE", help="a config that ships, or a YAML file")
    parser.add_argument("--output", metavar="FOLDER", help="where checkpoints and the model go (the setting `output`)")
    parser.add_argument("--log", metavar="FILE", help="append a line of JSON every --log-every steps")
    parser.add_argument("--log-every", metavar="N", type=int, default=50, help="default: 50")
    parser.add_argument("--show-config", action="store_true", help="print the settings as YAML and stop")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Settle the settings and run the recipe."""
    parser.check_unknown(rest)
    plain, overrides = split_overrides([*arguments.words, *rest])
    if plain:
        parser.error(f"expected settings as key=value; got {plain[0]!r}")
    from longvid.training.recipes import RECIPES

    if arguments.recipe not in RECIPES:
        known = ", ".join(RECIPES)
        parser.error(f"unknown recipe {arguments.recipe!r}{nearest(arguments.recipe, RECIPES)} (known: {known})")
    recipe = RECIPES[arguments.recipe]
    options = {"output": arguments.output} if arguments.output else {}
    file = find_config(arguments.config) if arguments.config else None
    settings = merge_settings(recipe.schema, file=file, overrides=overrides, options=options)
    if arguments.show_config:
        from omegaconf import OmegaConf

        print(OmegaConf.to_yaml(OmegaConf.structured(settings)), end="")
        return 0
    with Interrupts():
        try:
            follow(recipe.run(settings), log=arguments.log, every=arguments.log_every, quiet=arguments.quiet)
        except Interrupted as stop:
            say("longvid: stopped; the same command goes on from the last checkpoint")
            return stop.exit_code
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


def follow(records: Iterable[Any], *, log: str | None, every: int, quiet: bool) -> None:
    """Show the records of a training run as a bar, and append every `every`-th, and the last of a stage, to `log`."""
    from tqdm import tqdm

    bar = None
    with open(log, "a", encoding="utf-8") if log else nullcontext() as file:
        for record in records:
            if not record.is_main_process:
                continue
            if bar is None or bar.total != record.num_steps or record.step <= bar.n:  # the first record of a stage
                if bar is not None:
                    bar.close()
                bar = tqdm(total=record.num_steps, initial=record.step - 1, unit="step", disable=quiet, file=sys.stderr)
            bar.update(record.step - bar.n)
            bar.set_postfix({name: f"{value:.4g}" for name, value in record.metrics.items()}, refresh=False)
            if file and (record.step % every == 0 or record.step == record.num_steps):
                values = {"step": record.step, "learning_rate": record.learning_rate, **record.metrics}
                file.write(json.dumps({"stage": getattr(record, "stage", None), **values}) + "\n")
                file.flush()
    if bar is not None:
        bar.close()
