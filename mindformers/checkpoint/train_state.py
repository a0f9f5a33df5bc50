"""The state of a training run on disk: weights, optimizer, counters; the last good one survives every crash.

    <output_dir>/checkpoint/rank_N/<prefix>_rank_N-<epoch>_<step>.ckpt      everything that resuming needs
    <output_dir>/checkpoint/rank_N/meta.json                                names the newest complete file
    <output_dir>/checkpoint_network/rank_N/<prefix>_rank_N-network.ckpt     the weights alone
    <output_dir>/checkpoint_trainable/rank_N/<prefix>_rank_N-trainable_params.ckpt   those that are trained

Order of a save: the new file is complete under a temporary name; it gets its name; meta.json is replaced; the oldest
files beyond `keep_max` go. A process that dies anywhere in between leaves a meta.json whose file is whole.
"""
import json
import os
import re
from pathlib import Path

import numpy as np

from mindformers.checkpoint.arrays import as_array, dtype_name
from mindformers.checkpoint.formats import open_weights
from mindformers.checkpoint.load import STATE_KEY
from mindformers.checkpoint.names import summarise
from mindformers.checkpoint.save import WRITERS
from mindformers.checkpoint.source import CellSource, DictSource, cell_parameters
from mindformers.tools.errors import CheckpointMismatchError, did_you_mean
from mindformers.tools.utils import atomic_write

META = "meta.json"
# kept as tensors too, as MindFormers does, so that its tools find them
SCALARS = {"epoch_num": np.int64, "step_num": np.int64, "global_batch_size": np.int64, "loss_scale": np.float32}


def save_train_state(output_dir, rank, prefix, epoch, step, cell, optimizer, extra=None, keep_max=5, format="ckpt",
                     save_network=True, save_trainable=False):
    """Save a training run and return the path of the new checkpoint.

    Args:
        output_dir (str | Path): the run's folder.
        rank (int): this process; each writes its own folder.
        prefix (str): start of the file names, such as "llama_7b".
        epoch, step (int): what the file name says: epoch and step within it, from 1.
        cell (nn.Cell): the model. optimizer (nn.Cell | None): its state; a parameter of both is kept once.
        extra (dict): JSON-able values beside the parameters (counters, loss scale, rng state, data position).
        keep_max (int | None): how many checkpoints of this prefix stay; None or 0: all. Default: 5.
        format (str): "ckpt" or "safetensors". Default: "ckpt".
        save_network, save_trainable (bool): write the weights alone as well, all / trained ones.

    Raises:
        OSError: disk full or no permission; everything saved before is as it was.
        TypeError: `extra` holds what JSON cannot. ValueError: wrong arguments.
    """
    _check(prefix, epoch, step, keep_max, format)
    folder = Path(output_dir) / "checkpoint" / f"rank_{rank}"
    path = folder / f"{prefix}_rank_{rank}-{epoch}_{step}.{format}"
    weights, both = CellSource(cell), CellSource(cell, optimizer, where="the training run")
    own_state = [name for name in both.names() if name not in weights and not name.startswith("accu_grads")]
    extra = _plain(extra or {})
    scalars = {name: np.array(extra[name], SCALARS[name]) for name in SCALARS if _is_number(extra.get(name))
               and name not in both}
    source = DictSource({**cell_parameters(cell, optimizer), **scalars}, "the training run")
    metadata = {STATE_KEY: json.dumps({"extra": extra, "optimizer": own_state})}
    _remove_leftovers(folder)
    _write(path, source, [*weights.names(), *own_state, *scalars], metadata, format)
    record = {"last_epoch": epoch, "last_step": step, "last_ckpt_file": path.name}
    with atomic_write(folder / META) as temporary:
        temporary.write_text(json.dumps(record), encoding="utf-8")
    _retire(folder, path, prefix, rank, keep_max)
    for wanted, kind, suffix in ((save_network, "network", "network"),
                                 (save_trainable, "trainable", "trainable_params")):
        if wanted:
            names = weights.names() if kind == "network" else [p.name for p in cell.trainable_params()]
            target = Path(output_dir) / f"checkpoint_{kind}" / f"rank_{rank}"
            _remove_leftovers(target)
            _write(target / f"{prefix}_rank_{rank}-{suffix}.{format}", weights, names, None, format)
    return path


