"""Config containers: `DictConfig`, `MindFormerConfig` (YAML, base_config, overrides) and the `--options` parser."""
import copy
from argparse import Action, ArgumentParser
from collections import OrderedDict
from pathlib import Path

import yaml

from mindformers.tools.errors import ConfigError
from mindformers.tools.register.yaml_file import read_yaml
from mindformers.tools.utils import parse_value

BASE_CONFIG = "base_config"


class DictConfig(dict):
    """A dict whose keys are attributes; reading a missing attribute gives None."""

    def __init__(self, **kwargs):
        super().__init__()
        self.update(kwargs)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self.get(name)

    def __setattr__(self, name, value):
        self[name] = value

    def __delattr__(self, name):
        if name not in self:
            raise AttributeError(name)
        del self[name]

    def __deepcopy__(self, memo):
        clone = type(self).__new__(type(self))
        memo[id(self)] = clone
        for key, value in self.items():
            dict.__setitem__(clone, key, copy.deepcopy(value, memo))
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone

    def to_dict(self):
        """Return plain dicts and lists all the way down."""
        return _plain(self)


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


class MindFormerConfig(DictConfig):
    """Configuration of one task, from YAML files and keyword arguments.

    ``base_config: other.yaml`` (or a list) inside a file names files, relative to it, that are merged below it, key by
    key; lists are replaced. Of several files given here a later one replaces whole top-level keys of an earlier one,
    and keyword arguments come last. Nested dicts are MindFormerConfig, also inside lists; a missing attribute is None.

    Args:
        *args (str | Path): YAML files (.yaml or .yml).
        **kwargs: top-level keys.

    Raises:
        FileNotFoundError: a file is missing.
        ConfigError: not a YAML path, unreadable YAML, a base_config that leads back to itself.
    """

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.__dict__["_lines"] = {}
        for path in args:
            if not isinstance(path, (str, Path)) or Path(path).suffix not in (".yaml", ".yml"):
                raise ConfigError(f"a config must be the path of a .yaml or .yml file, but got "
                                  f"{str(path) if isinstance(path, Path) else path!r}")
            content, lines = _load_with_bases(Path(path))
            for key, value in content.items():
                self[key] = value
                self._drop_lines((key,))
            self.__dict__["_lines"].update(lines)
        for key, value in kwargs.items():
            self._drop_lines((key,))
            self[key] = value

    def __setitem__(self, key, value):
        super().__setitem__(key, _wrap(value))

    def update(self, *args, **kwargs):
        """Like dict.update; nested dicts become MindFormerConfig."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def setdefault(self, key, default=None):
        """Like dict.setdefault; a dict becomes a MindFormerConfig."""
        if key not in self:
            self[key] = default
        return self[key]

    def line_of(self, path):
        """Return ``(file, line)`` where the key path (a tuple) was written, or None; the nearest parent counts."""
        lines = self.__dict__.get("_lines", {})
        return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)

    def merge_from_dict(self, options, source="--options"):
        """Set dotted keys: ``{"runner_config.epochs": 2, "callbacks.0.per_print_times": 1}``; parents are created.

        Raises:
            ConfigError: `options` is no dict of dotted keys, or a key leads through a value that is neither a section
                nor a list, or past a list's end.
        """
        options = {} if options is None else options
        if not isinstance(options, dict):
            raise ConfigError(f"{source}: must be a dict of dotted keys, but got {options!r}")
        for key, value in options.items():
            if not isinstance(key, str) or not all(key.split(".")):
                raise ConfigError(f"{source}: {key!r} is no key; write it like 'runner_config.epochs'")
            self.set_value(key, value)
            path = tuple(int(part) if part.isdigit() else part for part in key.split("."))
            self._drop_lines(path)
            self.__dict__["_lines"][path] = (source, None)

    def get_value(self, key, default=None):
        """Return the value of a dotted key (or list of parts), or `default`."""
        here = self
        for part in key.split(".") if isinstance(key, str) else key:
            if isinstance(here, list) and str(part).isdigit() and int(part) < len(here):
                here = here[int(part)]
            elif isinstance(here, dict) and part in here:
                here = here[part]
            else:
                return default
        return here

    def set_value(self, key, value):
        """Set a dotted key (or list of parts); missing parents are created. Dicts are merged into what is there."""
        parts = key.split(".") if isinstance(key, str) else list(key)
        here = self
        for depth, part in enumerate(parts[:-1]):
            here = _child(here, part, parts[:depth + 1], parts)
        last = parts[-1]
        if isinstance(here, list):
            here[_index(here, last, parts)] = _wrap(value)
        elif isinstance(value, dict) and isinstance(here.get(last), dict):
            _deep_merge(here[last], value)
        else:
            here[last] = value

    def forget_lines(self):
        """Let no value stand in a file any more: something else than its file has filled this configuration."""
        self._drop_lines(())

    def _drop_lines(self, prefix):
        lines = self.__dict__["_lines"]
        for path in [path for path in lines if path[:len(prefix)] == prefix]:
            del lines[path]


def _wrap(value):
    """Turn dicts into MindFormerConfig, also inside lists."""
    if isinstance(value, dict) and not isinstance(value, MindFormerConfig):
        wrapped = MindFormerConfig()
        wrapped.update(value)
        return wrapped
    return [_wrap(item) for item in value] if isinstance(value, list) else value


def _child(here, part, so_far, parts):
    """Return the section or list under `part`, creating a missing section."""
    if isinstance(here, list):
        child = here[_index(here, part, parts)]
    else:
        if here.get(part) is None:
            here[part] = {}
        child = here[part]
    if not isinstance(child, (dict, list)):
        raise ConfigError(f"cannot set {'.'.join(map(str, parts))}: {'.'.join(map(str, so_far))} is {child!r}, "
                          "not a section")
    return child


def _index(items, part, parts):
    if not str(part).isdigit() or int(part) >= len(items):
        raise ConfigError(f"cannot set {'.'.join(map(str, parts))}: {part!r} is not an index of a list of "
                          f"{len(items)} (0 to {len(items) - 1})")
    return int(part)


def _deep_merge(base, child):
    """Merge `child` into `base` in place: sections key by key, anything else replaces."""
    for key, value in child.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _deep_merge(base[key], value)
        else:
            base[key] = value
    return base


def _load_with_bases(path, chain=()):
    """Read a YAML and merge it over its base_config files; returns (content, lines).

    `_plain` copies: YAML aliases make sections of one file share one dict, and a merge must not reach the other.
    """
    resolved = path.resolve()
    if resolved in chain:
        raise ConfigError("base_config leads back to itself: " + " -> ".join(map(str, (*chain, resolved))))
    child, child_lines = read_yaml(path)
    bases = child.pop(BASE_CONFIG, None) or []
    position = child_lines.pop((BASE_CONFIG,), (str(path), None))
    bases, content, lines = [bases] if isinstance(bases, str) else bases, {}, {}
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{position[0]}:{position[1]}: base_config must be a file name or a list of them, "
                          f"but got {bases!r}")
    for base in bases:
        base_path = path.parent / base
        if not base_path.is_file():
            raise FileNotFoundError(f"{position[0]}:{position[1]}: base_config {base!r} does not exist "
                                    f"in {path.parent.absolute()}")
        base_content, base_lines = _load_with_bases(base_path, (*chain, resolved))
        _deep_merge(content, _plain(base_content))
        lines.update(base_lines)
    _deep_merge(content, _plain(child))
    lines.update(child_lines)
    return content, lines


class ActionDict(Action):
    """argparse action for ``--options k=v [k=v ...]``: values are int, float, bool, ``[..]`` list, ``(..)`` tuple or
    ``a,b`` list, nested as wanted; anything else is a string."""

    def __call__(self, parser, namespace, values, option_string=None):
        options = dict(getattr(namespace, self.dest, None) or {})
        for pair in [values] if isinstance(values, str) else values:
            key, equals, text = pair.partition("=")
            if not equals or not key:
                raise ValueError(f"{option_string or '--options'} takes key=value, but got {pair!r}")
            options[key] = parse_option(text)
        setattr(namespace, self.dest, options)


def parse_option(text):
    """Return the value that the text of an option means (see `ActionDict`).

    Raises:
        ValueError: brackets that do not pair.
    """
    text = text.strip()
    items = split_top_level(text)
    if len(items) > 1:
        return [parse_option(item) for item in items]
    if text.startswith(("[", "(")):
        inner = [parse_option(item) for item in split_top_level(text[1:-1]) if item.strip()]
        return tuple(inner) if text[0] == "(" else inner
    return parse_value(text)


def split_top_level(text):
    """Split at the commas outside of brackets and braces.

    Raises:
        ValueError: brackets that do not pair.
    """
    closing = {"(": ")", "[": "]", "{": "}"}
    stack, parts, start = [], [], 0
    for index, char in enumerate(text):
        if char in closing:
            stack.append(closing[char])
        elif char in closing.values():
            if not stack or stack.pop() != char:
                raise ValueError(f"( and ) or [ and ] must appear in pairs or not exist, but got {text!r}")
        elif char == "," and not stack:
            parts.append(text[start:index])
            start = index + 1
    if stack:
        raise ValueError(f"( and ) or [ and ] must appear in pairs or not exist, but got {text!r}")
    return parts + [text[start:]]


def ordered_yaml_dump(data, stream=None, yaml_dumper=yaml.SafeDumper, object_pairs_hook=OrderedDict, **kwargs):
    """Dump `data` (dicts in their order, config objects as plain mappings) as YAML; returns text when no stream."""

    class OrderedDumper(yaml_dumper):
        """Keeps this representer out of the caller's dumper class."""

    def represent(dumper, mapping):
        return dumper.represent_mapping(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping.items())

    for kind in {object_pairs_hook, OrderedDict, dict, DictConfig, MindFormerConfig}:
        OrderedDumper.add_representer(kind, represent)
    kwargs.setdefault("allow_unicode", True)
    return yaml.dump(data, stream, OrderedDumper, **kwargs)


def parse_args():
    """Return ``argparse.Namespace(config=path)`` from the command line: ``-c`` or ``--config``, default None."""
    parser = ArgumentParser()
    parser.add_argument("-c", "--config", help="YAML of the run")
    return parser.parse_args()
