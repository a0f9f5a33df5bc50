"""Names that users give to `from_pretrained`: local paths, known names of configs/, and repositories of a hub."""
import glob
import os
from pathlib import Path

from mindformers.hub import HUB_OPTIONS, is_repo_name, parse, resolve
from mindformers.models.config_sources import find_config, find_yaml
from mindformers.tools.env import get_env
from mindformers.tools.errors import ConfigError
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.utils import resolve_path

_WEIGHTS = (".safetensors", ".ckpt", ".bin")


def is_remote(name):
    """Whether `name` is a repository of a hub: no path that exists, no known name, but owner/name or with a prefix."""
    if not isinstance(name, (str, os.PathLike)) or os.path.exists(os.path.expanduser(name)):
        return False
    return find_yaml(os.fspath(name)) is None and is_repo_name(name)


def local(name, kind, options=None, **choice):
    """Return the local folder of a repository's files of `kind`; anything that is no repository comes back as it is.

    Args:
        name (str | PathLike): what the user gave.
        kind (str): see `hub.resolve`; so are the errors.
        options (dict | None): arguments of `from_pretrained`, of which those of the hubs count. Default: None.
        **choice: `subfolder`, `variant`, `use_safetensors`.
    """
    if not is_remote(name):
        return name
    return resolve(name, kind=kind, **choice, **hub_options(options))


def hub_options(options):
    """Return the arguments of the hubs among `options`."""
    return {key: value for key, value in (options or {}).items() if key in HUB_OPTIONS}


def pinned(options, folder):
    """Return `options` with the commit of a snapshot `folder` as their revision: all files are of one commit."""
    folders = (Path(folder), *Path(folder).parents)
    commit = next((part.name for part in folders if part.parent.name == "snapshots"), None)
    return options if commit is None else {**options, "revision": commit}


def weights_of(name, options=None, download=True, **choice):
    """Return the file or folder with the weights of a folder, a YAML, a known name or a repository.

    Of a YAML or known name it is, in this order: what its load_checkpoint or checkpoint_name_or_path names, what lies
    in CHECKPOINT_DOWNLOAD_FOLDER under its name, and the repository that its section `hub` names.

    Args:
        name (str | None): what the user gave.
        options (dict | None): arguments of the hubs. Default: None.
        download (bool): False asks no hub. Default: True.
        **choice: `subfolder`, `variant`, `use_safetensors`.

    Raises:
        ConfigError: no name.
        FileNotFoundError: the weights are nowhere; the message says where was looked.
        OSError: of a hub, see `hub.resolve`.
    """
    if name is None:
        raise ConfigError("from_pretrained(None) needs state_dict=")
    if os.path.isdir(name):
        return name
    if download and is_remote(name):
        return local(name, "weights", options, **choice)
    yaml_path = find_config(name)
    config = MindFormerConfig(yaml_path)
    named = config.get("load_checkpoint") or (config.model.model_config or {}).get("checkpoint_name_or_path")
    if named:
        path = resolve_path(named, os.path.dirname(yaml_path))
        if path.exists():
            return str(path)
        if download and is_remote(named):
            return local(named, "weights", options, **choice)
    kept = _downloaded(os.path.basename(os.fspath(name)))
    if kept is not None:
        return kept
    if download and config.get("hub"):
        return resolve(name, kind="weights", among=_repositories(config), **choice, **hub_options(options))
    raise FileNotFoundError(
        f"{name!r} is a known configuration ({yaml_path}), but its weights are not here"
        f"{f': {named} does not exist' if named else ''}; pass the folder that holds them, or build the model without "
        "weights with from_config")


def hub_folder_of(yaml_path, kind, options=None, **choice):
    """Return the folder of the repository that the section `hub` of a YAML names, None without that section."""
    config = MindFormerConfig(str(yaml_path))
    if not config.get("hub"):
        return None
    return resolve(str(yaml_path), kind=kind, among=_repositories(config), **choice, **hub_options(options))


def _repositories(config):
    section = config["hub"]
    found = {key: value for key, value in section.items() if value} if isinstance(section, dict) else {}
    if not found or not all(isinstance(value, str) and is_repo_name(value) for value in found.values()):
        raise ConfigError(f"hub must map huggingface or openmind to owner/name, but is {section!r}")
    return found


def _downloaded(name):
    """Weights that lie in CHECKPOINT_DOWNLOAD_FOLDER as MindFormers puts them: <family>/<name>.ckpt, or <name>/."""
    stem = os.path.splitext(name)[0] if name.endswith((".yaml", ".yml")) else name
    root = glob.escape(os.path.expanduser(get_env("CHECKPOINT_DOWNLOAD_FOLDER")))
    for place in (stem, os.path.join("*", stem)):
        found = [path for suffix in _WEIGHTS for path in sorted(glob.glob(os.path.join(root, place + suffix)))]
        found += [path for path in sorted(glob.glob(os.path.join(root, place)))
                  if any(name.endswith(_WEIGHTS) for name in os.listdir(path))]
        if found:
            return found[0]
    return None


def card_facts(model):
    """Return what a card says of a model, as arguments of `hub.model_card`: class, task, where the weights are from."""
    task = "text-generation" if model.can_generate() else \
        "text-classification" if hasattr(model, "score") else "feature-extraction"
    return {"what": type(model).__name__, "pipeline_tag": task, "base_model": _base_of(model.name_or_path)}


def _base_of(name):
    """The repository that a model was loaded from, also by its known name; None for a local one."""
    if not name or os.path.exists(os.path.expanduser(name)):
        return None
    known = find_yaml(name)
    if known is not None:
        section = MindFormerConfig(str(known)).get("hub") or {}
        return section.get("huggingface") or section.get("openmind")
    repo = parse(name) if "://" in name or is_repo_name(name) else None
    return repo.repo_id if repo else None
