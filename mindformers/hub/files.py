"""Which files of a repository are needed, and no others."""
import fnmatch
import posixpath
import re
from dataclasses import dataclass

from mindformers.hub.errors import HubNotFoundError
from mindformers.tools.errors import ConfigError, did_you_mean

_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
              "chat_template.json", "additional_chat_templates/*.jinja", "tokenizer.json", "*.model", "vocab.json",
              "vocab.txt", "merges.txt", "*.tiktoken", "config.json")
_PROCESSOR = (*_TOKENIZER, "processor_config.json", "preprocessor_config.json")
# weights in order of preference, {v} is the variant; an index stands for its shards
_WEIGHTS = {
    "safetensors": ("model{v}.safetensors", "model.safetensors.index{v}.json", "mindspore_model{v}.safetensors",
                    "mindspore_model.safetensors.index{v}.json"),
    "ckpt": ("mindspore_model{v}.ckpt", "mindspore_model.ckpt.index{v}.json"),
    "bin": ("pytorch_model{v}.bin", "pytorch_model.bin.index{v}.json"),
}
KINDS = ("config", "model", "weights", "tokenizer", "processor", "generation_config", "code")


@dataclass(frozen=True)
class RepoFile:
    """A file of a repository: path, bytes, and its tag (sha256, or git's sha1 for small ones)."""

    path: str
    size: int | None = None
    etag: str | None = None
    large: bool = False


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    repo_id: str
    commit: str
    files: dict  # path -> RepoFile


def wanted(names, kind, subfolder="", variant=None, use_safetensors=None):
    """Return the paths that `kind` needs of those in `names`, in the order to fetch them.

    Of weights it is one form: safetensors, else MindSpore's .ckpt, else PyTorch's .bin; an index comes without its
    shards, which `shards_of` reads from it.

    Args:
        names (Iterable[str]): paths of the repository.
        kind (str): one of `KINDS`.
        subfolder (str): folder of the repository. Default: "".
        variant (str | None): "fp16" for model.fp16.safetensors. Default: None.
        use_safetensors (bool | None): True takes no other form, False takes another. Default: None.

    Raises:
        HubNotFoundError: nothing of that kind; the message lists what there is.
        ConfigError: an unknown kind.
    """
    check_kind(kind)
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    inside = [name[len(prefix):] for name in names if name.startswith(prefix)]
    found = _CHOICES[kind](inside, variant, use_safetensors)
    if not found:
        where = f" below {subfolder!r}" if subfolder else ""
        held = ", ".join(sorted(inside)[:12]) or "nothing"
        raise HubNotFoundError(f"no {_MEANING[kind]}{f' of variant {variant!r}' if variant else ''}{where}: it holds "
                               f"{held}{', ...' if len(inside) > 12 else ''}")
    return [prefix + name for name in found]


def check_kind(kind):
    """Raise ConfigError when `kind` is none of `KINDS`."""
    if kind not in KINDS:
        raise ConfigError(f"kind {kind!r} is unknown; use {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")


def _config(names, *_):
    return ["config.json"] if "config.json" in names else _match(names, ("*.yaml", "*.yml"))


def _weights(names, variant, use_safetensors):
    v, held = f".{variant}" if variant else "", set(names)
    groups = {None: ("safetensors", "ckpt", "bin"), True: ("safetensors",), False: ("ckpt", "bin")}[use_safetensors]
    for group in groups:
        for pattern in _WEIGHTS[group]:
            if pattern.format(v=v) in held:
                return [pattern.format(v=v)]
    for group in () if variant else [group for group in groups if group != "bin"]:
        only = [name for name in _match(names, (f"*.{group}",)) if not re.search(r"-\d+-of-\d+\.", name)]
        if len(only) == 1:
            return only
    return []


def _model(names, variant, use_safetensors):
    weights = _weights(names, variant, use_safetensors)
    return [*_config(names), *_match(names, ("generation_config.json",)), *weights] if weights else []


def _tokenizer(names, *_):
    found = _match(names, _TOKENIZER)
    return found if {"tokenizer_config.json", "config.json"} & set(found) else found + _match(names, ("*.yaml",))


def _match(names, patterns):
    """Names that match a pattern; a pattern without a slash matches no deeper path."""
    return [name for pattern in patterns for name in sorted(names)
            if fnmatch.fnmatchcase(name, pattern) and name.count("/") == pattern.count("/")]


_CHOICES = {"config": _config, "weights": _weights, "model": _model, "tokenizer": _tokenizer,
            "processor": lambda names, *_: list(dict.fromkeys([*_tokenizer(names), *_match(names, _PROCESSOR)])),
            "generation_config": lambda names, *_: _match(names, ("generation_config.json",)),
            "code": lambda names, *_: _match(names, ("*.py",))}
_MEANING = {"config": "config.json or YAML", "weights": "weights", "model": "weights", "tokenizer": "tokenizer files",
            "processor": "tokenizer or processor files", "generation_config": "generation_config.json",
            "code": "Python files"}


def is_index(path):
    """Whether `path` is the index of sharded weights."""
    return re.search(r"\.index(\.\w+)?\.json$", path) is not None


def shards_of(index_path, content):
    """Return the paths of the shards that an index (its JSON content) names, beside the index.

    Raises:
        ConfigError: it is no index, or names a file outside its folder.
    """
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConfigError(f"{index_path} has no weight_map of tensor names to files")
    folder, shards = posixpath.dirname(index_path), dict.fromkeys(weight_map.values())
    for shard in shards:
        if not isinstance(shard, str) or not is_safe(shard) or "/" in shard:
            raise ConfigError(f"{index_path} names the file {shard!r}: only files beside it may be named")
    return [posixpath.join(folder, shard) for shard in shards]


def is_safe(path):
    """Whether a repository's path stays inside a folder on every system."""
    return bool(path) and not set(path) & set("\\\0:") and not path.startswith("/") and \
        not any(part in ("", ".", "..") for part in path.split("/"))
