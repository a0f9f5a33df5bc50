"""Reading of YAML files: values, and the line of every key for the messages of the schema."""
import re
from pathlib import Path

import yaml

from mindformers.tools.errors import ConfigError

MAX_DEPTH = 10
MAX_NODES = 100_000


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads ``1e-5`` (no decimal point) as a float, as people mean it."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"),
                              list("-+0123456789"))


def read_yaml(path):
    """Read one YAML file.

    Args:
        path (str | Path): the file.

    Returns:
        (dict, dict): the content (an empty file gives ``{}``), and ``{key path: (file, line)}`` where a key path is a
        tuple of keys and list indices.

    Raises:
        FileNotFoundError: no such file.
        ConfigError: not UTF-8, not YAML, not a mapping, a key twice in one mapping, a cycle, nesting deeper than 10.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no YAML file {str(path)!r} (looked in {path.absolute().parent})")
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_message(path, error)) from None
    if node is None:
        return {}, {}
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{path}:{node.start_mark.line + 1}: the file must be a mapping of keys to values")
    lines = {}
    _Walk(str(path), lines).mapping(node, ())
    try:
        return loader.construct_document(node), lines
    except yaml.YAMLError as error:
        raise ConfigError(_syntax_message(path, error)) from None


def _syntax_message(path, error):
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    problem = getattr(error, "problem", None) or str(error)
    return f"{where}: not valid YAML: {problem}"


class _Walk:
    """Records the line of every key of a node tree and refuses what YAML would swallow."""

    def __init__(self, file, lines):
        self.file = file
        self.lines = lines
        self.open_nodes = set()
        self.count = 0

    def mapping(self, node, path):
        """Record the keys of a mapping node; ``<<`` merges its mappings into `path`."""
        seen = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if key_node.tag == "tag:yaml.org,2002:merge":
                merged = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                for part in merged:
                    self.node(part, path, line)
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(f"{self.file}:{line}: a key must be a plain word")
            if key in seen:
                raise ConfigError(f"{self.file}:{line}: key {'.'.join(map(str, path + (key,)))!r} is given twice "
                                  f"(first on line {seen[key]})")
            seen[key] = line
            self.lines[path + (key,)] = (self.file, line)
            self.node(value_node, path + (key,), line)

    def node(self, node, path, line):
        """Descend into a value node."""
        self.count += 1
        if id(node) in self.open_nodes:
            raise ConfigError(f"{self.file}:{line}: an alias contains itself")
        if len(path) > MAX_DEPTH or self.count > MAX_NODES:
            raise ConfigError(f"{self.file}:{line}: nested deeper than {MAX_DEPTH} levels or more than {MAX_NODES} "
                              "values (aliases counted each time)")
        self.open_nodes.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self.mapping(node, path)
        elif isinstance(node, yaml.SequenceNode):
            for index, item in enumerate(node.value):
                self.lines[path + (index,)] = (self.file, item.start_mark.line + 1)
                self.node(item, path + (index,), line)
        self.open_nodes.discard(id(node))
