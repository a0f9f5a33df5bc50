"""The check of a model folder: config fields, tokenizer files, names and shapes of the weights from their headers."""
import importlib
import json
import os

from mindformers.cli.console import InputError
from mindformers.tools.errors import CheckpointMismatchError, UnsupportedError

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}  # dtypes of parameters
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
_SHOWN = 8


def check_folder(folder, name=None, weights=None, variant=None):
    """Check a model folder.

    Args:
        folder (str): the folder.
        name (str | None): what the messages call it. Default: None, the folder.
        weights (str | None): a line on the weights when they are not in the folder; None looks for them there.
        variant (str | None): "fp16" for model.fp16.safetensors. Default: None.

    Returns:
        list[str]: lines that describe the model.

    Raises:
        InputError: every fault of config, tokenizer and weights, and what was found beside them, in one message.
    """
    lines, faults = [], []
    config = _config(folder, lines, faults)
    _tokenizer(folder, config, lines, faults)
    name = name or folder
    if weights is None:
        _weights(folder, config, lines, faults, variant)
    else:
        lines.append(weights)
    if faults:
        found = [f"found: {line}" for line in lines]
        raise InputError(f"{name}: {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n  "
                         + "\n  ".join(faults + found))
    return [f"{name}: valid", *("  " + line for line in lines)]


def human_size(count):
    """Return a number of bytes as text: ``"13.5 GB"`` (1 GB = 1e9)."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB" if count < 1000 else f"{count:,.0f} GB"


def _config(folder, lines, faults):
    from mindformers.models.auto.configuration_auto import AutoConfig
    try:
        config = AutoConfig.from_pretrained(folder)
    except (ValueError, KeyError, TypeError, OSError, UnsupportedError) as error:
        faults.append(f"config: {error}")
        return None
    lines.append(f"config: {type(config).__name__}, architecture {_architecture(config)}")
    return config


def _architecture(config):
    names = getattr(config, "architectures", None) or ["LlamaForCausalLM"]
    return names if isinstance(names, str) else names[0]


def _tokenizer(folder, config, lines, faults):
    found = [name for name in TOKENIZER_FILES if os.path.isfile(os.path.join(folder, name))]
    if not found:
        lines.append(f"tokenizer: none in the folder ({', '.join(TOKENIZER_FILES)})")
        return
    lines.append(f"tokenizer: {', '.join(found)}")
    path = os.path.join(folder, "tokenizer.json")
    if "tokenizer.json" not in found:
        return
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        ids = list(_token_ids(data))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        faults.append(f"tokenizer.json: not readable: {error}")
        return
    if config is not None and ids and max(ids) >= config.vocab_size:
        faults.append(f"tokenizer.json: its largest token id is {max(ids)}, but the model's vocab_size is "
                      f"{config.vocab_size}")


def _token_ids(data):
    vocabulary = data["model"].get("vocab", {})
    yield from vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
    yield from (token["id"] for token in data.get("added_tokens", ()))


def _weights(folder, config, lines, faults, variant):
    from mindformers.checkpoint.formats import open_weights
    try:
        source = open_weights(folder, variant)
    except (ValueError, OSError, UnsupportedError) as error:
        faults.append(f"weights: {error}")
        return
    names = source.names()
    dtypes = sorted({source.dtype(name) for name in names})
    total = sum(source.nbytes(name) for name in names)
    lines.append(f"weights: {len(names)} tensors, {human_size(total)}, {', '.join(dtypes)}")
    if config is None:  # the names are all there is to tell the model by
        some = [f"{name} {list(source.shape(name))}" for name in names[:_SHOWN]]
        lines.append(f"names: {', '.join(some)}{', ...' if len(names) > _SHOWN else ''}")
        return
    tables = weight_tables(config)
    if tables is None:
        return
    weight_map, parameter_shapes = tables
    expected = parameter_shapes(config, _architecture(config))
    count = sum(_product(shape) for shape in expected.values())
    memory = human_size(count * BYTES[config.param_init_type])
    lines.append(f"model: {count:,} parameters, {memory} of memory as {config.param_init_type}")
    try:
        view = weight_map.to_mindformers(source, config, strict=False) if weight_map.style(names) == "hf" else source
        faults += [f"weights: {text}" for text in _compare(view, expected)]
    except CheckpointMismatchError as error:
        faults.append(f"weights: {error}")


def weight_tables(config):
    """Return (WEIGHT_MAP, parameter_shapes) of the model's family, or None when it has none."""
    family = type(config).__module__.removesuffix("_config")
    try:
        return (importlib.import_module(f"{family}_weights").WEIGHT_MAP,
                importlib.import_module(f"{family}_shapes").parameter_shapes)
    except ModuleNotFoundError:
        return None


def _compare(view, expected):
    """Return sentences on missing, unexpected and mis-shaped names."""
    from mindformers.checkpoint.names import summarise
    have = {name: tuple(view.shape(name)) for name in view.names()}
    unknown = [*(name for name in have if name not in expected), *getattr(view, "unknown", ())]
    incomplete = getattr(view, "incomplete", {})
    misfits = getattr(view, "wrong", ())
    told = {*incomplete, *(name for misfit in misfits for name in misfit.targets)}
    missing = [name for name in expected if name not in have and name not in told]
    faults = [f"missing: {summarise(missing, _SHOWN)}"] if missing else []
    faults += [f"unexpected: {summarise(unknown, _SHOWN)}"] if unknown else []
    faults += [f"{name} lacks {', '.join(parts)}" for name, parts in incomplete.items()]
    faults += [misfit.text for misfit in misfits]
    wrong = [f"{name} is {have[name]} but the config gives {shape}" for name, shape in expected.items()
             if name in have and have[name] != tuple(shape)]
    more = [f"and {len(wrong) - _SHOWN} more of another shape"] if len(wrong) > _SHOWN else []
    return faults + wrong[:_SHOWN] + more


def _product(shape):
    total = 1
    for size in shape:
        total *= size
    return total
