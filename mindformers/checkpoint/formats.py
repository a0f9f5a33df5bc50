"""Opening weights: one file, or a folder in any of the layouts Hugging Face and MindFormers write."""
import json
import re
from pathlib import Path

from mindformers.checkpoint.ckpt_file import open_ckpt
from mindformers.checkpoint.safetensors_file import open_safetensors
from mindformers.checkpoint.source import WeightSource
from mindformers.checkpoint.torch_bin import open_torch
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, DamagedFileError, UnsupportedError

READERS = {".safetensors": open_safetensors, ".ckpt": open_ckpt, ".bin": open_torch}
PICKLES = (".pt", ".pth", ".pkl")
FOREIGN = {".h5": "a TensorFlow or Keras file", ".msgpack": "a Flax file", ".gguf": "a llama.cpp file",
           ".onnx": "an ONNX graph", ".mindir": "a MindIR graph", ".npz": "a numpy archive"}
MAGIC = ((b"PK\x03\x04", "a zip archive (PyTorch saves such files)"), (b"\x80\x02", "a pickle file"),
         (b"\x80\x04", "a pickle file"), (b"\x89HDF", "an HDF5 file"), (b"GGUF", "a llama.cpp file"),
         (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"))
TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")
# files of a folder in order of preference; {v} is the variant, such as ".fp16"
WHOLE_FILES = ("model{v}.safetensors", "model.safetensors.index{v}.json", "mindspore_model{v}.safetensors",
               "mindspore_model.safetensors.index{v}.json", "mindspore_model{v}.ckpt",
               "mindspore_model.ckpt.index{v}.json", "pytorch_model{v}.bin", "pytorch_model.bin.index{v}.json")
SHARD = re.compile(r"(?P<stem>(?:mindspore_|pytorch_)?model(?=[.-])|.+(?=-\d+-of-))(?P<v>\..+)?-\d+-of-\d+\."
                   r"(?P<suffix>\w+)")
MAX_INDEX = 32 * 1024 * 1024
WAY_OUT = ("where the model runs with transformers, call model.save_pretrained(folder, safe_serialization=True) "
           "and load the folder with the .safetensors files")


def open_weights(path, variant=None, use_safetensors=None):
    """Return a WeightSource of a file or folder; only names, shapes and dtypes are read.

    Args:
        path (str | Path): `.safetensors`, `.ckpt` or PyTorch's `.bin` file, an index `.json`, or a folder with one of:
            model.safetensors, shards with a `*.index.json`, mindspore_model.ckpt, pytorch_model.bin, exactly one
            `.safetensors` or `.ckpt` file, or what training writes (rank_0/ with meta.json).
        variant (str): "fp16" for model.fp16.safetensors. Default: none.
        use_safetensors (bool): of a folder, True takes only safetensors, False only the other formats. Default: what
            is there, safetensors first.

    Raises:
        FileNotFoundError: nothing there, a missing shard, or a folder without weights.
        DamagedFileError: a file that is cut off or corrupt, a ValueError.
        ValueError: unsafe index, more than one candidate. ConfigError: weights of a variant alone, and none is given.
        UnsupportedError: a `.bin` that holds more than tensors; TensorFlow, Flax and other formats, with the way out.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        path = find_weights(path, variant, use_safetensors)
    elif not path.exists():
        raise FileNotFoundError(f"{path} does not exist: neither a weights file nor a folder")
    return _open_index(path) if path.suffix == ".json" else _open_file(path)


def _open_file(path):
    if path.suffix in PICKLES:
        raise UnsupportedError(f"{path} is a PyTorch pickle of unknown content (Meta's own files permute heads "
                               f"differently) and is not read: {WAY_OUT}")
    if path.suffix in FOREIGN:
        raise UnsupportedError(f"{path} is {FOREIGN[path.suffix]}, which is not read: {WAY_OUT}")
    if path.suffix not in READERS:
        raise UnsupportedError(f"{path} ends in {path.suffix or 'nothing'!r}: weights are read from .safetensors, "
                               ".ckpt and .bin files")
    try:
        return READERS[path.suffix](path)
    except ValueError as error:
        # only now: a sound header may begin with any two bytes
        with open(path, "rb") as file:
            head = file.read(32)
        for magic, what in MAGIC:
            if head.startswith(magic) and not (path.suffix == ".bin" and magic in TORCH_MAGIC):
                raise UnsupportedError(f"{path} is named {path.suffix} but is {what}; {WAY_OUT}") from error
        raise DamagedFileError(str(error)) from error


def find_weights(folder, variant=None, use_safetensors=None):
    """Return the one file of `folder` to open: a weights file or an index. Arguments as of `open_weights`.

    Raises:
        FileNotFoundError, UnsupportedError, ValueError: as `open_weights`.
    """
    names = [name.format(v=f".{variant}" if variant else "") for name in WHOLE_FILES
             if use_safetensors in (None, ".safetensors" in name)]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    files = sorted(entry for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    variants = sorted({found for file in files if (found := _variant_of(file.name, use_safetensors))})
    if variant:
        has = f". It has {_name_variants(variants)}" if variants else ""
        raise FileNotFoundError(f"{folder} has no weights of variant {variant!r}: looked for {', '.join(names)}{has}")
    weights = [file for file in files if _is_weights(file, use_safetensors)]
    indexes = [file for file in files if file.name == "param_name_map.json" or file.name.endswith(".index.json")
               and _is_weights(file.with_name(file.name.split(".index.")[0]), use_safetensors)]
    if variants and all(_is_of_variant(file.name, variants) for file in weights + indexes):
        raise ConfigError(f"{folder} has weights of {_name_variants(variants)} only: "
                          f"{' or '.join(f'variant={name!r}' for name in variants)} loads them")
    if len(indexes) == 1:
        return indexes[0]
    if len(weights) == 1 and not indexes:
        return weights[0]
    if indexes or weights:
        raise ValueError(_ambiguous(folder, indexes or weights))
    if (folder / "rank_0").is_dir():
        return find_rank_weights(folder / "rank_0")
    raise _nothing_found(folder, files, use_safetensors)


def _is_weights(file, use_safetensors=None):
    """Whether the name of `file` is one of weights; other `.bin` files are arguments, optimizers, adapters."""
    return file.suffix in READERS and (file.suffix != ".bin" or file.name.startswith("pytorch_model")) \
        and use_safetensors in (None, file.suffix == ".safetensors")


def _variant_of(name, use_safetensors=None):
    """Return "fp16" of model.fp16.safetensors or of the index of such shards, "" of any other file."""
    patterns = [re.escape(file).replace(r"\{v\}", r"\.(.+)") for file in WHOLE_FILES
                if use_safetensors in (None, ".safetensors" in file)]
    match = None if SHARD.fullmatch(name) else re.fullmatch("|".join(patterns), name)
    return next(filter(None, match.groups())) if match else ""


def _is_of_variant(name, variants):
    shard = SHARD.fullmatch(name)
    return ((shard["v"] or "").removeprefix(".") if shard else _variant_of(name)) in variants


def _name_variants(variants):
    return f"variant{'s' if len(variants) > 1 else ''} {', '.join(map(repr, variants))}"


def _ambiguous(folder, files):
    names = ", ".join(file.name for file in files[:8]) + (", ..." if len(files) > 8 else "")
    shards = [SHARD.fullmatch(file.name) for file in files]
    if all(shards):
        needed = dict.fromkeys(f"{shard['stem']}.{shard['suffix']}.index{shard['v'] or ''}.json" for shard in shards)
        return (f"{folder} has shards ({names}) but not the index that tells what they hold: fetch "
                f"{' or '.join(needed)} too")
    return f"{folder} has {len(files)} candidates ({names}): give the path of the one to load"


def _nothing_found(folder, files, use_safetensors):
    others = [file.name for file in files if _is_weights(file)]
    if others:
        wanted = "safetensors only" if use_safetensors else "no safetensors"
        return FileNotFoundError(f"use_safetensors={use_safetensors} asks for {wanted}, but {folder} has "
                                 f"{', '.join(others[:4])}: leave use_safetensors out to load what is there")
    refused = [file for file in files if file.suffix in (*PICKLES, *FOREIGN)
               and file.name not in ("optimizer.pt", "scheduler.pt")]
    if refused:
        return UnsupportedError(f"{folder} has weights only as {', '.join(file.name for file in refused[:4])}, which "
                                f"is not read: {WAY_OUT}")
    hint = " Did you mean its folder 'checkpoint'?" if (folder / "checkpoint" / "rank_0").is_dir() else ""
    return FileNotFoundError(f"{folder} holds no weights: expected model.safetensors, model.safetensors.index.json, "
                             f"mindspore_model.ckpt, pytorch_model.bin, one .safetensors or .ckpt file, or rank_0/."
                             f"{hint}")


def find_rank_weights(folder):
    """Return the newest complete checkpoint of a `rank_N` folder that training wrote: what its meta.json names."""
    meta = folder / "meta.json"
    if meta.is_file():
        name = read_json(meta, "the record of the last checkpoint").get("last_ckpt_file")
        return inside(folder, name, meta)
    files = sorted(file for file in folder.iterdir() if file.suffix in READERS and not file.name.startswith("."))
    if len(files) == 1:
        return files[0]
    if not files:
        raise FileNotFoundError(f"{folder} holds no .ckpt or .safetensors file")
    raise ValueError(_ambiguous(folder, files))


def read_json(path, what):
    """Return the object in the JSON file `path`; anything else is a ValueError naming `what` the file should be."""
    if path.stat().st_size > MAX_INDEX:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, too large for {what}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {what} is no valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged: {what} must be a JSON object")
    return content


def inside(folder, name, index):
    """Return folder/name for a file name that `index` gives, refusing whatever leads out of the folder.

    Raises:
        ValueError: no plain file name, or a link that leaves the folder (links into the `blobs` folder of a
            Hugging Face cache are fine). FileNotFoundError: no such file.
    """
    if not isinstance(name, str) or not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{index} names the file {name!r}: only files inside its own folder may be named")
    path, root = folder / name, folder.resolve()
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, though {index.name} names it: fetch it again")
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    if not any(path.resolve().is_relative_to(parent) for parent in allowed):
        raise ValueError(f"{index} names the file {name!r}, a link to {path.resolve()} outside its folder, which is "
                         "refused: put the file itself there")
    return path


class ShardedSource(WeightSource):
    """Several files read as one, told by an index which file holds which tensor; one file is open at a time."""

    def __init__(self, index, shards, weight_map, metadata=None):
        super().__init__(index, metadata=metadata)
        self._shards = shards
        self._file_of = weight_map
        for name, file in weight_map.items():
            self.entries[name] = shards[file].entries[name]

    def read(self, name, rows=None):
        self._entry(name)
        return self._shards[self._file_of[name]].read(name, rows)

    def take(self, name, rows=None):
        self._entry(name)
        return self._shards[self._file_of[name]].take(name, rows)


def _open_index(path):
    content = read_json(path, "the index of the shards")
    weight_map = content.get("weight_map", content if path.name == "param_name_map.json" else None)
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{path} is damaged: it has no 'weight_map' of tensor names to files")
    odd = [name for name, file in weight_map.items() if not isinstance(file, str)]
    if odd:
        raise ValueError(f"{path} is damaged: the file of {odd[0]!r} is {weight_map[odd[0]]!r}, not a name")
    shards = {file: _open_file(inside(path.parent, file, path)) for file in dict.fromkeys(weight_map.values())}
    absent = [f"{name} ({file})" for name, file in weight_map.items() if name not in shards[file]]
    if absent:
        raise CheckpointMismatchError(f"{path} names {len(absent)} tensors that their files do not hold: "
                                      f"{', '.join(absent[:5])}{', ...' if len(absent) > 5 else ''}")
    # what a shard holds beyond the index is shown too, so that a strict load can complain about it
    surplus = {name: file for file, shard in shards.items() for name in shard.names() if name not in weight_map}
    metadata = {}
    for shard in shards.values():
        metadata.update(shard.metadata)
    return ShardedSource(path, shards, {**weight_map, **surplus}, metadata)
