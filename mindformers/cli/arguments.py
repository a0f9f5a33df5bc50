"""The arguments of run_mindformer.py and `mindformers run`, and how they change the configuration."""
import argparse
import os
from pathlib import Path

from mindformers.cli.console import (InputError, Parser, add_debug, boolean, boolean_or_text, not_empty, not_negative,
                                     positive)
from mindformers.tools.env import set_env
from mindformers.tools.register.config import ActionDict
from mindformers.tools.register.sections import ROOT, RUN_MODES
from mindformers.tools.utils import parse_value

# argument -> (dotted key, type of the value, help)
_KEYS = {
    "mode": ("context.mode", int, "0 graph mode, 1 PyNative mode"),
    "device_id": ("context.device_id", not_negative, "number of the device"),
    "device_target": ("context.device_target", str, "CPU or Ascend"),
    "run_mode": ("run_mode", str, "one of " + ", ".join(RUN_MODES)),
    "do_eval": ("do_eval", boolean, "evaluate while training"),
    "train_dataset_dir": ("train_dataset.data_loader.dataset_dir", not_empty, "training data"),
    "eval_dataset_dir": ("eval_dataset.data_loader.dataset_dir", not_empty, "evaluation data"),
    "predict_batch_size": ("predict_batch_size", positive, "prompts of one forward pass"),
    "load_checkpoint": ("load_checkpoint", str, "checkpoint file or folder"),
    "src_strategy_path_or_dir": ("src_strategy_path_or_dir", str, "strategy of a sliced checkpoint"),
    "auto_trans_ckpt": ("auto_trans_ckpt", boolean, "re-slice the checkpoint"),
    "transform_process_num": ("transform_process_num", positive, "processes that re-slice"),
    "only_save_strategy": ("only_save_strategy", boolean, "save the sharding strategy and exit"),
    "resume_training": ("resume_training", boolean_or_text, "True, or the file name of the checkpoint to resume from"),
    "strategy_load_checkpoint": ("parallel.strategy_ckpt_load_file", str, "strategy file of the checkpoint"),
    "remote_save_url": ("remote_save_url", str, "where to upload results"),
    "seed": ("seed", not_negative, "seed of weights, data order and sampling"),
    "use_parallel": ("use_parallel", boolean, "run on several processes"),
    "profile": ("profile", boolean, "profile the run"),
    "epochs": ("runner_config.epochs", positive, "passes over the data"),
    "batch_size": ("runner_config.batch_size", positive, "rows of one forward pass on one process"),
    "gradient_accumulation_steps": ("runner_config.gradient_accumulation_steps", positive, "forward passes per step"),
    "sink_mode": ("runner_config.sink_mode", boolean, "several steps per call of the device"),
    "num_samples": ("train_dataset.data_loader.num_samples", positive, "use only the first rows of the data"),
    "output_dir": ("output_dir", not_empty, "root of everything the run writes"),
    "do_sample": ("do_sample", boolean, "sample instead of taking the likeliest token"),
    "top_k": ("top_k", not_negative, "sample among the k likeliest tokens; 0 for all"),
    "trust_remote_code": ("trust_remote_code", boolean, "run code that comes with a checkpoint"),
}

_EPILOG = """Any key of the configuration is an argument too: --model.model_config.num_layers 2, --lr_schedule.lr_end=0.
An argument wins over the YAML. Example:
  python run_mindformer.py --config configs/tiny/predict_llama_tiny.yaml --predict_data "def read_json(path):"
"""


def build_parser(prog, positional_config):
    """Return the parser of all arguments.

    Args:
        prog (str): name of the command in messages.
        positional_config (bool): the configuration may also stand without ``--config``.
    """
    parser = Parser(prog=prog, description="Train, finetune, evaluate or predict as a YAML says.", epilog=_EPILOG)
    if positional_config:
        parser.add_argument("config_file", nargs="?", metavar="CONFIG", help="YAML of the run, or the name of a model")
    parser.add_argument("--config", "-c", help="YAML of the run, relative to here or to the suite")
    for name, (key, kind, text) in _KEYS.items():
        parser.add_argument(f"--{name}", type=kind, metavar=name.upper(), help=f"{text} ({key})")
    parser.add_argument("--predict_data", nargs="+", type=not_empty, metavar="TEXT",
                        help="prompts, or a text file with one prompt per line; \\n is a line break (input_data)")
    parser.add_argument("--modal_type", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--adapter_id", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--options", nargs="+", action=ActionDict, metavar="KEY=VALUE",
                        help="dotted keys and values: runner_config.epochs=2 model.model_config.use_past=True")
    add_register_path(parser)
    add_debug(parser)
    return parser


