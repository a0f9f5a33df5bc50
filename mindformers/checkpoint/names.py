"""WeightMap: one table of names, read left to right to load and right to left to export.

    WEIGHT_MAP = WeightMap([
        rename("model.layers.{i}.mlp.down_proj.weight", "model.layers.{i}.feed_forward.w2.weight"),
        concat(["...q_proj.weight", "...k_proj.weight", "...v_proj.weight"], "...w_qkv.weight", sizes=..., when=...),
        drop("model.layers.{i}.self_attn.rotary_emb.inv_freq"),
    ])

Left is Hugging Face's name, right is ours; `{i}` is a number, the same on both sides. Nothing is read while names are
mapped: the result is a `MappedSource` that reads, joins and cuts when it is asked for an array.
"""
import re
from dataclasses import dataclass, replace
from typing import Callable, Optional

import numpy as np

from mindformers.checkpoint.source import DictSource, WeightSource
from mindformers.tools.errors import CheckpointMismatchError

HF, OURS = "hf", "mindformers"


@dataclass(frozen=True)
class Entry:
    """One row of the table: `hf` names and `ours` names of the same numbers.

    One of the two sides has one name; the other side's arrays are its parts along `axis`, of the lengths
    `sizes(config)` (None: equal parts). `when(config)` says whether loading uses the row. A side without names: the
    other side's arrays are left out.
    """

    hf: tuple
    ours: tuple
    axis: int = 0
    sizes: Optional[Callable] = None
    when: Optional[Callable] = None


@dataclass(frozen=True)
class Tied:
    """`hf[0]` is the same array as `hf[1]` (`ours` likewise) when `when(config)`: kept once, under the second name."""

    hf: tuple
    ours: tuple
    when: Callable


def rename(hf, ours, when=None):
    """The array `hf` is our array `ours`."""
    return Entry((hf,), (ours,), when=when)


def concat(hf, ours, sizes=None, when=None, axis=0):
    """Several Hugging Face arrays are one array of ours, joined along `axis`."""
    return Entry(tuple(hf), (ours,), axis, sizes, when)


def split(hf, ours, sizes=None, when=None, axis=0):
    """One Hugging Face array is several of ours, cut along `axis`."""
    return Entry((hf,), tuple(ours), axis, sizes, when)


def drop(hf=None, ours=None):
    """An array of either side that the other side does not have, such as a table that is computed."""
    return Entry((hf,) if hf else (), (ours,) if ours else ())


def tied(hf, ours, when):
    """Two names of one array on each side, `(extra name, name that is kept)`, when `when(config)`."""
    return Tied(tuple(hf), tuple(ours), when)


@dataclass(frozen=True)
class Piece:
    """How one target array is made: the `sources` joined along `axis`, or rows `cut` = (begin, end) of the one."""

    sources: tuple
    axis: int = 0
    cut: Optional[tuple] = None


@dataclass(frozen=True)
class Misfit:
    """Source arrays of `shapes` that cannot make `targets`, and the sentence on it; not for their sizes if `dtypes`."""

    targets: tuple
    shapes: tuple
    text: str
    dtypes: bool = False


