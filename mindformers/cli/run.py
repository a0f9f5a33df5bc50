"""`mindformers run` and run_mindformer.py: arguments -> configuration -> schema -> Trainer.

Everything that can be wrong with the input is reported before MindSpore is imported.
"""
import sys
from pathlib import Path

from mindformers.cli.arguments import parse, use_register_path
from mindformers.cli.console import InputError, guarded
from mindformers.models.config_sources import find_yaml, known_names
from mindformers.tools.errors import did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.register.readiness import require_inputs
from mindformers.tools.register.schema import check_config
from mindformers.tools.utils import configs_dir, get_real_rank, set_output_path


def main(argv=None, prog="run_mindformer.py", positional_config=False):
    """Run a YAML; returns the exit code (0 done, 1 the job failed, 2 wrong input, 130 interrupted)."""
    argv = sys.argv[1:] if argv is None else argv
    return guarded(lambda: _run(argv, prog, positional_config), debug="--debug" in argv)


def _run(argv, prog, positional_config):
    args, overrides = parse(argv, prog, positional_config)
    checked = load_checked(args.config, overrides, args.register_path, ready=True)
    config = checked.config
    try:
        set_output_path(config.output_dir)
    except NotADirectoryError as error:
        raise InputError(str(error)) from error
    if checked.ignored and get_real_rank() == 0:
        logger.info("keys without effect here: %s", "; ".join(
            f"{', '.join(keys)} ({reason})" for reason, keys in by_reason(checked.ignored)))
    start_job(config)


def by_reason(ignored):
    """Group ``[(key, reason)]`` as ``[(reason, [keys])]``, in the order of the first keys."""
    groups = {}
    for key, reason in ignored:
        groups.setdefault(reason, []).append(key)
    return list(groups.items())


def load_checked(path, overrides=None, register_path=None, ready=False):
    """Return the CheckedConfig of a YAML with overrides.

    Args:
        path (str): a YAML: relative to the working directory, to the suite, or the name of a known model.
        overrides (dict): dotted keys that win over the file. Default: None.
        register_path (str): folder of the user's modules. Default: None.
        ready (bool): also ask for data, weights and device. Default: False.

    Raises:
        InputError: anything wrong with the file or the values.
    """
    use_register_path(register_path)
    try:
        file = find_config(path)
        config = MindFormerConfig(file)
        config.merge_from_dict(overrides, source="command line")
        checked = check_config(config, str(file))
        if ready:
            require_inputs(checked.config, str(file))
    except (ValueError, OSError) as error:
        raise InputError(str(error)) from error
    return checked


def find_config(path):
    """Return the Path of a YAML: as given, below the suite, below configs/, or by model name.

    Raises:
        FileNotFoundError: not found; the nearest known name or file is named.
    """
    configs = configs_dir()
    below = Path(path).expanduser()
    candidates = [below, configs.parent / below, configs / below]
    if below.parts and below.parts[0] == "configs":
        candidates.append(configs.joinpath(*below.parts[1:]))
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    if below.is_dir():
        raise FileNotFoundError(f"{str(path)!r} is a folder; give the YAML in it")
    known = find_yaml(str(path))
    if known is not None:
        return Path(known)
    shipped = {file.stem: file for file in configs.rglob("*.yaml")} if configs.is_dir() else {}
    if str(path) in shipped:
        return shipped[str(path)]
    names = [*known_names(), *shipped]
    raise FileNotFoundError(f"no configuration {str(path)!r}: neither a file here nor one of the suite, which "
                            f"`mindformers ls` lists.{did_you_mean(below.stem, names)}")


def start_job(config):
    """Build the Trainer of a checked configuration and do what `run_mode` says."""
    from mindformers.trainer import Trainer
    trainer = Trainer(config)
    mode = config.run_mode
    if mode == "train":
        trainer.train()
    elif mode == "finetune":
        trainer.finetune(finetune_checkpoint=config.load_checkpoint)
    elif mode == "eval":
        result = trainer.evaluate(eval_checkpoint=config.load_checkpoint)
        if isinstance(result, dict) and get_real_rank() == 0:
            print("  ".join(f"{name}: {value:.6g}" for name, value in result.items()))
    else:
        results = trainer.predict(predict_checkpoint=config.load_checkpoint, input_data=config.input_data,
                                  batch_size=config.predict_batch_size)
        if len(results) > 1 and get_real_rank() == 0:  # the text of a single prompt was streamed
            for result in results:
                print("\n".join(result["text_generation_text"]))
