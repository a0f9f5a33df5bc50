"""from_pretrained and save_pretrained: which files are read and written, and with which settings."""
import contextlib
import copy
import inspect
import os
from pathlib import Path

from mindformers.checkpoint.formats import find_weights
from mindformers.checkpoint.load import load as load_weights
from mindformers.checkpoint.save import STEMS, save_weights
from mindformers.generation.generation_config import GenerationConfig
from mindformers.hub import HUB_OPTIONS
from mindformers.hub.upload import check_push_options, uploading
from mindformers.models.config_keys import refuse_two_tokens
from mindformers.models.configuration_utils import CONFIG_NAME, check_config
from mindformers.models.custom_code import save_code
from mindformers.models.hub_sources import hub_options, is_remote, local, weights_of
from mindformers.modules.quantize import parse_quantization
from mindformers.tools.errors import ConfigError, UnsupportedError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.utils import make_folder

# hub settings: without effect on a folder that is already here
HUB_KWARGS = (*HUB_OPTIONS, "download_checkpoint")
_LOAD_KWARGS = ("config", "state_dict", "output_loading_info", "ignore_mismatched_sizes", "torch_dtype", "dtype",
                "subfolder", "variant", "use_safetensors", "trust_remote_code", "low_cpu_mem_usage",
                "attn_implementation", "from_tf", "from_flax", "auto_trans_ckpt", "check_finite", "quantization")
_OTHER_FRAMEWORKS = {"from_tf": "TensorFlow", "from_flax": "Flax"}
# settings without effect here, and why
_INERT = {"attn_implementation": "the kernel form is chosen by backend (mindformers check --kernels)",
          "low_cpu_mem_usage": "loading never holds more than the model and one tensor",
          "auto_trans_ckpt": "weights of another sharding must be merged first"}


def load(cls, name_or_dir, *model_args, **kwargs):
    """Build `cls` from a folder, YAML or known name and load its weights.

    Args:
        cls: a PreTrainedModel class.
        name_or_dir (str): folder with config.json and weights, folder with one YAML and a ckpt, YAML, known name, or
            repository of a hub (owner/name, hf://owner/name, openmind://owner/name).
        *model_args: passed to the constructor.
        config: object, path or name that replaces the folder's own; an object is copied. With an object, other kwargs
            go to the constructor.
        state_dict (dict): weights given directly, in either naming.
        dtype / torch_dtype (str): dtype of the parameters; "auto" keeps the config's, and so does None for both.
        output_loading_info (bool): also return {missing_keys, unexpected_keys, mismatched_keys, error_msgs}.
        ignore_mismatched_sizes (bool): leave mis-shaped parameters at their initial values.
        check_finite (bool): refuse weights with NaN or infinity.
        quantization (str): "int8" makes the weights of the products int8 once they are loaded, with a scale per output
            channel; "int8:64" with one per group of 64 inputs. For generation only. Default: None.
        subfolder (str): folder within the folder or repository. variant (str): "fp16" for model.fp16.safetensors.
        use_safetensors (bool): True takes safetensors only, False the other formats (`.ckpt`, `.bin`). Default: None,
            safetensors first.
        cache_dir, force_download, resume_download, proxies, local_files_only, token, use_auth_token, revision, mirror:
            of the hub, see `hub.resolve`.
        **kwargs: config fields, then constructor arguments.

    Returns:
        The model in evaluation mode, or (model, info).

    Raises:
        TypeError: the name is not a string, or an unknown keyword.
        ConfigError: a `config` of another kind, or with fields beside it; a dtype that contradicts `torch_dtype`.
        FileNotFoundError: no configuration or no weights; the message says what was looked for.
        OSError: of a hub, see `hub.resolve`.
        CheckpointMismatchError: weights that do not fit.
    """
    if not isinstance(name_or_dir, (str, os.PathLike)) and name_or_dir is not None:
        raise TypeError(f"pretrained_model_name_or_dir should be a str, but got {type(name_or_dir).__name__}")
    refuse_two_tokens(kwargs)
    options = {key: kwargs.pop(key) for key in (*_LOAD_KWARGS, *HUB_KWARGS) if key in kwargs}
    _refuse_other_frameworks(options)
    quantization = options.get("quantization")
    if quantization is not None:
        parse_quantization(quantization)
    for key in _INERT.keys() & options.keys():
        logger.info("from_pretrained: %s=%r has no effect: %s", key, options[key], _INERT[key])
    folder = _folder(name_or_dir, options)
    config, overrides, kwargs = _config_of(cls, folder, options, kwargs)
    if name_or_dir is not None:
        config.name_or_path = os.fspath(name_or_dir if is_remote(name_or_dir) else folder)
    model = cls.build_empty(config, *model_args, **kwargs)
    source = options.get("state_dict")
    if source is None:
        source = _weights_file(weights_of(folder, options, **_choice(options)), options)
    report = load_weights(model, source, cls.weight_map(), config,
                          allow_missing=cls.new_parameters, allow_unexpected=_dropped_layers(config, overrides, model),
                          ignore_mismatched_sizes=bool(options.get("ignore_mismatched_sizes")),
                          check_finite=bool(options.get("check_finite")), variant=options.get("variant"))
    model.init_parameters_data()
    if report.missing:
        logger.warning("%s: newly initialised, train before use: %s", type(model).__name__, ", ".join(report.missing))
    _read_generation_config(model, folder)
    model.set_train(False)
    if quantization is not None:
        model.quantize(quantization)
    if options.get("output_loading_info"):
        return model, {"missing_keys": list(report.missing), "unexpected_keys": list(report.unexpected),
                       "mismatched_keys": list(report.mismatched), "error_msgs": []}
    return model


