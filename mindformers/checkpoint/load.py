"""Filling a cell from a checkpoint: plan, check, assign. Strict, and it speaks once."""
import json
import re
from dataclasses import dataclass, field, replace

from mindformers.checkpoint.arrays import FLOATS, convert, dtype_name, is_finite
from mindformers.checkpoint.formats import open_weights
from mindformers.checkpoint.names import HF, OURS, MappedSource, Piece, summarise
from mindformers.checkpoint.source import DictSource, WeightSource, cell_parameters
from mindformers.tools.errors import CheckpointMismatchError, did_you_mean
from mindformers.tools import memory
from mindformers.tools.logger import logger

# what a training checkpoint keeps beside the weights
STATE_PREFIXES = ("adam_m.", "adam_v.", "moment1.", "moment2.", "moments.", "accu_grads", "exp_avg.", "exp_avg_sq.")
STATE_NAMES = ("global_step", "scale_sense", "current_iterator_step", "last_overflow_iterator_step", "epoch_num",
               "step_num", "loss_scale", "global_batch_size", "learning_rate", "momentum", "weight_decay",
               "beta1_power", "beta2_power")
STATE_KEY = "train_state"


@dataclass
class LoadReport:
    """What `load` did.

    Attributes:
        source (str): where the weights came from.
        style (str | None): "hf" or "mindformers", whose names the source had.
        loaded (list[str]): parameters that were filled.
        missing (list[str]): parameters the source has not; they keep their initial values.
        unexpected (list[str]): source names that no parameter has.
        mismatched (list[tuple]): (parameter, shape in the source, shape in the model); the first is a tuple of shapes
            for a parameter that is made of several arrays.
        ignored (dict[str, str]): source name -> why it was rightly left out.
        converted (dict[str, tuple]): parameter -> (dtype in the source, dtype in the model).
    """

    source: str
    style: str = None
    loaded: list = field(default_factory=list)
    missing: list = field(default_factory=list)
    unexpected: list = field(default_factory=list)
    mismatched: list = field(default_factory=list)
    ignored: dict = field(default_factory=dict)
    converted: dict = field(default_factory=dict)

    def loading_info(self):
        """Return {"missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"} as from_pretrained does."""
        return {"missing_keys": list(self.missing), "unexpected_keys": list(self.unexpected),
                "mismatched_keys": list(self.mismatched), "error_msgs": []}

    def __str__(self):
        parts = [f"{len(self.loaded)} parameters loaded from {self.source}"]
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected), ("ignored", self.ignored),
                            ("mis-shaped", [name for name, _, _ in self.mismatched])):
            if names:
                parts.append(f"{len(names)} {what} ({summarise(names, limit=4)})")
        casts = sorted({f"{source} -> {target}" for source, target in self.converted.values()})
        return "; ".join(parts + ([f"converted {', '.join(casts)}"] if casts else []))


def load(cell, path_or_source, weight_map=None, config=None, *, dtype=None, allow_missing=(), allow_unexpected=(),
         ignore_mismatched_sizes=False, check_finite=False, progress=True, variant=None):
    """Fill the parameters of `cell` and return a LoadReport. Nothing is assigned before everything is checked.

    At most one tensor is held beside the parameters themselves, whose memory the read array becomes.

    Args:
        cell (nn.Cell): the model.
        path_or_source (str | Path | dict | WeightSource): what to load: see `open_weights`.
        weight_map (WeightMap): table of names; None takes the names as they are. The side of the table is detected.
        config: the model's config, for the table.
        dtype (str): makes the floating point parameters of the cell this dtype. Default: each keeps its own dtype,
            and the source is converted.
        allow_missing, allow_unexpected (Iterable[str]): parameter names that are not an error; regular expressions of
            whole names, such as `lm_head[.].*` or plainly `score.weight`.
        ignore_mismatched_sizes (bool): parameters of another shape are reported, not an error. Default: False.
        check_finite (bool): read everything first and refuse NaN and infinity. Default: False.
        progress (bool): a progress bar on a terminal. Default: True.
        variant (str): see `open_weights`.

    Raises:
        CheckpointMismatchError: missing, unexpected, mis-shaped names or impossible dtypes, all in one message.
        FileNotFoundError, ValueError, UnsupportedError: see `open_weights`.
    """
    source = _as_source(path_or_source, variant)
    parameters = cell_parameters(cell)
    report = LoadReport(source.where)
    view = _mapped(source, parameters, weight_map, config, report)
    _compare(view, parameters, report, dtype)
    faults = _dtype_faults(view, parameters, report, dtype)
    faults += _faults(view, report, weight_map, allow_missing, allow_unexpected, ignore_mismatched_sizes)
    if faults:
        raise CheckpointMismatchError(f"{source.where} does not fit {type(cell).__name__}:\n  " + "\n  ".join(faults))
    if check_finite:
        refuse_non_finite(view, report.loaded)
    if dtype is not None:
        _refuse_compiled(cell, parameters, report.loaded, dtype)
    for name in _progress(report.loaded, progress):
        target = _target_dtype(parameters[name], dtype)
        # what is converted is read: its pages would stay in memory beside the result
        array = view.take(name) if view.dtype(name) == target else view.read(name)
        _assign(parameters[name], array, target, name)
    logger.info("%s", report)
    return report