class MappedSource(WeightSource):
    """Another source under other names.

    Attributes:
        pieces (dict[str, Piece]): how each array is made.
        ignored (dict[str, str]): source name -> why it is left out.
        unknown (list[str]): source names that the table does not have.
        incomplete (dict[str, list[str]]): target -> source names that it needs and that are absent.
        wrong (list[Misfit]): arrays whose sizes cannot be.
    """

    def __init__(self, source):
        super().__init__(source.where, metadata=source.metadata)
        self.source = source
        self.pieces, self.ignored, self.unknown, self.incomplete, self.wrong = {}, {}, [], {}, []

    def add(self, target, piece):
        """Add array `target`; a target that exists already is an error of the file: two of its names mean it."""
        if target in self.pieces:
            both = ", ".join([*self.pieces[target].sources, *piece.sources])
            raise CheckpointMismatchError(f"{self.where}: {both} all mean {target!r}")
        shapes = [self.source.shape(name) for name in piece.sources]
        shape = list(shapes[0])
        if len(shapes) > 1:
            rest = {(len(s), *s[:piece.axis], *s[piece.axis + 1:]) for s in shapes}
            dtypes = len({self.source.dtype(name) for name in piece.sources}) > 1
            if len(rest) > 1 or dtypes:
                self.wrong.append(Misfit((target,), tuple(shapes), f"{', '.join(piece.sources)} cannot be joined: "
                                         f"shapes {shapes}", dtypes))
                return
            shape[piece.axis] = sum(s[piece.axis] for s in shapes)
        if piece.cut:
            shape[piece.axis] = piece.cut[1] - piece.cut[0]
        self.pieces[target] = piece
        self.entries[target] = (tuple(shape), self.source.dtype(piece.sources[0]))

    def renamed(self, change):
        """Return the same arrays under `change(name)`; a name for which it returns None is left out."""
        view = MappedSource(self.source)
        view.ignored, view.unknown = dict(self.ignored), list(self.unknown)
        view.wrong = [replace(misfit, targets=tuple(filter(None, map(change, misfit.targets))))
                      for misfit in self.wrong]
        view.incomplete = {change(target): names for target, names in self.incomplete.items() if change(target)}
        for name, piece in self.pieces.items():
            if change(name) is None:
                view.ignored.update(dict.fromkeys(piece.sources, "belongs to a head that this model has not"))
            else:
                view.add(change(name), piece)
        return view

    def read(self, name, rows=None):
        self._entry(name)
        piece = self.pieces[name]
        if piece.cut is None and len(piece.sources) == 1:
            return self.source.read(piece.sources[0], rows)
        if piece.cut is not None and piece.axis == 0:
            begin, end = piece.cut if rows is None else (piece.cut[0] + rows[0], piece.cut[0] + rows[1])
            return self.source.read(piece.sources[0], (begin, end))
        if piece.cut is not None:
            array = self.source.read(piece.sources[0], rows)
            return np.ascontiguousarray(array[(slice(None),) * piece.axis + (slice(*piece.cut),)])
        array = np.concatenate([self.source.read(part) for part in piece.sources], axis=piece.axis)
        return array if rows is None else array[rows[0]:rows[1]].copy()

    def take(self, name, rows=None):
        self._entry(name)
        piece = self.pieces[name]
        if len(piece.sources) > 1 or (piece.cut is not None and piece.axis != 0):
            return self.read(name, rows)
        if piece.cut is not None:
            rows = piece.cut if rows is None else (piece.cut[0] + rows[0], piece.cut[0] + rows[1])
        return self.source.take(piece.sources[0], rows)

    def check(self):
        """Return self if every source array is used or known to be superfluous.

        Raises:
            CheckpointMismatchError: unknown names, parts that are absent, sizes that cannot be; all of them.
        """
        faults = [f"unknown names: {summarise(self.unknown)}"] if self.unknown else []
        faults += [f"{target} needs {', '.join(names)}" for target, names in self.incomplete.items()]
        faults += [misfit.text for misfit in self.wrong]
        if faults:
            raise CheckpointMismatchError(f"{self.where} does not fit the table of names:\n  " + "\n  ".join(faults))
        return self


