"""Folders of adapters: those of Hugging Face's PEFT, and MindFormers' names.

    adapter_config.json          settings
    adapter_model.safetensors    base_model.model.<module>.lora_A.weight [rank, in], ...lora_B.weight [out, rank]
                                 or <module>.mindpet_delta_lora_a, ...mindpet_delta_lora_b
"""
import json
import os
import re
from pathlib import Path

import numpy as np
from mindspore import Tensor

from mindformers.checkpoint.arrays import convert, dtype_name
from mindformers.checkpoint.formats import open_weights
from mindformers.checkpoint.names import summarise
from mindformers.checkpoint.save import save_weights
from mindformers.pet.adapter_base import CONFIG_FILE
from mindformers.pet.pet_config import LoraConfig
from mindformers.pet.tuners.lora_adapter import lora_cells
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, UnsupportedError
from mindformers.tools.utils import atomic_write, make_folder

WEIGHTS_FILE, PICKLE_FILE = "adapter_model.safetensors", "adapter_model.bin"
_PEFT = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.[^.]+)?\.weight")
_OURS = re.compile(r"(?P<module>.+)\.(?:mindpet|tk)_delta_lora_(?P<part>[ab])")
# settings of PEFT that change the numbers, and the values that mean what is computed here
_PEFT_PLAIN = {"bias": ("none", None), "fan_in_fan_out": (False, None), "use_rslora": (False, None),
               "use_dora": (False, None), "modules_to_save": (None, []), "rank_pattern": ({}, None),
               "alpha_pattern": ({}, None), "layers_to_transform": (None,), "lora_bias": (False, None)}


def save_adapter(model, save_directory, names="hf"):
    """Write the adapters of a model, without the base weights, into a folder; returns its path.

    Args:
        model (PreTrainedModel): has adapters, see `get_pet_model`.
        save_directory (str | Path): made when it is not there.
        names (str): "hf" writes what PEFT reads, "mindformers" MindFormers' parameter names. Default: "hf".

    Raises:
        ValueError: another `names`. UnsupportedError: a product that Hugging Face's model has not as one module.
    """
    if names not in ("hf", "mindformers"):
        raise ValueError(f"names must be 'hf' or 'mindformers', but is {names!r}")
    config = model.pet_config
    arrays = {name: parameter.asnumpy() for name, parameter in model.adapter_parameters().items()}
    folder = Path(make_folder(save_directory))
    if names == "hf":
        arrays = _peft_arrays(model, arrays)
        modules = sorted({_PEFT.fullmatch(name)["module"] for name in arrays})
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": config.lora_rank,
                    "lora_alpha": config.lora_alpha, "lora_dropout": config.lora_dropout, "target_modules": modules,
                    "bias": "none", "fan_in_fan_out": False, "inference_mode": True, "modules_to_save": None,
                    "base_model_name_or_path": str(model.config.name_or_path or "")}
    else:
        settings = {key: value for key, value in config.to_dict().items() if key != "adapter_path"}
    save_weights(folder, arrays, names=names, format="safetensors", stem=Path(WEIGHTS_FILE).stem)
    with atomic_write(folder / CONFIG_FILE) as temporary:
        temporary.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return str(folder)


def _peft_arrays(model, arrays):
    """A and B under PEFT's names; a packed product becomes several that share A, each with its rows of B."""
    weight_map = model.weight_map()
    found = {}
    for _, cell in lora_cells(model):
        own = cell.weight.name
        low, high = (arrays[parameter.name] for parameter in (cell.mindpet_delta_lora_a, cell.mindpet_delta_lora_b))
        parts = {own: high} if weight_map is None else weight_map.to_hf({own: high}, model.config, strict=False)
        names = list(parts) if isinstance(parts, dict) else parts.names()
        if not names:
            raise UnsupportedError(f"{own} is only a part of a module of Hugging Face's model, so PEFT has no adapter "
                                   f"like it; save with names='mindformers'")
        for name in names:
            module = name.removesuffix(".weight")
            rows = parts[name] if isinstance(parts, dict) else parts.read(name)
            found[f"base_model.model.{module}.lora_A.weight"] = low
            found[f"base_model.model.{module}.lora_B.weight"] = np.ascontiguousarray(rows)
    return found


def load_adapter(model, path):
    """Load adapters into a model and return it; a model without adapters gets them as the files say.

    Args:
        model (PreTrainedModel): with adapters of the same products and rank, or without any.
        path (str | Path): a folder as `save_adapter` or PEFT writes it, or one file of weights (.safetensors, .ckpt),
            of which only the adapters are read.

    Raises:
        FileNotFoundError: nothing there. ConfigError: settings that differ from the model's.
        UnsupportedError: settings of PEFT that are not carried; a PEFT file for a model with packed products.
        CheckpointMismatchError: adapters that do not fit the model; the message lists them.
    """
    path = Path(os.fspath(path))
    settings, file = _files(path)
    arrays = _our_arrays(model, open_weights(str(file)))
    if not arrays:
        raise CheckpointMismatchError(f"{file} holds no LoRA adapters")
    if not model.has_adapter:
        from mindformers.pet.pet_model import get_pet_model
        get_pet_model(model, _config_for(settings, arrays, file))
    elif settings is not None:
        _refuse_other_settings(model.pet_config, settings, path)
    _assign(model, arrays, file)
    return model


