"""`longvid convert`: an official checkpoint becomes a pipeline folder."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from longvid.cli.parser import Parser

DTYPES = ("float16", "bfloat16", "float32")
TOKENIZER = "ali-vilab/text-to-video-ms-1.7b"


def make_parser(prog: str, summary: str) -> Parser:
    """The parser of `longvid convert`."""
    parser = Parser(prog=prog, description=f"longvid convert: {summary}.")
    parser.add_argument("checkpoint", help="streaming_t2v.ckpt as the authors of StreamingT2V published it (25.6 GB)")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="the pipeline folder to write")
    parser.add_argument("--dtype", choices=DTYPES, default="float16", help="precision of the weights (%(default)s)")
    parser.add_argument(
        "--tokenizer",
        default=TOKENIZER,
        metavar="NAME",
        help="folder or hub id of a model with the tokenizer (%(default)s)",
    )
    return parser


def run(parser: Parser, arguments: argparse.Namespace, rest: Sequence[str]) -> int:
    """Convert, and say what was written."""
    parser.check_unknown(rest)
    if rest:
        parser.error(f"expected one checkpoint; got {rest[0]!r} too")
    output = Path(arguments.output)
    if output.exists() and (output.is_file() or any(output.iterdir())):
        raise ValueError(f"{output} exists already; choose another --output or remove it")

    import torch

    from longvid.conversion.files import read_weights
    from longvid.conversion.pipeline import save_streaming_t2v
    from longvid.pipelines.tokenizers import load_tokenizer

    weights = read_weights(arguments.checkpoint)
    print(f"{arguments.checkpoint}: {len(weights)} tensors", file=sys.stderr)
    tokenizer = load_tokenizer(arguments.tokenizer)
    save_streaming_t2v(weights, output, tokenizer=tokenizer, dtype=getattr(torch, arguments.dtype))
    print(f"{output}: a StreamingT2VPipeline; load it with LongVideoPipeline.from_pretrained({str(output)!r})")
    return 0
