"""AutoProcessor: the processor of a folder, a YAML or a known name."""
from mindformers.models import tokenization_files as files
from mindformers.models.auto.configuration_auto import CONFIG_MAPPING
from mindformers.models.auto.lazy_mapping import LazyMapping
from mindformers.models.auto.remote_code import CodeSource, load_remote_class, remote_reference
from mindformers.models.config_sources import known_names
from mindformers.models.hub_sources import is_remote, pinned
from mindformers.models.processing_utils import (
    PREPROCESSOR_FILE,
    PROCESSOR_FILE,
    processor_settings,
    read_processor_config,
)
from mindformers.tools.errors import did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

PROCESSOR_MAPPING_NAMES = {"llama": "LlamaProcessor", "glm2": "GLMProcessor"}
# configuration class name -> processor class
PROCESSOR_MAPPING = LazyMapping("PROCESSOR_MAPPING",
                                {"LlamaConfig": "mindformers.models.llama.llama_processor:LlamaProcessor",
                                 "ChatGLM2Config": "mindformers.models.glm2.glm_processor:GLMProcessor"})


def processor_class_from_name(class_name):
    """Return the processor class of a name, built-in or registered, or None."""
    if MindFormerRegister.is_exist(MindFormerModuleType.PROCESSOR, class_name):
        return MindFormerRegister.get_cls(MindFormerModuleType.PROCESSOR, class_name)
    return next((one for one in PROCESSOR_MAPPING.values() if one.__name__ == class_name), None)


class AutoProcessor:
    """Not constructible: `AutoProcessor.from_pretrained` chooses the class and builds it."""

    def __init__(self):
        raise EnvironmentError("AutoProcessor is not constructible; use AutoProcessor.from_pretrained(name_or_folder)")

    @classmethod
    def from_pretrained(cls, yaml_name_or_path=None, trust_remote_code=None, **kwargs):
        """Build the processor of a folder, a YAML, a known name or a repository, with the tokenizer it finds there.

        The class is what the YAML's ``processor.type`` or the ``processor_class`` of processor_config.json,
        preprocessor_config.json or tokenizer_config.json names, else the one of config.json's model type.

        Args:
            yaml_name_or_path (str | PathLike): also as `pretrained_model_name_or_path`.
            trust_remote_code (bool | None): run code of the folder that ``auto_map`` names. Default: None, never.
            **kwargs: arguments of the processor, which win; `subfolder`, and `revision`, `token`, ... of the hubs.

        Raises:
            TypeError: not a str or path, or an unknown argument.
            FileNotFoundError: nothing there.
            ValueError: no processor class fits, or code that is not trusted.
        """
        name = kwargs.pop("pretrained_model_name_or_path", None) if yaml_name_or_path is None else yaml_name_or_path
        subfolder = kwargs.get("subfolder") or ""
        source = files.locate(name, subfolder, kwargs, "processor")
        kwargs = pinned(kwargs, source.folder) if is_remote(name) else kwargs
        settings = processor_settings(source)
        class_name = settings.get("processor_class")
        kind = processor_class_from_name(class_name) if class_name else None
        remote = remote_reference(settings.get("auto_map"), "AutoProcessor")
        if remote and kind is None:
            code = CodeSource(name, str(source.folder), trust_remote_code, kwargs, subfolder)
            kind = load_remote_class(code, remote, "AutoProcessor")
        if kind is None and class_name:
            names = MindFormerRegister.names(MindFormerModuleType.PROCESSOR)
            raise ValueError(f"processor_class {class_name!r} of {name} is not carried here; known: {', '.join(names)}."
                             f"{did_you_mean(class_name, names)}")
        if kind is None:
            kind = _class_of_config(source)
        return kind.from_pretrained(name, trust_remote_code=trust_remote_code, **kwargs)

    @staticmethod
    def register(config_class, processor_class, exist_ok=False):
        """Add the processor of a configuration class.

        Raises:
            ValueError: the configuration class has one already and `exist_ok` is False.
        """
        PROCESSOR_MAPPING.register(config_class.__name__, processor_class, exist_ok)

    @classmethod
    def get_support_list(cls):
        """Return ``{model type: [names]}`` of the names whose YAML builds a processor."""
        found = {}
        for name in known_names():
            class_name = read_processor_config(name).get("processor_class")
            for model_type, held in PROCESSOR_MAPPING_NAMES.items():
                if held == class_name:
                    found.setdefault(model_type, []).append(name)
        return found

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of AutoProcessor is: %s", cls.get_support_list())


def _class_of_config(source):
    path = source.find("config.json")
    model_type = None if path is None else files.read_json(path).get("model_type")
    if model_type in CONFIG_MAPPING:
        kind = PROCESSOR_MAPPING.get(CONFIG_MAPPING[model_type].__name__)
        if kind is not None:
            return kind
    raise ValueError(f"no processor for {source.name}: looked for a YAML with processor.type, for processor_class in "
                     f"{PROCESSOR_FILE}, {PREPROCESSOR_FILE} and {files.CONFIG_FILE}, and for a known model_type in "
                     f"config.json (found {model_type!r})")