def _as_source(value, variant):
    if isinstance(value, WeightSource):
        return value
    return DictSource(value) if isinstance(value, dict) else open_weights(value, variant)


def _mapped(source, parameters, weight_map, config, report):
    """Return the source as a MappedSource under the names of the cell, with training state left out."""
    own_state = set(json.loads(source.metadata.get(STATE_KEY, "{}")).get("optimizer", ()))
    state = {name for name in source.names() if name not in parameters
             and (name in own_state or name in STATE_NAMES or name.startswith(STATE_PREFIXES))}
    report.ignored.update(dict.fromkeys(sorted(state), "training state"))
    plain = MappedSource(source)
    for name in source.names():
        if name not in state:
            plain.add(name, Piece((name,)))
    if weight_map is None:
        return plain
    report.style = weight_map.style(plain.names())
    if report.style == HF:
        view = weight_map.to_mindformers(plain, config, strict=False)
    elif report.style == OURS and set(plain.names()) != set(parameters):
        # through Hugging Face's names and back: packed parameters become separate ones, or the reverse
        there = weight_map.to_hf(plain, config, strict=False)
        view = weight_map.to_mindformers(there, config, strict=False)
        view.ignored.update(there.ignored)
        view.unknown += there.unknown
        view.incomplete.update(there.incomplete)
        view.wrong += [_in_our_names(misfit, weight_map, config, plain.names()) for misfit in there.wrong]
    else:
        view = plain
    view = _fit_prefix(view, parameters, weight_map)
    report.ignored.update(view.ignored)
    return view


def _in_our_names(misfit, weight_map, config, names):
    """Return a Misfit of Hugging Face's targets as one of ours, with the prefix or without as `names` have it."""
    bare = "" if any(name.startswith(weight_map.prefix) for name in names) else weight_map.prefix
    ours = [name.removeprefix(bare) for target in misfit.targets for name in weight_map.our_names(target, config)]
    return replace(misfit, targets=tuple(dict.fromkeys(ours)))


def _fit_prefix(view, parameters, weight_map):
    """Let a model with head take the weights of one without, and the reverse; heads that it lacks are left out."""
    prefix = weight_map.prefix
    bare_cell = not any(name.startswith(prefix) for name in parameters)
    bare_view = not any(name.startswith(prefix) for name in view.names())
    if bare_view and not bare_cell:
        return view.renamed(lambda name: name if name in parameters else prefix + name)

    def change(name):
        if name in weight_map.heads and name not in parameters:
            return None
        if name.startswith(prefix):
            return name[len(prefix):] if bare_cell else name
        return name if name in parameters or not weight_map.other_names(name) else None

    return view if bare_view else view.renamed(change)


def _target_dtype(parameter, dtype):
    own = dtype_name(parameter.dtype)
    return dtype if dtype is not None and own in FLOATS else own


def _compare(view, parameters, report, dtype):
    misfits = {name: misfit for misfit in view.wrong for name in misfit.targets}
    for name, parameter in parameters.items():
        if name in misfits:
            found = misfits[name].shapes
            report.mismatched.append((name, found[0] if len(found) == 1 else found, tuple(parameter.shape)))
        elif name not in view:
            report.missing.append(name)
        elif view.shape(name) != tuple(parameter.shape):
            report.mismatched.append((name, view.shape(name), tuple(parameter.shape)))
        else:
            report.loaded.append(name)
            target = _target_dtype(parameter, dtype)
            if view.dtype(name) != target:
                report.converted[name] = (view.dtype(name), target)
    report.unexpected = [name for name in view.names() if name not in parameters] + view.unknown