def _refuse_other_frameworks(options):
    for key, framework in _OTHER_FRAMEWORKS.items():
        if options.get(key):
            raise UnsupportedError(f"{key}=True: {framework} weights are not read; save the model as safetensors with "
                                   "transformers first")


def _choice(options):
    """Which of the weights are meant."""
    return {"variant": options.get("variant"), "use_safetensors": options.get("use_safetensors")}


def _weights_file(path, options):
    """The file to open of a folder for which `use_safetensors` makes a choice; else `path` as it is."""
    if options.get("use_safetensors") is None or not os.path.isdir(path):
        return path
    return find_weights(Path(path), options.get("variant"), bool(options["use_safetensors"]))


def _folder(name_or_dir, options):
    """The local folder (or YAML, or known name); what a hub has is fetched."""
    if name_or_dir is None:
        return None
    subfolder = options.get("subfolder") or ""
    kind = "model" if options.get("state_dict") is None else "config"
    path = os.path.expanduser(local(name_or_dir, kind, options, subfolder=subfolder, **_choice(options)))
    return os.path.join(path, subfolder) if subfolder else path


def _config_of(cls, folder, options, kwargs):
    """Return (config, overridden fields, constructor kwargs); the config is no other model's."""
    given, dtype = options.get("config"), _wanted_dtype(options)
    if given is not None and not isinstance(given, (str, os.PathLike)):
        check_config(given, cls.config_class)
        _refuse_fields(cls, kwargs)
        config, overrides = copy.deepcopy(given), {}
    else:
        config, unused = cls.config_class.from_pretrained(given or folder, return_unused_kwargs=True,
                                                          **hub_options(options if given else None), **kwargs)
        overrides = {key: value for key, value in kwargs.items() if key not in unused}
        for key in unused:
            raise TypeError(f"from_pretrained got an unexpected keyword {key!r}."
                            f"{did_you_mean(key, {*_LOAD_KWARGS, *HUB_KWARGS, *cls.config_class.allowed_keys()})}")
        kwargs = {}
    if dtype not in (None, "auto"):
        wanted = {"param_init_type": dtype, "embedding_init_type": None}
        config = type(config).from_dict({**config.to_dict(), "name_or_path": config.name_or_path, **wanted})
    return config, overrides, kwargs


def _wanted_dtype(options):
    """The dtype asked for by either name, without torch's prefix; None when there is none."""
    found = {name: str(options[name]).replace("torch.", "").lower() for name in ("dtype", "torch_dtype")
             if options.get(name) is not None}
    if len(set(found.values())) > 1:
        raise ConfigError(f"dtype={options['dtype']!r} contradicts torch_dtype={options['torch_dtype']!r}; give one of "
                          "them")
    return next(iter(found.values()), None)


def _refuse_fields(cls, kwargs):
    """Raise ConfigError for fields beside a config object, which are no arguments of the constructor."""
    fields = cls.config_class.allowed_keys() if cls.config_class else set()
    for key in kwargs.keys() & fields - inspect.signature(cls.__init__).parameters.keys():
        raise ConfigError(f"{key}={kwargs[key]!r} does not change a config that is given as an object; set "
                          f"config.{key} before, or leave config= out")