def add_register_path(parser):
    """Add `--register_path`, which `use_register_path` takes."""
    parser.add_argument("--register_path", metavar="FOLDER",
                        help="your own modules: for auto_register, and for a model type the suite does not have")


def use_register_path(path):
    """Make the modules in the folder `path` known to what is imported later; None changes nothing.

    Raises:
        InputError: no folder.
    """
    if path is None:
        return
    if not os.path.isdir(path):
        raise InputError(f"--register_path {path!r} is not a folder")
    set_env("REGISTER_PATH", os.path.abspath(path))


def add_variant(parser):
    """Add `--variant`, which weights of a folder are meant."""
    parser.add_argument("--variant", type=not_empty, metavar="NAME",
                        help="weights of a folder that carry this in their names: fp16 for model.fp16.safetensors")


def parse(argv, prog, positional_config=False):
    """Return ``(namespace, overrides)``; overrides are ``{dotted key: value}`` of everything given, in order."""
    parser = build_parser(prog, positional_config)
    argv, dotted = _split_dotted(list(argv), parser)
    args, rest = parser.parse_known_args(argv)
    dotted.update(_undotted(rest, parser))
    config = args.config or (args.config_file if positional_config else None)
    if not config:
        parser.error("--config is required: the YAML of the run")
    args.config = config
    named = {key: getattr(args, name) for name, (key, _, _) in _KEYS.items() if getattr(args, name) is not None}
    for name in ("modal_type", "adapter_id"):
        if getattr(args, name):
            named[name] = list(getattr(args, name))
    if args.predict_data:
        named["input_data"] = _prompts(args.predict_data)
    return args, {**named, **(args.options or {}), **dotted}


def _split_dotted(argv, parser):
    """Take ``--a.b.c V`` and ``--a.b.c=V`` out of `argv`; returns (the rest, {key: value})."""
    rest, found = [], {}
    index = 0
    while index < len(argv):
        token = argv[index]
        key, equals, value = token[2:].partition("=")
        if not token.startswith("--") or "." not in key or " " in key:
            rest.append(token)
        elif equals:
            found[key] = parse_value(value)
        elif index + 1 < len(argv) and not argv[index + 1].startswith("--"):
            index += 1
            found[key] = parse_value(argv[index])
        else:
            parser.error(f"{token} has no value; input arg key-values are not in pair")
        index += 1
    return rest, found


def _undotted(rest, parser):
    """Read ``--key V`` of top-level keys that have no argument of their own."""
    found = {}
    tokens = list(rest)
    while tokens:
        token = tokens.pop(0)
        key, equals, value = token[2:].partition("=")
        if not token.startswith("--") or key not in ROOT.keys:
            parser.unknown(token)
        if not equals and (not tokens or tokens[0].startswith("--")):
            parser.error(f"{token} has no value; input arg key-values are not in pair")
        found[key] = parse_value(value if equals else tokens.pop(0))
    return found


def _prompts(texts):
    """Return one prompt or a list; a literal ``\\n`` is a line break, a folder is refused."""
    for text in texts:
        if len(text) < 4096 and "\0" not in text and os.path.isdir(text):
            raise InputError(f"--predict_data {text!r} is a folder; give texts or a text file")
    prompts = [text if _is_file(text) else text.replace("\\n", "\n") for text in texts]
    return prompts[0] if len(prompts) == 1 else prompts


def _is_file(text):
    """Whether a prompt names a file."""
    return len(text) < 4096 and "\n" not in text and Path(text).is_file()

