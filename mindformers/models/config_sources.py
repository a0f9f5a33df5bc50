"""Where a configuration is found: a folder, a config.json, a YAML, or a name known from configs/."""
import glob
import os
import re

from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.utils import configs_dir

_TASKS = ("predict", "run", "finetune", "pretrain", "eval")


def known_names(config_class=None):
    """Return the sorted model names of configs/: ``predict_llama2_7b.yaml`` is "llama2_7b".

    Args:
        config_class (str | None): only names whose YAML builds this config class. Default: all.
    """
    return sorted(name for name, path in _named_yamls().items()
                  if config_class is None or _config_class_of(path) == config_class)


def find_yaml(name):
    """Return the YAML of a known name, or None."""
    if name.startswith("mindspore/"):
        name = name[len("mindspore/"):]
    return _named_yamls().get(name)


def find_config(name_or_path):
    """Return the file (config.json or YAML) that holds the configuration of `name_or_path`.

    Raises:
        TypeError: it is not a string or path.
        FileNotFoundError: nothing was found; the message says where was looked and names the nearest known name.
        ConfigError: a folder with several YAMLs and no config.json.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise TypeError(f"a config name or path must be a str, but got {type(name_or_path).__name__}")
    path = os.path.expanduser(name_or_path)
    if os.path.isfile(path):
        if not path.endswith((".yaml", ".yml", ".json")):
            raise ValueError(f"{path} must be a .yaml or .json file")
        return path
    if os.path.isdir(path):
        return _config_of_folder(path)
    found = find_yaml(path)
    if found is None:
        names = known_names()
        raise FileNotFoundError(f"{path!r} is not a file, not a folder, not a known model name, and not the owner/name "
                                "of a repository on a hub."
                                f"{did_you_mean(path, names) or ' Known names: ' + ', '.join(names) + '.'}")
    return found


def _config_of_folder(folder):
    json_path = os.path.join(folder, "config.json")
    if os.path.isfile(json_path):
        return json_path
    yamls = sorted(glob.glob(os.path.join(glob.escape(folder), "*.yaml")))
    if len(yamls) == 1:
        return yamls[0]
    if yamls:
        raise ConfigError(f"{folder} holds {len(yamls)} YAML files ({', '.join(map(os.path.basename, yamls))}); "
                          f"pass the path of the one to use")
    raise FileNotFoundError(f"{folder} holds neither config.json nor a .yaml file")


def read_yaml_model_config(path):
    """Return ``model.model_config`` of a YAML as a dict, with `architectures` from ``model.arch``."""
    return model_config_dict(MindFormerConfig(path), path)


def model_config_dict(config, path="the configuration"):
    """Return ``config.model.model_config`` of a MindFormerConfig as a dict, with `architectures` from its arch."""
    model = config.get("model") or {}
    fields = model.get("model_config")
    if not fields:
        raise ConfigError(f"{path} has no model.model_config section")
    fields = fields.to_dict() if hasattr(fields, "to_dict") else dict(fields)
    arch = (model.get("arch") or {}).get("type")
    if arch:
        fields.setdefault("architectures", [arch])
    return fields


def _named_yamls():
    """name -> path; a predict YAML is preferred over finetune and pretrain ones."""
    found = {}
    for path in glob.glob(os.path.join(configs_dir(), "**", "*.yaml"), recursive=True):
        match = re.fullmatch(rf"({'|'.join(_TASKS)})_(.+)", os.path.splitext(os.path.basename(path))[0])
        if match:
            found.setdefault(match.group(2), []).append((_TASKS.index(match.group(1)), path))
    return {name: min(paths)[1] for name, paths in found.items()}


def _config_class_of(path):
    return ((MindFormerConfig(path).get("model") or {}).get("model_config") or {}).get("type")