def _dropped_layers(config, overrides, model):
    """Names of layers that an explicit, smaller ``num_layers`` leaves out."""
    if not {"num_layers", "num_hidden_layers"} & set(overrides):
        return ()
    return (rf"(.*\.)?layers\.({_at_least(config.num_layers)})\..*",)


def _at_least(first):
    """Regular expression of the integers >= first, below 1000."""
    return "|".join(str(number) for number in range(first, 1000))


def _read_generation_config(model, folder):
    if folder and os.path.isfile(os.path.join(folder, "generation_config.json")):
        object.__setattr__(model, "generation_config", GenerationConfig.from_pretrained(folder))


def check_folder(save_directory):
    """Raise ConfigError unless `save_directory` can name a folder."""
    if not isinstance(save_directory, (str, os.PathLike)) or not os.fspath(save_directory):
        raise ConfigError(f"save_directory must be the path of a folder, but is {save_directory!r}")


def _carried(auto_map, folder):
    """The entries of `auto_map` whose code can be found: in `folder`, or in a repository ("owner/name--file.Class").

    Of a list, as tokenizers have it (slow, fast or None), one is enough.
    """
    def found(reference):
        return "--" in reference or os.path.isfile(os.path.join(folder, f"{reference.split('.')[0]}.py"))

    return {auto_class: entry for auto_class, entry in (auto_map or {}).items()
            if any(map(found, [entry] if isinstance(entry, str) else filter(None, entry)))}


def save(model, save_directory, is_main_process=True, state_dict=None, push_to_hub=False, max_shard_size="5GB",
         safe_serialization=True, variant=None, token=None, save_name="mindspore_model", names="hf", format=None,
         **hub):
    """Write the model into `save_directory`.

    Args:
        save_directory (str): folder, made when missing.
        is_main_process (bool): False writes nothing. Default: True.
        state_dict (dict | None): arrays by MindFormers name in place of the model's own. Default: None.
        max_shard_size (int | str): largest file, such as "5GB". Default: "5GB".
        safe_serialization (bool): safetensors; False writes `.ckpt`. Default: True.
        names (str): "hf" (transformers loads the folder) or "mindformers". Default: "hf".
        format (str | None): "safetensors" or "ckpt"; None follows `safe_serialization`.
        variant (str | None): written into the file names. Default: None.
        push_to_hub (bool): upload what was written, in one commit. Default: False.
        token, **hub: where to, see `hub.upload.PUSH_OPTIONS`; `repo_id` defaults to the folder's name.

    Raises:
        TypeError: an unknown keyword.
        UnsupportedError: a quantised model.
        OSError: of a hub, see `hub.resolve`.
    """
    hub = {"token": token, **hub}
    check_push_options(hub)
    if model.quantization is not None:
        raise UnsupportedError(f"a model quantised to {model.quantization!r} is not saved; load it without "
                               "quantization= and save that")
    if not is_main_process:
        return
    format = format or ("safetensors" if safe_serialization else "ckpt")
    if format == "ckpt":
        names = "mindformers"
    arrays = state_dict if state_dict is not None else {p.name: p for p in model.get_parameters()}
    save_directory = make_folder(save_directory)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    with uploading(model, save_directory, hub) if push_to_hub else contextlib.nullcontext():
        # before the weights: a class that cannot be saved leaves nothing behind
        own = {} if model._auto_class is None else {model._auto_class: save_code(type(model), save_directory)}
        auto_map = {**_carried(vars(config).pop("auto_map", None), save_directory), **own}
        if auto_map:
            config.auto_map = auto_map
        save_weights(save_directory, arrays, names=names, format=format, max_shard_size=max_shard_size,
                     weight_map=type(model).weight_map(), config=model.config, variant=variant,
                     stem=save_name if names == "mindformers" else None)
        config.save_pretrained(save_directory, save_name=save_name, save_json=names == "hf")
        if names == "mindformers" and save_name == STEMS[names]:
            # that of an earlier save, whose weights are gone, would go before the YAML
            Path(save_directory, CONFIG_NAME).unlink(missing_ok=True)
        if model.can_generate():
            model.generation_config.save_pretrained(save_directory)
