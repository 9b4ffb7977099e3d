"""The whole programme for one GPU: every benchmark, one after another, inside a given time.

Wheels it needs: longvid's own dependencies (accelerate, av, diffusers, einops, numpy, omegaconf with
antlr4-python3-runtime, pillow, safetensors, tqdm, transformers), torch built for CUDA, and triton, which such a torch brings
along, for the modes that compile. xformers is tried, and left out where it is missing.
`--dry-run` goes through the same list with toys on the CPU and without a compiler.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Job:
    """A benchmark and its arguments; the most important ones come first."""

    script: str
    name: str
    arguments: tuple[str, ...]
    limit_s: int
    dry: tuple[str, ...]


def _job(script: str, name: str, arguments: str, limit_s: int, dry: str = "") -> Job:
    return Job(script, name, tuple(arguments.split()), limit_s, tuple(dry.split()))


_SHORT = "--steps 2 --windows 2 --repeats 1 --warmup 1"
_FAST = "--repeats 2 --warmup 1 --dtypes bfloat16"
_SWITCHES = "--methods streaming-t2v art-v --size 512 --attention native _native_cudnn _native_flash xformers"
_WHOLE = "--methods harivo enhancer --strategy joint --size 256 --steps 1"
JOBS = (
    _job("roofline", "roofline", "--dtypes bfloat16 float32", 90, "--repeats 1 --warmup 1 --matrix 64"),
    _job("generate", "streaming-t2v", f"--methods streaming-t2v --sizes 256 --modes eager fast max {_FAST}", 150, _SHORT),
    _job("generate", "art-v", f"--methods art-v --sizes 320 --modes eager fast max {_FAST} --windows 6", 120, _SHORT),
    _job("generate", "art-v-768", f"--methods art-v --sizes 768 --modes eager {_FAST} --windows 3", 45, _SHORT),
    _job("generate", "harivo", f"--methods harivo --sizes 256 --modes eager fast {_FAST} --steps 25", 60, _SHORT),
    _job("generate", "enhancer", f"--methods enhancer --sizes 720 --modes eager --windows 2 {_FAST} --repeats 1", 120, _SHORT),
    _job("peers", "peers", "--dtype bfloat16 --steps 10 --repeats 3", 60, "--steps 2 --repeats 1"),
    _job("memory", "memory", "--methods streaming-t2v art-v --dtype bfloat16 --windows 2 24", 90, "--windows 1 2 --in-process"),
    _job("memory", "memory-of-whole-videos", f"{_WHOLE} --dtype bfloat16 --windows 2 12", 75, "--windows 1 2 --in-process"),
    _job("switches", "switches", f"{_SWITCHES} --dtype bfloat16 --repeats 10", 75, "--repeats 1 --warmup 1"),
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the jobs; a job that fails or takes too long does not stop the others. The number that did not finish."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("benchmark-results"), help="folder for a JSON file per job")
    options.add_argument("--minutes", type=float, default=10.0, help="when it must be over")
    options.add_argument("--only", nargs="+", metavar="JOB", choices=[job.name for job in JOBS])
    options.add_argument(
        "--dry-run",
        action="store_true",
        help="toys on the CPU, nothing compiled: whether everything runs, not how fast",
    )
    args = options.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    over, failed = time.monotonic() + 60 * args.minutes, 0
    for job in JOBS:
        if args.only and job.name not in args.only:
            continue
        failed += not _run(job, args, over)
    return failed


def _run(job: Job, args: argparse.Namespace, over: float) -> bool:
    left = over - time.monotonic()
    if left < 5:
        print(f"== {job.name}: left out, the time is over", flush=True)
        return False
    program = [sys.executable, str(HERE / f"{job.script}.py"), "--json", str(args.out / f"{job.name}.json")]
    program += job.arguments
    if args.dry_run:  # later arguments win
        program += [*job.dry, "--models", "toy", "--device", "cpu"]
        program += [f"--dtype{'' if job.script in ('peers', 'memory', 'switches') else 's'}", "float32"]
        size = {"generate": "--sizes", "switches": "--size", "memory": "--size"}.get(job.script)
        program += [size, "16"] if size else []
    print(f"== {job.name}: {' '.join(program[1:])}", flush=True)
    begin, limit = time.monotonic(), left if args.dry_run else min(job.limit_s, left)
    environment = {**os.environ, "CXX": "none"} if args.dry_run else None  # compiling toys takes minutes
    try:
        done = subprocess.run(program, timeout=limit, env=environment).returncode == 0
    except subprocess.TimeoutExpired:
        done = False
    print(f"== {job.name}: {'done' if done else 'NOT finished'} in {time.monotonic() - begin:.0f} s", flush=True)
    return done


if __name__ == "__main__":
    sys.exit(main())
