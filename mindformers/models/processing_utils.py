"""ProcessorMixin: what turns a user's input into a model's input; for text, a tokenizer and its options."""
import contextlib
import json
import os
from pathlib import Path

import yaml

from mindformers.hub import PushToHubMixin
from mindformers.hub.upload import check_push_options, uploading
from mindformers.models import tokenization_files as files
from mindformers.models.build_tokenizer import build_tokenizer
from mindformers.models.custom_code import check_auto_class, save_code
from mindformers.models.tokenization_options import check_kwargs
from mindformers.models.tokenization_utils_base import PreTrainedTokenizerBase
from mindformers.tools.env import get_env
from mindformers.tools.logger import logger
from mindformers.tools.register.config import MindFormerConfig
from mindformers.tools.utils import atomic_write, make_folder

PROCESSOR_FILE = "processor_config.json"
PREPROCESSOR_FILE = "preprocessor_config.json"


class ProcessorMixin(PushToHubMixin):
    """Base of processors.

    Args:
        tokenizer (PreTrainedTokenizerBase | None): Default: None.
        max_length (int): length texts are padded to. Default: 128.
        padding (bool | str): as in a tokenizer's call. Default: "max_length".
        return_tensors (str | None): "ms", "np" or None. Default: "ms".

    Raises:
        TypeError: a tokenizer that is none.
    """

    attributes = ["tokenizer"]
    _auto_class = None

    def __init__(self, tokenizer=None, max_length=128, padding="max_length", return_tensors="ms"):
        if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
            raise TypeError(f"tokenizer must be a PreTrainedTokenizerBase, but got {type(tokenizer).__name__}")
        self.tokenizer, self.max_length = tokenizer, max_length
        self.padding, self.return_tensors = padding, return_tensors

    def __call__(self, text_input=None, image_input=None):
        """Return ``{"text": ids}`` of a text or a list of them, shape [B, max_length].

        Raises:
            ValueError: an image, no text, or no tokenizer.
        """
        if image_input is not None:
            raise ValueError(f"{type(self).__name__} takes text only, but got image_input")
        if text_input is None or self.tokenizer is None:
            raise ValueError(f"{type(self).__name__} needs text_input and a tokenizer")
        texts = [text_input] if isinstance(text_input, str) else text_input
        return {"text": self.tokenizer(texts, max_length=self.max_length, padding=self.padding, truncation=False,
                                       return_tensors=self.return_tensors)["input_ids"]}

    def __repr__(self):
        return f"{type(self).__name__}({self.to_dict()}, tokenizer={self.tokenizer!r})"

    def decode(self, *args, **kwargs):
        """The tokenizer's `decode`."""
        return self.tokenizer.decode(*args, **kwargs)

    def batch_decode(self, *args, **kwargs):
        """The tokenizer's `batch_decode`."""
        return self.tokenizer.batch_decode(*args, **kwargs)

    def apply_chat_template(self, *args, **kwargs):
        """The tokenizer's `apply_chat_template`."""
        return self.tokenizer.apply_chat_template(*args, **kwargs)

    @property
    def model_input_names(self):
        """Names a call of the tokenizer returns."""
        return self.tokenizer.model_input_names

    def to_dict(self):
        """The options, with the class name as "processor_class"."""
        return {"processor_class": type(self).__name__, "max_length": self.max_length, "padding": self.padding,
                "return_tensors": self.return_tensors}

    @classmethod
    def from_pretrained(cls, yaml_name_or_path=None, **kwargs):
        """Build the processor of a folder, a YAML or a known name; `kwargs` win over what is found.

        Raises:
            TypeError: not a str or path, or an unknown argument.
            FileNotFoundError: nothing there, or no tokenizer in it.
        """
        from mindformers.models.auto.tokenization_auto import AutoTokenizer
        name = kwargs.pop("pretrained_model_name_or_path", None) if yaml_name_or_path is None else yaml_name_or_path
        loading = {key: kwargs.pop(key) for key in files.LOADING_KEYS if key in kwargs}
        known = ("tokenizer", "max_length", "padding", "return_tensors")
        check_kwargs(kwargs, known, f"{cls.__name__}.from_pretrained")
        found = read_processor_config(name, loading)
        found = {key: value for key, value in found.items() if key in known[1:]}
        if "tokenizer" not in kwargs:
            kwargs["tokenizer"] = AutoTokenizer.from_pretrained(name, **loading)
        return cls(**{**found, **kwargs})

    def save_pretrained(self, save_directory=None, save_name="mindspore_model", file_format=None, push_to_hub=False,
                        **kwargs):
        """Write processor_config.json and the tokenizer's files; with ``file_format="yaml"`` a YAML too.

        ``push_to_hub=True`` uploads what was written, in one commit; `kwargs` say where to, see
        `hub.upload.PUSH_OPTIONS`.

        Returns:
            tuple[str]: paths of the files written.
        """
        check_push_options(kwargs)
        folder = get_env("CHECKPOINT_SAVE_FOLDER") if save_directory is None else save_directory
        if not isinstance(folder, (str, os.PathLike)) or not isinstance(save_name, str):
            raise TypeError(f"save_directory and save_name should be a str, but got {save_directory!r} and "
                            f"{save_name!r}")
        folder = make_folder(folder)
        with uploading(self, folder, kwargs) if push_to_hub else contextlib.nullcontext():
            return self._write(folder, save_name, file_format)

    def _write(self, folder, save_name, file_format):
        path = Path(folder) / PROCESSOR_FILE
        content = self.to_dict()
        if self._auto_class is not None:
            content["auto_map"] = {self._auto_class: save_code(type(self), folder)}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        written = [str(path)]
        if self.tokenizer is not None:
            written += self.tokenizer.save_pretrained(folder, save_name, file_format)
        if file_format == "yaml":
            path = Path(folder) / f"{save_name}.yaml"
            content = (yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None) or {}
            options = self.to_dict()
            content["processor"] = {**content.get("processor", {}), "type": options.pop("processor_class"), **options}
            with atomic_write(path) as temporary:
                temporary.write_text(yaml.safe_dump(content, allow_unicode=True, sort_keys=False), encoding="utf-8")
        return tuple(dict.fromkeys(written + ([str(path)] if file_format == "yaml" else [])))

    @classmethod
    def register_for_auto_class(cls, auto_class="AutoProcessor"):
        """Let `save_pretrained` copy the code of this class into the folder; processor_config.json names it.

        Raises:
            ValueError: another auto class than AutoProcessor.
        """
        cls._auto_class = check_auto_class(auto_class, "AutoProcessor")

    @classmethod
    def get_support_list(cls):
        """Names of configs/ whose YAML builds this processor."""
        return files.names_of_class(cls.__name__, "processor")

    @classmethod
    def show_support_list(cls):
        """Log `get_support_list`."""
        logger.info("support list of %s is: %s", cls.__name__, cls.get_support_list())