def load_train_state(path, cell, optimizer):
    """Fill model and optimizer from a checkpoint of `save_train_state`, exactly, and return its `extra`.

    Args:
        path (str | Path): the file, as `find_resume` gives it.
        cell (nn.Cell), optimizer (nn.Cell | None): must have the very parameters, shapes and dtypes that were saved.

    Returns:
        dict: what was given as `extra`; of a file of MindFormers: epoch_num, step_num, loss_scale, ... as found.

    Raises:
        CheckpointMismatchError: any difference; nothing is assigned then. ValueError: damaged file.
    """
    import mindspore as ms
    source = open_weights(path)
    parameters = cell_parameters(cell, optimizer)
    if STATE_KEY in source.metadata:
        extra = json.loads(source.metadata[STATE_KEY])["extra"]
    else:
        extra = {name: source.read(name).reshape(-1)[0].item() for name in SCALARS if name in source
                 and name not in parameters}
    _refuse_differences(source, parameters, path)
    for name, parameter in parameters.items():
        if not name.startswith("accu_grads"):
            parameter.set_data(ms.Tensor.from_numpy(source.read(name)))
    return extra


def _refuse_differences(source, parameters, path):
    wanted = {name: (tuple(parameter.shape), dtype_name(parameter.dtype)) for name, parameter in parameters.items()
              if not name.startswith("accu_grads")}
    missing = [name for name in wanted if name not in source]
    surplus = [name for name in source.names() if name not in wanted and name not in SCALARS]
    wrong = [f"{name} is {_words(source.entries[name])} in the file and {_words(wanted[name])} in the run"
             for name in wanted if name in source and source.entries[name] != wanted[name]]
    faults = [f"{len(names)} {what}: {summarise(names)}" for what, names in (("missing", missing),
                                                                             ("unexpected", surplus)) if names]
    if wrong:
        faults.append(f"{len(wrong)} of another shape or dtype: {'; '.join(wrong[:8])}")
    if faults:
        hint = " Weights alone cannot resume a run: set resume_training to False to start from them." \
            if missing and not any(name in source for name in ("global_step", *SCALARS)) else ""
        raise CheckpointMismatchError(f"cannot resume from {path}:\n  " + "\n  ".join(faults) + hint)


def _words(entry):
    return f"{entry[1]} {entry[0]}"


def _write(path, source, names, metadata, format):
    with atomic_write(path) as temporary:
        texts = {"format": "ms", **(metadata or {})} if format == "safetensors" else metadata
        WRITERS[format](temporary, source, names, texts, path)


def _retire(folder, newest, prefix, rank, keep_max):
    """Delete the oldest checkpoints of this prefix beyond `keep_max`, never the newest."""
    if not keep_max:
        return
    pattern = re.compile(rf"{re.escape(prefix)}_rank_{rank}-(\d+)_(\d+)\.(ckpt|safetensors)")
    found = []
    for path in folder.iterdir():
        match = pattern.fullmatch(path.name)
        if match and path.name != newest.name:
            found.append((path.stat().st_mtime_ns, int(match.group(1)), int(match.group(2)), path))
    for *_, path in sorted(found)[:max(len(found) - (keep_max - 1), 0)]:
        path.unlink()


def _remove_leftovers(folder):
    """Remove temporary files of a save that was killed; only this rank writes here, one save at a time."""
    if folder.is_dir():
        for path in folder.iterdir():
            if re.fullmatch(r"\..+\.tmp\d+\.(ckpt|safetensors|json)", path.name):
                path.unlink()


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _plain(value, where="extra"):
    """Return `value` with numpy and MindSpore scalars as Python ones; refuse what JSON would change or cannot hold."""
    if isinstance(value, dict):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            raise TypeError(f"{where}: key {odd[0]!r} must be a str to be kept in a checkpoint")
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if hasattr(value, "asnumpy") or isinstance(value, (np.ndarray, np.generic)):
        return as_array(value).tolist()
    raise TypeError(f"{where} is {type(value).__name__}, which a checkpoint cannot hold: use numbers, texts, lists and "
                    "dicts")


def _check(prefix, epoch, step, keep_max, format):
    if format not in WRITERS:
        raise ValueError(f"checkpoint format must be 'ckpt' or 'safetensors', but is {format!r}."
                         f"{did_you_mean(format, WRITERS)}")
    if not isinstance(prefix, str) or not prefix or prefix.startswith(".") or os.sep in prefix:
        raise ValueError(f"checkpoint prefix {prefix!r} must be a plain file name part")
    for name, value in (("epoch", epoch), ("step", step), ("keep_checkpoint_max", keep_max or 0)):
        if not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"{name} must be an integer of at least 0, but is {value!r}")
