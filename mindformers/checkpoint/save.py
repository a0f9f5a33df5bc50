"""Writing weights: one file or shards with an index; whole or not at all."""
import contextlib
import json
import re
from pathlib import Path

from mindformers.checkpoint.arrays import FLOATS, convert
from mindformers.checkpoint.ckpt_file import write_ckpt
from mindformers.checkpoint.formats import find_weights
from mindformers.checkpoint.safetensors_file import write_safetensors
from mindformers.checkpoint.source import DictSource, WeightSource
from mindformers.tools.errors import did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write

WRITERS = {"safetensors": write_safetensors, "ckpt": write_ckpt}
STEMS = {"hf": "model", "mindformers": "mindspore_model"}
# a folder is searched for these by name, so one save of a model takes the place of all of them
MODEL_FILES = (("model", "safetensors"), ("mindspore_model", "safetensors"), ("mindspore_model", "ckpt"))
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class CastSource(WeightSource):
    """Another source with its floating point arrays in `dtype`."""

    def __init__(self, source, dtype):
        super().__init__(source.where, metadata=source.metadata)
        self.source = source
        for name in source.names():
            own = source.dtype(name)
            self.entries[name] = (source.shape(name), dtype if own in FLOATS else own)

    def read(self, name, rows=None):
        return convert(self.source.read(name, rows), self.dtype(name), name)


def save_weights(folder, named_arrays, *, names="hf", format="safetensors", max_shard_size="5GB", dtype=None,
                 weight_map=None, config=None, variant=None, stem=None, metadata=None):
    """Write weights into `folder` and return the paths written, the index last.

    All files are complete under temporary names before the first gets its own; an error before that leaves the folder
    as it was. What an earlier save of this variant left, shards and other formats too, is removed once the new files
    are there; files of other names stay, and a warning says so when the folder still opens as one of them.

    Args:
        folder (str | Path): created when absent.
        named_arrays (dict | WeightSource): name -> numpy array, Tensor or Parameter, any memory layout.
        names (str): whose names the files have: "hf" writes model.safetensors, "mindformers" mindspore_model.<format>.
        format (str): "safetensors" or "ckpt"; "ckpt" has MindFormers' names only.
        max_shard_size (int | str): bytes in one file, "5GB" = 5 * 10**9, "5GiB" = 5 * 2**30; a larger tensor gets a
            file of its own. Default: "5GB".
        dtype (str): writes floating point arrays in this dtype. Default: as they are.
        weight_map (WeightMap), config: turn arrays of the other names into `names`. Default: the names are right.
        variant (str): "fp16" writes model.fp16.safetensors. Default: none.
        stem (str): file name without suffix. Default: by `names`.
        metadata (dict[str, str]): texts beside `{"format": "pt"}` (which transformers demands) or `{"format": "ms"}`.

    Raises:
        ValueError: wrong names, format, size, or nothing to save. OSError: disk full and the like.
        CheckpointMismatchError: names that the table lacks.
    """
    _check_choice("names", names, STEMS)
    _check_choice("format", format, WRITERS)
    if (names, format) == ("hf", "ckpt"):
        raise ValueError("format='ckpt' is MindSpore's and goes with names='mindformers'; Hugging Face reads "
                         "format='safetensors'")
    source = named_arrays if isinstance(named_arrays, WeightSource) else DictSource(named_arrays)
    if weight_map is not None and weight_map.style(source.names()) not in (names, None):
        source = (weight_map.to_hf if names == "hf" else weight_map.to_mindformers)(source, config)
    source = source if dtype is None else CastSource(source, dtype)
    folder, stem = Path(folder), STEMS[names] if stem is None else _check_stem(stem)
    if not len(source):
        raise ValueError(f"{source.where} has no weights to save in {folder}")
    shards = plan_shards(source, parse_size(max_shard_size))
    mark = f".{_check_stem(variant)}" if variant else ""
    files = _file_names(stem, mark, format, len(shards))
    texts = {"format": "pt" if names == "hf" else "ms"} if format == "safetensors" else {}
    index = folder / f"{stem}.{format}.index{mark}.json"
    written = _write_all(folder, files, shards, source, format, {**texts, **(metadata or {})}, index)
    _remove_stale(folder, stem, mark, format, keep={path.name for path in written})
    if weight_map is not None:  # without a table it may be a part, such as adapters, which lie beside the weights
        _warn_if_hidden(folder, variant, written[-1])
    return written


