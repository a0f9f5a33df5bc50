"""What must be at hand before a checked configuration can run: data, weights, tokenizers, device, prompts, a folder."""
import os
from pathlib import Path

from mindformers.tools.env import get_env, get_env_int
from mindformers.tools.errors import ConfigError
from mindformers.tools.register.schema_engine import dotted
from mindformers.tools.repo_names import looks_like_repository
from mindformers.tools.utils import configs_dir

SELF_PREPARING = ("PythonSourceDataLoader",)  # loaders that make their data when the folder is absent
TOKENIZER_FILES = ("vocab_file", "tokenizer_file", "merges_file")
WEIGHT_ENDINGS = (".safetensors", ".ckpt", ".bin")


def missing_inputs(config, devices=None):
    """Return what is missing to run `config` now, as ``[(key path, what to give)]``.

    Args:
        config (MindFormerConfig): as `check_config` returned it.
        devices (set[str]): devices of this machine. Default: found by `machine_devices`.
    """
    mode = config.get("run_mode")
    missing = [*_device(config, machine_devices() if devices is None else devices), *_modules(config)]
    if mode in ("train", "finetune"):
        missing += _output(config)
        missing += _data(config, "train_dataset", "--train_dataset_dir")
    if mode == "eval" or (mode in ("train", "finetune") and config.get("do_eval")):
        missing += _data(config, "eval_dataset", "--eval_dataset_dir")
    if mode == "predict" and not config.get("input_data"):
        missing.append((("input_data",), 'is empty; give --predict_data "text" (or a text file)'))
    return missing + _weights(config, mode) + _tokenizer(config, mode)


def require_inputs(config, source="config"):
    """Raise ConfigError that lists everything `missing_inputs` finds."""
    found = []
    for path, message in missing_inputs(config):
        file, line = config.line_of(path) or (source, None)
        found.append(f"{file}:{line}: {dotted(path)}: {message}" if line else f"{file}: {dotted(path)}: {message}")
    if found:
        raise ConfigError(found[0] if len(found) == 1 else f"{len(found)} inputs are missing:\n  " + "\n  ".join(found))


def machine_devices():
    """Return the device targets of this machine; Ascend when its driver shows a device."""
    has_ascend = any(Path("/dev").glob("davinci[0-9]*")) if Path("/dev").is_dir() else False
    return {"CPU", "Ascend"} if has_ascend else {"CPU"}


def _device(config, devices):
    target = config.get_value("context.device_target")
    if target is not None and str(target).lower() not in {name.lower() for name in devices}:
        yield ("context", "device_target"), f"this machine has no {target} device; give --device_target CPU"
    ranks = get_env_int("RANK_SIZE")
    if ranks > 1 and not config.get("use_parallel"):
        yield ("use_parallel",), f"is False in a job of {ranks} processes; give --use_parallel True"
    if config.get("use_parallel") and ranks == 1 and not get_env("MS_ROLE"):
        yield ("use_parallel",), "is True but this is one process; start it with scripts/msrun_launcher.sh"


def _modules(config, path=()):
    """Each `auto_register` whose module is not in the folder REGISTER_PATH."""
    if path and path[-1] == "auto_register" and isinstance(config, str):
        module = Path(get_env("REGISTER_PATH")) / f"{config.partition('.')[0]}.py"
        if not get_env("REGISTER_PATH"):
            yield path, f"{config!r} is a class of your own; give --register_path, the folder of {module.name}"
        elif not module.is_file():
            yield path, f"{config!r}: there is no {str(module)!r}; give --register_path the folder that holds it"
    for key, value in config.items() if isinstance(config, dict) else ():
        yield from _modules(value, (*path, key))


def _output(config):
    wanted = Path(config.get("output_dir") or ".").expanduser().absolute()
    there = next(path for path in (wanted, *wanted.parents) if path.exists())
    if not there.is_dir():
        yield ("output_dir",), f"{str(there)!r} is a file; give --output_dir a folder"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield ("output_dir",), f"nothing can be written in {str(there)!r}; give --output_dir another folder"


def _data(config, name, argument):
    loader = config.get_value((name, "data_loader"))
    if not isinstance(loader, dict) or loader.get("type") in SELF_PREPARING:
        return
    given = False
    for key in ("dataset_dir", "dataset_files", "data_files"):
        value = loader.get(key)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and item:
                given = True
                if not os.path.exists(item):
                    yield (name, "data_loader", key), f"{item!r} does not exist; give {argument}"
    if not given and ("dataset_dir" in loader or "dataset_files" in loader):
        yield (name, "data_loader", "dataset_dir"), f"is empty; give {argument}"


def _weights(config, mode):
    path = config.get("load_checkpoint")
    named = config.get_value("model.model_config.checkpoint_name_or_path")
    if path and not os.path.exists(path) and not looks_like_repository(path) and not _is_known(path):
        return [(("load_checkpoint",), f"{path!r} does not exist; give a checkpoint file or folder, or the owner/name "
                                       "of a repository on a hub")]
    if path and os.path.isdir(path) and not any(file.suffix in WEIGHT_ENDINGS for file in Path(path).rglob("*")):
        return [(("load_checkpoint",), f"the folder {path!r} holds no weights ({', '.join(WEIGHT_ENDINGS)}); give the "
                                       "one that does")]
    if not path and mode in ("predict", "eval") and not (named and os.path.exists(named)):
        return [(("load_checkpoint",), f"is empty; run_mode {mode} needs weights: give --load_checkpoint")]
    if not path and config.get("resume_training"):
        return [(("resume_training",), "needs load_checkpoint: the folder of the interrupted run's checkpoints")]
    return []


def _is_known(name):
    """Whether a YAML of configs/ has this name, whose weights are found by it."""
    return name.isidentifier() and any(True for _ in configs_dir().rglob(f"*_{name}.yaml"))


def _tokenizer(config, mode):
    section = config.get_value("processor.tokenizer")
    if mode != "predict" or not isinstance(section, dict):
        return []
    return [(("processor", "tokenizer", key), f"{section[key]!r} does not exist; give --processor.tokenizer.{key}")
            for key in TOKENIZER_FILES if section.get(key) and not os.path.exists(section[key])]