class WeightMap:
    """Two-way table between Hugging Face names and ours.

    Args:
        entries (Iterable[Entry | Tied]): the rows (`rename`, `concat`, `split`, `drop`, `tied`).
        prefix (str): what the names of the model without head lack: "model." turns `layers.0...` of a bare LlamaModel
            into `model.layers.0...`. Default: "model.".
        hf_prefix (str): the same for Hugging Face's names. Default: `prefix`.
        heads (tuple[str]): our names below the prefix that a model without head lacks. Default: none.
    """

    def __init__(self, entries, prefix="model.", hf_prefix=None, heads=()):
        rows = list(entries)
        self.prefix, self.heads = prefix, tuple(heads)
        self._prefixes = {"hf": prefix if hf_prefix is None else hf_prefix, "ours": prefix}
        self.entries = [row for row in rows if isinstance(row, Entry)]
        self.ties = [row for row in rows if isinstance(row, Tied)]
        self._patterns = {side: [(_pattern(name), number, position) for number, entry in enumerate(self.entries)
                                 for position, name in enumerate(getattr(entry, side))] for side in ("hf", "ours")}

    def style(self, names):
        """Return "hf" or "mindformers", the side whose names these are; None when nothing tells.

        Raises:
            CheckpointMismatchError: names of both sides are mixed.
        """
        only = {"hf": [], "ours": []}
        for name in names:
            sides = [side for side in only if self._knows(side, name)]
            if len(sides) == 1:
                only[sides[0]].append(name)
        if only["hf"] and only["ours"]:
            raise CheckpointMismatchError(f"the names mix Hugging Face's ({only['hf'][0]}) and MindFormers' "
                                          f"({only['ours'][0]}): they cannot belong to one model")
        return HF if only["hf"] else OURS if only["ours"] else None

    def to_mindformers(self, source, config=None, strict=True):
        """Return the arrays of a source with Hugging Face names as a MappedSource with ours.

        Args:
            source (WeightSource | dict): Hugging Face names -> arrays.
            config: the model's config, for `sizes`, `when` and tied names.
            strict (bool): raise on names that the table lacks instead of listing them. Default: True.

        Raises:
            CheckpointMismatchError: see `strict`; two names that mean one parameter; tied arrays that differ.
        """
        return self._map(source, config, "hf", "ours", strict)

    def to_hf(self, source, config=None, strict=True):
        """Return the arrays of a source with our names as a MappedSource with Hugging Face's; see `to_mindformers`."""
        return self._map(source, config, "ours", "hf", strict)

    def other_names(self, name):
        """Return the Hugging Face names of our parameter `name`, those of the first row that has it; [] when none."""
        for candidate in (name, self.prefix + name):
            for row, _, numbers in self._find("ours", candidate):
                return [_fill(hf, numbers) for hf in self.entries[row].hf]
        return []

    def our_names(self, name, config=None):
        """Return our names of the Hugging Face array `name`; [] when it is no parameter or the table lacks it.

        Args:
            config: the model's config, which decides between packed and separate parameters. Default: None, separate.
        """
        for candidate in (name, self._prefixes["hf"] + name):
            found = self._row("hf", candidate, config)
            if found is not None:
                return [_fill(ours, found[2]) for ours in self.entries[found[0]].ours]
        return []

    def knows(self, name):
        """Whether `name` is in the table, on either side, with the prefix or without."""
        return self._knows("hf", name) or self._knows("ours", name)

    def _knows(self, side, name):
        return bool(self._find(side, name) or self._find(side, self._prefixes[side] + name))

    def _find(self, side, name):
        """Return [(row number, position, {placeholder: number})] of the rows that have `name`."""
        return [(row, position, match.groupdict()) for pattern, row, position in self._patterns[side]
                if (match := pattern.fullmatch(name))]

    def _row(self, side, name, config):
        """Return the one row to use for `name`, as `_find` does, or None."""
        rows = self._find(side, name)
        if side == "hf" or len(rows) > 1:
            rows = [row for row in rows if self.entries[row[0]].when is None or self.entries[row[0]].when(config)]
        if len(rows) > 1:
            raise ValueError(f"the table of names is ambiguous: {name!r} is in {len(rows)} rows that apply")
        return rows[0] if rows else None

    def _map(self, source, config, side, other, strict):
        source = source if isinstance(source, WeightSource) else DictSource(source)
        view = MappedSource(source)
        names = source.names()
        prefix = self._prefixes[side]
        bare = prefix and not any(name.startswith(prefix) for name in names) \
            and any(self._find(side, prefix + name) for name in names)
        full = {name: prefix + name if bare and self._find(side, prefix + name) else name for name in names}
        aliases = self._aliases(view, full, config, side)
        groups = {}
        for name in names:
            if name in view.ignored:
                continue
            found = self._row(side, aliases.get(name, full[name]), config)
            if found is None:
                view.unknown.append(name)
            else:
                row, position, numbers = found
                if groups.setdefault((row, tuple(numbers.items())), {}).setdefault(position, name) != name:
                    raise CheckpointMismatchError(f"{view.where}: {name} is there twice")
        for (row, numbers), parts in groups.items():
            _add_group(view, self.entries[row], dict(numbers), parts, config, (side, other),
                       self._prefixes[other] if bare else "")
        return view.check() if strict else view

    def _aliases(self, view, full, config, side):
        """Sort out tied names: the extra one is left out when both are there, and stands for the other when alone."""
        aliases, by_name = {}, {name: raw for raw, name in full.items()}
        for tie in self.ties:
            extra, kept = getattr(tie, side)
            if not tie.when(config) or extra not in by_name:
                continue
            if kept not in by_name:
                aliases[by_name[extra]] = kept
                continue
            if not _same_array(view.source, by_name[extra], by_name[kept]):
                raise CheckpointMismatchError(
                    f"{view.where}: tie_word_embeddings is True, but {extra} differs from {kept}; one of the two would "
                    "be lost. Set tie_word_embeddings to False")
            view.ignored[by_name[extra]] = f"the same array as {kept} (tied)"
        return aliases


