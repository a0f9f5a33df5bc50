"""`mindformers convert`: weights between Hugging Face and MindFormers, either way."""
import os
from pathlib import Path

from mindformers.cli.arguments import add_register_path, add_variant, use_register_path
from mindformers.cli.console import InputError, Parser, add_debug, guarded

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


def build_parser():
    """Return the parser of this verb."""
    parser = Parser(prog="mindformers convert", description="Convert a model folder or weights file to another format.",
                    epilog="Example:\n  mindformers convert ./Llama-2-7b-hf ./llama2_7b --to mindformers --format ckpt")
    parser.add_argument("src", help="folder (config.json or YAML, and weights) or weights file")
    parser.add_argument("dst", help="folder to write")
    parser.add_argument("--to", required=True, choices=("hf", "mindformers"), help="names of the result")
    parser.add_argument("--format", choices=("safetensors", "ckpt"),
                        help="file format of the result; default safetensors for hf, ckpt for mindformers")
    parser.add_argument("--config", help="config.json, YAML or folder, when src has none beside it")
    parser.add_argument("--dtype", choices=(*DTYPES, *DTYPES.values()), help="dtype of the result; default as it is")
    add_variant(parser)
    add_register_path(parser)
    add_debug(parser)
    return parser


def main(argv):
    """Run the verb; returns the exit code."""
    return guarded(lambda: _convert(build_parser().parse_args(argv)), "--debug" in argv)


def _convert(args):
    use_register_path(args.register_path)
    if not os.path.exists(args.src):
        raise InputError(f"no such file or folder: {args.src!r}")
    if os.path.isdir(args.src) and os.path.abspath(args.src) == os.path.abspath(args.dst):
        raise InputError("src and dst are the same folder; write to another one")
    if os.path.exists(args.dst) and not os.path.isdir(args.dst):
        raise InputError(f"dst must be a folder, but {args.dst!r} is a file; name another one")
    if args.to == "hf" and args.format == "ckpt":
        raise InputError("--to hf is read from safetensors only; leave --format away, or use --to mindformers")
    if args.variant and not os.path.isdir(args.src):
        raise InputError(f"--variant {args.variant} chooses among the weights of a folder, but {args.src!r} is a file; "
                         "leave it out")
    from mindformers.checkpoint.formats import find_weights
    from mindformers.models.auto.convert import convert_checkpoint
    src = find_weights(Path(args.src), args.variant) if args.variant else args.src
    convert_checkpoint(src, args.dst, to=args.to, format=args.format,
                       dtype=DTYPES.get(args.dtype, args.dtype), config=args.config)
    print(f"written: {args.dst}")
