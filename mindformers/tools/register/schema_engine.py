"""The engine of the schema: walks a configuration along a table and collects every fault and every ignored key.

The tables are in `sections`, the rules across keys in `rules`; `schema.check_config` is the door.
"""
import copy
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.utils import resolve_path

KINDS = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "list": (list, tuple),
    "dict": (dict,),
    "null": (type(None),),
    "any": (object,),
}


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Attributes:
        kind (str): kinds it may have, joined by "|"; see KINDS.
        default (Any): value filled in when the key is absent; None fills nothing in.
        choices (tuple): the values it may have; strings compare without case. Empty: any.
        low (float): least value of a number. above (float): number must be greater. high (float): greatest value.
        neutral (tuple): values that ask for nothing; they are never reported or refused.
        ignored (str): why the key has no effect; it is reported.
        refused (str): why the key is an error.
        only (str): device it works on; elsewhere it is reported as ignored with the reason `ignored`.
        needs (str): sibling switch without which the key asks for nothing.
        inert (bool): steers something that is not carried and off; no value asks for anything.
        path (bool): names a file or folder; a relative one is also looked for beside the YAML.
    """

    kind: str = "any"
    default: Any = None
    choices: tuple = ()
    low: float | None = None
    above: float | None = None
    high: float | None = None
    neutral: tuple = ()
    ignored: str = ""
    refused: str = ""
    only: str = ""
    needs: str = ""
    inert: bool = False
    path: bool = False


@dataclass(frozen=True)
class Section:
    """A mapping with known keys.

    Attributes:
        keys (dict[str, Key | Section | ListOf]): what may be in it.
        fill (bool): fill defaults in although the section is absent. Default: False.
        open (bool): other keys may follow (a constructor with **kwargs); only near misses of known keys are faults.
        shelf (str): registry shelf of its `type`; the constructor's parameters are then known keys too.
        handled (tuple | None): keys of the table that the suite reads itself; the others must be parameters of the
            constructor when those are known. None: all of them.
        also (str): kinds allowed instead of a mapping, such as "float".
    """

    keys: dict = field(default_factory=dict)
    fill: bool = False
    open: bool = False
    shelf: str = ""
    handled: tuple | None = None
    also: str = ""


@dataclass(frozen=True)
class ListOf:
    """A list of sections of one form."""

    item: Section


class Fault(NamedTuple):
    """One thing wrong: where (a key path) and what."""

    path: tuple
    message: str


class Report:
    """Collects faults and ignored keys of one configuration."""

    def __init__(self, config, source, device, unused=()):
        self.config = config
        self.source = source
        self.device = device
        self.unused = frozenset(unused)
        self.faults = []
        self.ignored = {}

    def fault(self, path, message):
        """Record a fault at a key path (tuple); the first one of a path is the one that counts."""
        if all(known.path != tuple(path) for known in self.faults):
            self.faults.append(Fault(tuple(path), message))

    def refuse(self, path, message):
        """Record something not carried: a fault, or an ignored key when the run mode does not use its section."""
        if path[0] in self.unused:
            self.ignored[dotted(path)] = f"not used in mode {self.config.get('run_mode')} ({message})"
        else:
            self.fault(path, message)

    def ignore(self, path, reason):
        """Record that the key at `path` has no effect; in a section that the run mode does not use none has."""
        if path[0] not in self.unused:
            self.ignored[dotted(path)] = reason

    def where(self, path):
        """Return "file:line" of a key path, or the source when it was not written in a file."""
        file, line = self.config.line_of(path) or (self.source, None)
        return f"{file}:{line}" if line else str(file)

    def base_dir(self, path):
        """Return the folder of the file that holds the key, None when no file does."""
        file, line = self.config.line_of(path) or (self.source, 1)
        return os.path.dirname(os.path.abspath(file)) if line and os.path.isfile(str(file)) else None

    def raise_faults(self):
        """Raise ConfigError with all faults, in the order of their lines."""
        if not self.faults:
            return
        def order(fault):
            file, line = self.config.line_of(fault.path) or ("", 0)
            return str(file), line or 0
        lines = [f"{self.where(fault.path)}: {dotted(fault.path)}: {fault.message}"
                 for fault in sorted(self.faults, key=order)]
        raise ConfigError(lines[0] if len(lines) == 1 else f"{len(lines)} faults:\n  " + "\n  ".join(lines))


def dotted(path):
    """Return a key path as text: ``("callbacks", 0, "type") -> "callbacks[0].type"``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def check_section(report, values, section, path):
    """Check the mapping `values` against `section`, in place: defaults are filled in, texts like 'None' resolved."""
    from mindformers.tools.register.components import check_type
    keys = dict(section.keys)
    any_key = section.open
    if section.shelf:
        parameters = check_type(report, values, section.shelf, path)
        any_key = any_key or parameters is None
        if parameters is not None:
            kept = keys if section.handled is None else {*section.handled, *parameters}
            keys = {**{name: Key() for name in parameters}, **{name: keys[name] for name in keys if name in kept}}
    for name in list(values):
        spec = keys.get(name)
        if spec is not None:
            check_value(report, values, name, spec, path + (name,))
            continue
        hint = did_you_mean(name, keys)
        if not any_key or (hint and _is_typo(name, keys)):
            kind = f" of {values.get('type')}" if section.shelf and values.get("type") else ""
            report.fault(path + (name,), f"unknown key{kind}.{hint}")
    fill_defaults(values, keys)