def _add_group(view, entry, numbers, parts, config, sides, strip):
    """Add to `view` what the present `parts` {position: source name} of a table row give."""
    here = [_fill(name, numbers) for name in getattr(entry, sides[0])]
    there = [_fill(name, numbers).removeprefix(strip) for name in getattr(entry, sides[1])]
    if not there:
        view.ignored.update(dict.fromkeys(parts.values(), "not a parameter here"))
        return
    absent = [name for position, name in enumerate(here) if position not in parts]
    if absent:
        view.incomplete[there[0]] = absent
        return
    names = tuple(parts[position] for position in range(len(here)))
    if len(here) == len(there) == 1:
        view.add(there[0], Piece(names))
        return
    shapes = tuple(view.source.shape(name) for name in names)
    for name, shape in zip(names, shapes):
        if len(shape) <= entry.axis:
            text = f"{name} of shape {shape} has no axis {entry.axis} to join or cut"
            view.wrong.append(Misfit(tuple(there), shapes, text))
            return
    rows = [shape[entry.axis] for shape in shapes]
    sizes = tuple(entry.sizes(config)) if entry.sizes else (sum(rows) // max(len(here), len(there)),) * len(there)
    if entry.sizes and len(here) > 1 and tuple(rows) != sizes or len(there) > 1 and sum(rows) != sum(sizes):
        text = (f"{', '.join(names)}: axis {entry.axis} has {' + '.join(map(str, rows))}, but the config gives "
                f"{' + '.join(map(str, sizes))}")
        view.wrong.append(Misfit(tuple(there), shapes, text))
        return
    if len(there) == 1:
        view.add(there[0], Piece(names, entry.axis))
        return
    begin = 0
    for name, size in zip(there, sizes):
        view.add(name, Piece(names, entry.axis, (begin, begin + size)))
        begin += size


def _pattern(name):
    parts = re.split(r"\{(\w+)\}", name)
    seen, text = set(), ""
    for index, part in enumerate(parts):
        if index % 2 == 0:
            text += re.escape(part)
        else:
            text += f"(?P={part})" if part in seen else f"(?P<{part}>0|[1-9][0-9]*)"
            seen.add(part)
    return re.compile(text)


def _fill(name, numbers):
    for key, value in numbers.items():
        name = name.replace("{" + key + "}", value)
    return name


def _same_array(source, first, second, rows=4096):
    """Whether two arrays of a source have the same bytes; read a block of rows at a time."""
    if source.shape(first) != source.shape(second) or source.dtype(first) != source.dtype(second):
        return False
    length = source.shape(first)[0] if source.shape(first) else None
    if length is None:
        return source.read(first).tobytes() == source.read(second).tobytes()
    spans = ((begin, min(begin + rows, length)) for begin in range(0, length, rows))
    return all(source.read(first, span).tobytes() == source.read(second, span).tobytes() for span in spans)


def summarise(names, limit=40):
    """Return names as one short text: layers fold into `model.layers.{0-31}.attention.wq.weight`."""
    folded = {}
    for name in names:
        match = re.search(r"\.(0|[1-9][0-9]*)\.", f".{name}")
        template = name if match is None else f".{name}"[:match.start(1)][1:] + "{}" + f".{name}"[match.end(1):]
        folded.setdefault(template, []).append(int(match.group(1)) if match else None)
    texts = [template if numbers == [None] else template.replace("{}", _ranges(numbers), 1)
             for template, numbers in folded.items()]
    return ", ".join(texts[:limit]) + (f" and {len(texts) - limit} more" if len(texts) > limit else "")


def _ranges(numbers):
    """[0, 1, 2, 5] -> "{0-2,5}"; a single number stays plain."""
    runs = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return text if len(numbers) == 1 else "{" + text + "}"