def _files(path):
    """Return (settings as a LoraConfig's fields or None, file of the weights)."""
    if path.is_file():
        return None, path
    file = next((path / name for name in (WEIGHTS_FILE, PICKLE_FILE) if (path / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"no adapters at {path}: looked for {WEIGHTS_FILE} and {PICKLE_FILE}")
    config = path / CONFIG_FILE
    return (_settings(json.loads(config.read_text(encoding="utf-8")), config) if config.is_file() else None), file


def _settings(content, path):
    """Fields of a LoraConfig from the content of adapter_config.json in either dialect."""
    if "peft_type" not in content:
        return content
    if content["peft_type"] != "LORA":
        raise UnsupportedError(f"{path}: peft_type {content['peft_type']!r} is not carried; LORA is")
    for key, plain in _PEFT_PLAIN.items():
        if key in content and content[key] not in plain:
            raise UnsupportedError(f"{path}: {key}: {content[key]!r} is not carried; it must be {plain[0]!r}")
    return {"pet_type": "lora", "lora_rank": content["r"], "lora_alpha": content["lora_alpha"],
            "lora_dropout": content.get("lora_dropout", 0.0)}


def _our_arrays(model, source):
    """``{name of our parameter: array}`` of the adapters in a source, whichever names it has."""
    weight_map, found, joined = model.weight_map(), {}, {}
    for name in source.names():
        ours, theirs = _OURS.fullmatch(name), _PEFT.fullmatch(name)
        if ours:
            found[f"{ours['module']}.mindpet_delta_lora_{ours['part']}"] = source.read(name)
        elif theirs:
            hf = f"{theirs['module']}.weight"
            targets = [hf] if weight_map is None else weight_map.our_names(hf, model.config)
            if len(targets) > 1:
                raise UnsupportedError(f"{source.where}: {name} is {len(targets)} products here: build the model with "
                                       f"packed ones (qkv_concat, mlp_concat: True)")
            if not targets:
                raise CheckpointMismatchError(f"{source.where}: {name} belongs to no product of "
                                              f"{type(model).__name__}")
            joined.setdefault((targets[0].removesuffix(".weight"), theirs["part"].lower()), []).append(name)
    for (module, part), names in joined.items():
        if len(names) > 1:
            raise UnsupportedError(f"{source.where}: {', '.join(names)} are one product here, and their adapters do "
                                   f"not make one: build the model with separate products (qkv_concat: False)")
        found[f"{module}.mindpet_delta_lora_{part}"] = source.read(names[0])
    return found


def _config_for(settings, arrays, file):
    """Settings for exactly the products in `arrays`."""
    if settings is None:
        raise ConfigError(f"{file} does not say the scale of its adapters: give the model its adapters first, with "
                          f"get_pet_model(model, LoraConfig(...)), or keep {CONFIG_FILE} beside the file")
    modules = sorted({name.rsplit(".", maxsplit=1)[0] for name in arrays})
    kept = {key: value for key, value in settings.items() if key not in ("target_modules", "exclude_layers")}
    return LoraConfig(**{**kept, "target_modules": modules})


def _refuse_other_settings(config, settings, path):
    for key in ("lora_rank", "lora_alpha"):
        if settings.get(key, config[key]) != config[key]:
            raise ConfigError(f"the adapters of {path} have {key} {settings[key]}, those of the model {config[key]}")


def _assign(model, arrays, file):
    parameters = model.adapter_parameters()
    missing = [name for name in parameters if name not in arrays]
    unexpected = [name for name in arrays if name not in parameters]
    shapes = {name: (arrays[name].shape, tuple(parameter.shape)) for name, parameter in parameters.items()
              if name in arrays}
    wrong = [f"{name} is {found} in the file and {wanted} in the model"
             for name, (found, wanted) in shapes.items() if found != wanted]
    faults = [f"{len(names)} {what}: {summarise(names)}" for what, names in (("missing", missing),
                                                                             ("unexpected", unexpected)) if names]
    if faults or wrong:
        raise CheckpointMismatchError(f"the adapters of {file} do not fit {type(model).__name__}:\n  "
                                      + "\n  ".join(faults + wrong))
    for name, parameter in parameters.items():
        parameter.set_data(Tensor.from_numpy(convert(arrays[name], dtype_name(parameter.dtype), name)))