def _faults(view, report, weight_map, allow_missing, allow_unexpected, ignore_mismatched_sizes):
    """Return one sentence per kind of fault, and one on how to load all the same."""
    faults = []
    missing = [name for name in report.missing if not _matches(name, allow_missing) and name not in view.incomplete]
    if missing:
        faults.append(f"{len(missing)} missing: {summarise(missing)}{_missing_hint(missing, view, report, weight_map)}")
    incomplete = {target: names for target, names in view.incomplete.items() if not _matches(target, allow_missing)}
    faults += [f"{target} cannot be made: the file lacks {', '.join(names)}" for target, names in incomplete.items()]
    unexpected = [name for name in report.unexpected if not _matches(name, allow_unexpected)]
    if unexpected:
        faults.append(f"{len(unexpected)} unexpected: {summarise(unexpected)}")
    shape_faults = [] if ignore_mismatched_sizes else _shape_faults(view, report)
    unfit = {name for name, _, _ in report.mismatched}
    faults += shape_faults + [misfit.text for misfit in view.wrong if not _is_of_size(misfit, unfit)]
    return faults + _ways_out({"allow_missing": missing or incomplete, "allow_unexpected": unexpected},
                              bool(shape_faults), weight_map)


def _is_of_size(misfit, unfit):
    """Whether only sizes are wrong, and only of the parameters `unfit` of the model."""
    return not misfit.dtypes and set(misfit.targets) <= unfit


def _shape_faults(view, report):
    """Return the sentences that `ignore_mismatched_sizes` takes away."""
    unfit = {name for name, _, _ in report.mismatched}
    told = {name for misfit in view.wrong for name in misfit.targets}
    faults = [misfit.text for misfit in view.wrong if _is_of_size(misfit, unfit)]
    shapes = [f"{name} is {found} in the file, {wanted} in the model" for name, found, wanted in report.mismatched
              if name not in told]
    if shapes:
        faults.append(f"{len(shapes)} of another shape: {'; '.join(shapes[:8])}{'; ...' if len(shapes) > 8 else ''}")
    return faults


def _ways_out(allowed, shapes, weight_map):
    """Return the sentence that names the arguments which accept faults: {argument: names}, and `shapes` or not."""
    arguments = [f"{argument}=[names]" for argument, names in allowed.items() if names]
    ways = ["ignore_mismatched_sizes=True leaves those of another shape as initialised"] if shapes else []
    if arguments:
        table = "" if weight_map is None else "type(model).weight_map(), model.config, "
        ways.append(f"mindformers.checkpoint.load(model, path, {table}{', '.join(arguments)}) accepts what you name")
    return [f"To load all the same: {'; '.join(ways)}"] if ways else []


def _missing_hint(missing, view, report, weight_map):
    near = did_you_mean(missing[0], report.unexpected)
    hint = f".{near}" if near and report.style != HF else ""
    if weight_map is None:
        return hint
    if report.style == HF:
        names = [other for name in missing for other in weight_map.other_names(name)]
        hint = f" (in the file's words {summarise(names)})" if names else ""
    for tie in weight_map.ties:
        if tie.ours[0] in missing and tie.ours[1] in view:
            hint += f". A file without {tie.hf[0]} is usually of a model with tie_word_embeddings: True"
    return hint


def _dtype_faults(view, parameters, report, dtype):
    """Quantised values into floating point parameters and the reverse, known before anything is read."""
    return [f"{name} is {source} in the file and {target} in the model: only floating point dtypes convert"
            for name, (source, target) in report.converted.items() if (source in FLOATS) != (target in FLOATS)]


def _matches(name, patterns):
    return any(name == pattern or re.fullmatch(pattern, name) for pattern in patterns)


def refuse_non_finite(source, names):
    """Read `names` and raise CheckpointMismatchError naming all that hold NaN or infinity."""
    bad = [name for name in names if source.dtype(name) in FLOATS and not is_finite(source.read(name))]
    if bad:
        raise CheckpointMismatchError(f"{source.where} holds NaN or infinity in {len(bad)} tensors: {summarise(bad)}")


def _refuse_compiled(cell, parameters, names, dtype):
    """A compiled graph would read the memory of its old dtype and give wrong numbers."""
    changes = any(_target_dtype(parameters[name], dtype) != dtype_name(parameters[name].dtype) for name in names)
    if changes and any(getattr(part, "compile_cache", None) for _, part in cell.cells_and_names()):
        raise ValueError(f"the model has already run, so its parameters cannot become {dtype} any more: load before "
                         "the first call, or build the model anew")


def _progress(names, wanted):
    if not wanted:
        return names
    from tqdm import tqdm
    return tqdm(names, desc="loading weights", unit="tensor", leave=False, delay=2, disable=None)


def _assign(parameter, array, dtype, name):
    """Make `array` the value of `parameter`; the parameter takes over its memory."""
    import mindspore as ms
    read = array
    array = convert(read, dtype, name)
    if array is not read:
        array = memory.place(array)
    if dtype_name(parameter.dtype) != dtype:
        parameter.set_dtype(getattr(ms, dtype))
    parameter.set_data(ms.Tensor.from_numpy(array))