def _write_all(folder, files, shards, source, format, metadata, index):
    with contextlib.ExitStack() as stack:
        sharded = len(files) > 1
        if sharded:
            # entered first, so renamed last: the index appears when its shards are there
            temporary = stack.enter_context(atomic_write(index))
            weight_map = {name: file for file, shard in zip(files, shards) for name in shard}
            total = sum(source.nbytes(name) for name in source.names())
            temporary.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2,
                                            ensure_ascii=False) + "\n", encoding="utf-8")
        for file, shard in zip(files, shards):
            temporary = stack.enter_context(atomic_write(folder / file))
            WRITERS[format](temporary, source, shard, metadata, folder / file)
        if sharded:
            # an old index must not be seen beside new shards
            index.unlink(missing_ok=True)
    return [folder / file for file in files] + ([index] if sharded else [])


def _file_names(stem, mark, format, count):
    if count == 1:
        return [f"{stem}{mark}.{format}"]
    return [f"{stem}{mark}-{number:05d}-of-{count:05d}.{format}" for number in range(1, count + 1)]


def _remove_stale(folder, stem, mark, format, keep):
    """Remove the files of an earlier save of this variant that the new ones replace, in any format of a model."""
    kinds = {(stem, format), *(MODEL_FILES if stem in STEMS.values() else ())}
    mark = re.escape(mark)
    stale = re.compile("|".join(rf"{re.escape(name)}{mark}(-\d{{5}}-of-\d{{5}})?\.{suffix}|"
                                rf"{re.escape(name)}\.{suffix}\.index{mark}\.json" for name, suffix in kinds))
    old = [path for path in folder.iterdir() if stale.fullmatch(path.name) and path.name not in keep]
    # indexes first: none is ever left without its shards
    for path in sorted(old, key=lambda path: path.suffix != ".json"):
        path.unlink()


def _warn_if_hidden(folder, variant, written):
    """Say that opening `folder` does not give the file or index `written`; what hides it is not ours to remove."""
    try:
        found = find_weights(folder, variant)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("%s is saved, but its folder does not open as it: %s", written, error)
        return
    if found != written:
        logger.warning("%s is saved, but its folder opens as %s, which goes first: move that away, or save under the "
                       "usual name", written, found.name)


def plan_shards(source, limit):
    """Return lists of names, in order, each of at most `limit` bytes or of a single larger tensor."""
    shards, size = [[]], 0
    for name in source.names():
        more = source.nbytes(name)
        if shards[-1] and size + more > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += more
    return shards


def parse_size(size):
    """Return the bytes that an int or a text such as "5GB" or "200MiB" means.

    Raises:
        ValueError: no such size, or not positive.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(size))
    if match is None or match.group(2).upper() not in UNITS or isinstance(size, bool):
        raise ValueError(f"size {size!r} is not a number of bytes or a text such as '5GB' or '500MiB'")
    value = int(float(match.group(1)) * UNITS[match.group(2).upper()])
    if value < 1:
        raise ValueError(f"size {size!r} must be at least one byte")
    return value


def _check_choice(what, value, choices):
    if value not in choices:
        raise ValueError(f"{what} must be one of {', '.join(choices)}, but is {value!r}.{did_you_mean(value, choices)}")


def _check_stem(stem):
    if not isinstance(stem, str) or not stem or stem.startswith(".") or set(stem) & set("/\\\0"):
        raise ValueError(f"file name {stem!r} must be a plain name, not a path")
    return stem