def _is_typo(name, keys):
    """Whether `name` differs from a known key by so little that it cannot be meant as another key."""
    return bool(did_you_mean(name, keys, cutoff=0.86))


def fill_defaults(values, keys):
    """Set absent keys that have a default; absent sections with `fill` are made."""
    for name, spec in keys.items():
        if isinstance(spec, Section):
            if spec.fill and values.get(name) is None:
                values[name] = {}
                fill_defaults(values[name], spec.keys)
        elif isinstance(spec, Key) and spec.default is not None and values.get(name) is None:
            values[name] = copy.deepcopy(spec.default)


def check_value(report, values, name, spec, path):
    """Check one value of a mapping (or list) against its spec."""
    value = values[name]
    if isinstance(spec, ListOf):
        if value is None:
            return
        if not isinstance(value, list):
            report.fault(path, f"must be a list of sections, but got {value!r}")
            values[name] = None
            return
        for index in range(len(value)):
            check_value(report, value, index, spec.item, path + (index,))
    elif isinstance(spec, Section):
        if isinstance(value, dict):
            check_section(report, value, spec, path)
        elif value is not None and not (spec.also and has_kind(value, spec.also)):
            also = f" or {spec.also}" if spec.also else ""
            report.fault(path, f"must be a section (keys and values){also}, but got {value!r}")
            values[name] = None
    else:
        check_key(report, values, name, spec, path)


def check_key(report, values, name, spec, path):
    """Check kind, choices, bounds and effect of a plain value; 'None' and whole floats are resolved in place.

    A value of the wrong kind becomes None after its fault was recorded, so that the rules meet right kinds only.
    """
    value = values[name]
    if value == "None" and not (spec.kind == "any" or "None" in spec.choices):
        value = values[name] = None
    if value is None or spec.inert or _is_neutral(value, spec.neutral) or (spec.needs and not values.get(spec.needs)):
        return
    if "int" in spec.kind.split("|") and isinstance(value, float) and value.is_integer():
        value = values[name] = int(value)
    if spec.refused and has_kind(value, spec.kind):
        report.refuse(path, f"{value!r} is not carried: {spec.refused}")
    elif not has_kind(value, spec.kind):
        kind = spec.kind.replace("|", " or ")
        report.fault(path, f"must be {kind}, but got {value!r} ({type(value).__name__})." + _kind_hint(value, spec))
        values[name] = None
    elif message := _bounds_message(value, spec):
        report.fault(path, message)
    elif spec.ignored and not (spec.only and spec.only == report.device):
        report.ignore(path, spec.ignored)
    elif spec.path:
        _find_path(report, values, name, path)


def _is_neutral(value, neutral):
    return any(type(value) is type(item) and value == item for item in neutral)


def has_kind(value, kind):
    """Whether `value` is of one of the kinds (joined by "|"); a bool is no number."""
    for part in kind.split("|"):
        if isinstance(value, KINDS[part]) and not (isinstance(value, bool) and part in ("int", "float")):
            return True
    return False


def _kind_hint(value, spec):
    return did_you_mean(value, ("True", "False")) if "bool" in spec.kind and isinstance(value, str) else ""


def _bounds_message(value, spec):
    if spec.choices:
        lowered = [str(choice).lower() for choice in spec.choices]
        if str(value).lower() not in lowered or isinstance(value, bool) != isinstance(spec.choices[0], bool):
            names = ", ".join(map(str, spec.choices))
            return f"must be one of {names}, but got {value!r}.{did_you_mean(value, spec.choices)}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value != value or value in (float("inf"), float("-inf")):
            return f"must be a finite number, but got {value!r}"
        if spec.low is not None and value < spec.low:
            return f"must be at least {spec.low}, but got {value!r}"
        if spec.above is not None and value <= spec.above:
            return f"must be greater than {spec.above}, but got {value!r}"
        if spec.high is not None and value > spec.high:
            return f"must be at most {spec.high}, but got {value!r}"
    return ""


def _find_path(report, values, name, path):
    """Replace a relative path that exists only beside its YAML by the one that was found."""
    value = values[name]
    if isinstance(value, list):
        values[name] = [str(resolve_path(item, report.base_dir(path))) if isinstance(item, str) and item else item
                        for item in value]
    elif isinstance(value, str) and value and not os.path.isabs(value):
        found = resolve_path(value, report.base_dir(path))
        values[name] = str(found) if found.exists() and str(found) != os.path.normpath(value) else value
