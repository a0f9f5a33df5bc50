"""GenerationConfig: every setting of `generate`, checked when it is set. Imports neither MindSpore nor a model."""
import contextlib
import copy
import json
import os

from mindformers.generation.generation_fields import ALIASES, FIELDS, REFUSED, refuse
from mindformers.hub import HUB_OPTIONS, PushToHubMixin, is_repo_name, resolve
from mindformers.hub.upload import check_push_options, uploading
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write, make_folder

CONFIG_FILE = "generation_config.json"
# bookkeeping of transformers' files: no setting, dropped when read
_FILE_KEYS = ("transformers_version", "_from_model_config", "_commit_hash", "generation_kwargs")
# a model config's own meaning of these differs (training, forward outputs), so they are not read from it
_NOT_FROM_MODEL = ("use_cache", "use_past", "output_attentions", "output_hidden_states", "seed", "level",
                   "cache_config", "window_size", "constraints", "decoder_start_token_id")


class GenerationConfig(PushToHubMixin):
    """Settings of one generation, under MindFormers' and Hugging Face's names.

    Every assignment is checked: a wrong type is a TypeError, a value out of bounds a ValueError, an unknown name a
    ConfigError with the nearest known one, a setting that is not carried an UnsupportedError that says what to use.
    None sets a field back to its default, where None is no value of its own (`top_k` and `top_p`: off).

    Args:
        max_length (int): tokens of prompt and answer together, per row. Alias `max_decode_length`. Default: 20.
        max_new_tokens (int): tokens of the answer; wins over `max_length`. Default: None.
        min_length (int): no end token before prompt and answer have this many tokens. Default: 0.
        min_new_tokens (int): no end token before the answer has this many tokens. Default: None.
        max_time (float): seconds after which no further token is begun. Default: None.
        stop_strings (str | list[str]): the answer ends with the token that completes one; needs `tokenizer=` in
            `generate`. Default: None.
        do_sample (bool): draw from the distribution instead of taking its maximum. Default: False.
        use_cache (bool): keep keys and values between steps. Alias `use_past`. Default: True.
        num_beams (int): beams per prompt; more than 1 is beam search. Default: 1.
        length_penalty (float): a beam's score is its log probability / tokens ** length_penalty. Default: 1.0.
        early_stopping (bool | "never"): True ends with `num_beams` finished beams, False when no better one is
            likely, "never" when no better one is possible. Default: False.
        num_return_sequences (int): answers per prompt. Default: 1.
        seed (int | list[int]): start of the random streams; a list has one per prompt. None draws a fresh one.
        temperature (float): logits are divided by it, > 0. Default: 1.0.
        top_k (int): keep the `top_k` most likely tokens, 0 keeps all. Default: 50.
        top_p (float): keep the smallest set of most likely tokens whose probability reaches `top_p`, including the
            token that crosses it (Holtzman et al., 2019). 1.0 keeps all. Default: 1.0.
        min_p (float): keep tokens with at least `min_p` times the highest probability. Default: None.
        repetition_penalty (float): of tokens seen, positive logits are divided and negative ones multiplied by it
            (Keskar et al., 2019). Default: 1.0.
        frequency_penalty (float): subtracted from a logit once per time the token was seen. Default: 0.0.
        presence_penalty (float): subtracted from the logit of each token seen. Default: 0.0.
        no_repeat_ngram_size (int): n-grams of this size occur once; 0 is off. Default: 0.
        bad_words_ids (list[list[int]]): token sequences that may not appear. Default: None.
        suppress_tokens, begin_suppress_tokens (list[int]): tokens never drawn, or not drawn first. Default: None.
        forced_bos_token_id, forced_eos_token_id (int): forced first and last token. Default: None.
        remove_invalid_values (bool): replace NaN and infinities in the logits instead of raising. Default: False.
        renormalize_logits (bool): return scores as log probabilities. Default: False.
        return_dict_in_generate, output_scores, output_logits (bool): see `GenerateOutput`. Default: False.
        pad_token_id (int), bos_token_id (int), eos_token_id (int | list[int]): special tokens; what is not given
            comes from the model's config. Default: None, None, [].
    """

    def __init__(self, **kwargs):
        object.__setattr__(self, "_explicit", set())
        for name, field in FIELDS.items():
            object.__setattr__(self, name, copy.copy(field.default))
        for name, refused in REFUSED.items():
            object.__setattr__(self, name, refused.default)
        for name, value in _canonical(kwargs).items():
            setattr(self, name, value)

    def __setattr__(self, name, value):
        name = ALIASES.get(name, name)
        if name in REFUSED:
            refuse(name, value)
        elif name in FIELDS and value is None and FIELDS[name].none_is_default:
            object.__setattr__(self, name, FIELDS[name].default)
            self._explicit.discard(name)
        elif name in FIELDS:
            object.__setattr__(self, name, FIELDS[name].check(name, value))
            self._explicit.add(name)
        else:
            raise ConfigError(f"{name!r} is no generation setting.{did_you_mean(name, known_names())}")

    def __getattr__(self, name):
        if name in ALIASES:
            return getattr(self, ALIASES[name])
        raise AttributeError(f"GenerationConfig has no setting {name!r}.{did_you_mean(name, known_names())}")

    def __eq__(self, other):
        return isinstance(other, GenerationConfig) and self.to_dict() == other.to_dict()

    __hash__ = None

    def __repr__(self):
        return f"GenerationConfig {json.dumps(self.to_diff_dict(), indent=2)}"

    def __deepcopy__(self, memo):
        new = GenerationConfig.__new__(GenerationConfig)
        memo[id(self)] = new
        new.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return new

    def __copy__(self):
        return copy.deepcopy(self)

    def is_explicit(self, name):
        """Whether setting `name` was given (by the caller, a file or a model config) and is no default."""
        return name in self._explicit

    def update(self, **kwargs):
        """Set the known settings of `kwargs` and return the others as a dict; nothing is set when one is faulty."""
        known = {name: value for name, value in kwargs.items() if name in known_names()}
        trial = copy.deepcopy(self)
        for name, value in _canonical(known).items():
            setattr(trial, name, value)
        self.__dict__.update(trial.__dict__)
        return {name: value for name, value in kwargs.items() if name not in known}

    def to_dict(self):
        """Return all settings as a dict, in the order of the documentation."""
        return {name: copy.deepcopy(self.__dict__[name]) for name in (*FIELDS, *REFUSED)}

    def to_diff_dict(self):
        """Return the settings that differ from the defaults."""
        return {name: copy.deepcopy(self.__dict__[name]) for name, field in FIELDS.items()
                if self.__dict__[name] != field.default}

    @classmethod
    def from_dict(cls, config_dict, return_unused_kwargs=False, **kwargs):
        """Build from a dict; `kwargs` win over it.

        Args:
            config_dict (dict): settings.
            return_unused_kwargs (bool): return ``(config, unknown settings)`` instead of raising on unknown ones.

        Raises:
            TypeError: `config_dict` is no dict.
            ConfigError: an unknown name, without `return_unused_kwargs`.
        """
        if not isinstance(config_dict, dict):
            raise TypeError(f"from_dict takes a dict, but got {type(config_dict).__name__}")
        given = {**_canonical(config_dict), **_canonical(kwargs)}
        given = {name: value for name, value in given.items() if name not in _FILE_KEYS}
        if not return_unused_kwargs:
            return cls(**given)
        names = known_names()
        return (cls(**{name: value for name, value in given.items() if name in names}),
                {name: value for name, value in given.items() if name not in names})

    @classmethod
    def from_model_config(cls, model_config):
        """Take the generation settings that a model config carries; its other keys are left alone.

        Args:
            model_config (PretrainedConfig | dict): a model's configuration.

        Raises:
            UnsupportedError: the config switches on something that is not carried (`parallel_decoding=True`).
        """
        values = model_config if isinstance(model_config, dict) else vars(model_config)
        config, names = cls(), [*ALIASES, *FIELDS, *REFUSED]
        for name in names:  # aliases first, so that the canonical name wins
            missing = None if isinstance(model_config, dict) else getattr(model_config, name, None)
            value = values.get(name, missing)
            if value is None or name in _NOT_FROM_MODEL or (name.endswith("token_id") and value == -1):
                continue
            try:
                setattr(config, name, value)
            except (TypeError, ValueError) as error:
                raise type(error)(f"the model config has a faulty generation setting: {error}") from error
        return config

    @classmethod
    def from_pretrained(cls, pretrained_model_name, config_file_name=CONFIG_FILE, **kwargs):
        """Read ``generation_config.json`` of a folder or a repository of a hub, or the JSON file itself.

        `kwargs` win over the file; `subfolder` and the arguments of the hubs (`revision`, `token`, ...) say where a
        repository's file is, see `hub.resolve`. Keys of the file that are no generation settings are named in a
        warning.

        Raises:
            FileNotFoundError: no such file.
            ConfigError: the file is no JSON object, or has a faulty setting.
            OSError: of a hub, see `hub.resolve`.
        """
        options = {key: kwargs.pop(key) for key in HUB_OPTIONS if key in kwargs}
        path, subfolder = os.path.expanduser(os.fspath(pretrained_model_name)), kwargs.pop("subfolder", None) or ""
        if not os.path.exists(path) and is_repo_name(path):
            path = resolve(path, kind="generation_config", subfolder=subfolder, **options)
        path = os.path.join(path, subfolder) if subfolder else path
        path = os.path.join(path, config_file_name) if os.path.isdir(path) else path
        if not os.path.isfile(path):
            raise FileNotFoundError(f"no generation config at {path!r}: give a folder that has {config_file_name}, "
                                    f"or a JSON file")
        with open(path, encoding="utf-8") as file:
            try:
                values = json.load(file)
            except ValueError as error:
                raise ConfigError(f"{path} is not valid JSON: {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path} must hold a JSON object, but holds a {type(values).__name__}")
        unknown = sorted(set(values) - known_names() - set(_FILE_KEYS))
        if unknown:
            logger.warning("%s: not generation settings, ignored: %s", path, ", ".join(unknown))
        # null in a file means "not set"
        given = {name: value for name, value in values.items() if name not in unknown and value is not None}
        return cls.from_dict(given, **kwargs)

    def save_pretrained(self, save_directory, config_file_name=CONFIG_FILE, push_to_hub=False, **kwargs):
        """Write the settings that differ from the defaults to ``save_directory/generation_config.json``.

        ``push_to_hub=True`` uploads it; `kwargs` say where to, see `hub.upload.PUSH_OPTIONS`.

        Raises:
            NotADirectoryError: `save_directory` is a file.
            TypeError: an unknown keyword.
            OSError: of a hub, see `hub.resolve`.
        """
        check_push_options(kwargs)
        save_directory = make_folder(save_directory)
        text = json.dumps(self.to_diff_dict(), indent=2, sort_keys=True) + "\n"
        with uploading(self, save_directory, kwargs) if push_to_hub else contextlib.nullcontext():
            with atomic_write(os.path.join(save_directory, config_file_name)) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def validate(self):
        """Check the settings against each other.

        Raises:
            ValueError: two settings that cannot both be met; the message names both values.
        """
        if self.max_new_tokens is not None and (self.min_new_tokens or 0) > self.max_new_tokens:
            raise ValueError(f"min_new_tokens={self.min_new_tokens} is more than max_new_tokens="
                             f"{self.max_new_tokens}")
        if self.max_new_tokens is None and self.min_length > self.max_length:
            raise ValueError(f"min_length={self.min_length} is more than max_length={self.max_length}")
        answers, beams = self.num_return_sequences, self.num_beams
        if beams > 1 and answers > beams:
            raise ValueError(f"num_return_sequences={answers} is more than num_beams={beams}")
        if beams == 1 and answers > 1 and not self.do_sample:
            raise ValueError(f"num_return_sequences={answers} would return one greedy answer {answers} times; use "
                             f"do_sample=True, or num_beams={answers} or more")


def known_names():
    """Return the set of every name that GenerationConfig takes, aliases and refused ones included."""
    return {*FIELDS, *ALIASES, *REFUSED}


def _canonical(kwargs):
    """Replace aliases by their fields; a field given by its own name wins over its alias."""
    result = {ALIASES[name]: value for name, value in kwargs.items() if name in ALIASES}
    result.update({name: value for name, value in kwargs.items() if name not in ALIASES})
    return result