def read_processor_config(name_or_path, options=None):
    """Return the processor's own settings of a folder, YAML, name or repository as a dict; {} when it says nothing.

    "processor_class" holds the class name where one is named; `options` are arguments of the hubs.

    Raises:
        FileNotFoundError: no such folder or name.
    """
    return processor_settings(files.locate(name_or_path, (options or {}).get("subfolder") or "", options, "processor"))


def processor_settings(source):
    """Return the processor's own settings of a TokenizerSource; see `read_processor_config`."""
    for file_name in (PROCESSOR_FILE, PREPROCESSOR_FILE, files.CONFIG_FILE):
        path = source.find(file_name)
        if path is not None:
            held = files.read_json(path)
            if "processor_class" in held:
                return held if file_name != files.CONFIG_FILE else {"processor_class": held["processor_class"]}
    for path in source.yamls:
        section = MindFormerConfig(str(path)).get("processor") or {}
        if section.get("type"):
            settings = section.to_dict() if hasattr(section, "to_dict") else dict(section)
            settings.pop("tokenizer", None)
            return {"processor_class": settings.pop("type"), **settings}
    return {}


def processor_from_section(section, kind, base_dir=None):
    """Return ``kind(**section)`` with the section's tokenizer built."""
    arguments = {key: value for key, value in section.items() if key != "type"}
    if arguments.get("tokenizer") is not None and not isinstance(arguments["tokenizer"], PreTrainedTokenizerBase):
        arguments["tokenizer"] = build_tokenizer(arguments["tokenizer"], base_dir=base_dir)
    return kind(**arguments)
