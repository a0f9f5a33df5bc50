"""Special tokens of a tokenizer: bos, eos, unk, sep, pad, cls, mask and any number of additional ones."""
from tokenizers import AddedToken

from mindformers.tools.errors import did_you_mean

NAMED_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def as_added_token(value, special=True):
    """Return `value` (str, AddedToken, or the dict form of a JSON file) as an AddedToken.

    Raises:
        TypeError: any other type.
    """
    if isinstance(value, AddedToken):
        return value
    if isinstance(value, str):
        return AddedToken(value, special=special, normalized=not special)
    if isinstance(value, dict) and isinstance(value.get("content"), str):
        flags = {key: bool(value[key]) for key in ("lstrip", "rstrip", "normalized", "single_word") if key in value}
        return AddedToken(value["content"], special=bool(value.get("special", special)), **flags)
    raise TypeError(f"a token must be a str or AddedToken, but got {type(value).__name__}: {value!r}")


def added_token_to_dict(token, with_special=True):
    """Return the dict form that tokenizer_config.json and special_tokens_map.json use."""
    fields = {"content": token.content, "lstrip": token.lstrip, "normalized": token.normalized, "rstrip": token.rstrip,
              "single_word": token.single_word}
    return {**fields, "special": token.special} if with_special else fields


class SpecialTokensMixin:
    """Named special tokens with getters, setters and ids.

    ``bos_token`` and the like give the text (or None), ``bos_token_id`` the id (or None); both can be set to a token
    that is in the vocabulary. Tokens a model names itself (`extra_special_tokens={"image_token": "<image>"}`) get the
    same two attributes.

    Args:
        bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token (str | AddedToken | None)
        additional_special_tokens (list[str | AddedToken] | None): more of them. Default: none.
        extra_special_tokens (list | dict | None): the newer spelling: a list means `additional_special_tokens`,
            a dict names tokens. Default: none.
    """

    SPECIAL_TOKENS_ATTRIBUTES = [*NAMED_SPECIAL_TOKENS, "additional_special_tokens"]

    def __init__(self, verbose=False, **kwargs):
        self.verbose = verbose
        self._pad_token_type_id = 0
        self._special_tokens = {}
        self._additional_special_tokens = []
        extra = kwargs.pop("extra_special_tokens", None) or []
        for key in NAMED_SPECIAL_TOKENS:
            value = kwargs.pop(key, None)
            self._special_tokens[key] = None if value is None else as_added_token(value)
        additional = kwargs.pop("additional_special_tokens", None) or []
        if isinstance(extra, dict):
            for key, value in extra.items():
                self._special_tokens[key] = as_added_token(value)
        else:
            additional = [*additional, *(token for token in extra if token not in additional)]
        if isinstance(additional, (str, dict, AddedToken)):
            raise TypeError(f"additional_special_tokens must be a list of tokens, but got {additional!r}")
        self._additional_special_tokens = _unique(as_added_token(token) for token in additional)
        if kwargs:
            raise TypeError(f"unknown special token names {sorted(kwargs)}; known: "
                            f"{', '.join(self.SPECIAL_TOKENS_ATTRIBUTES)}")

    def __getattr__(self, name):
        # only called when normal lookup failed: a token the model named itself, or a miss
        named = self.__dict__.get("_special_tokens", {})
        key = name[:-len("_id")] if name.endswith("_token_id") else name
        if key in named:
            return self._named_token(key) if key == name else self._named_id(key)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}."
                             f"{did_you_mean(name, [*named, *dir(type(self)), *self.__dict__])}")

    def _named_token(self, key):
        token = self._special_tokens.get(key)
        return None if token is None else token.content

    def _named_id(self, key):
        token = self._special_tokens.get(key)
        return None if token is None else self.convert_tokens_to_ids(token.content)

    def _set_named(self, key, value):
        if value is None:
            self._special_tokens[key] = None
            return
        token = as_added_token(value)
        self._require_in_vocab(token.content, key)
        self._special_tokens[key] = token

    def _set_named_id(self, key, value):
        self._set_named(key, None if value is None else self._token_of_id(value, key))

    def _token_of_id(self, index, key):
        if isinstance(index, bool) or not isinstance(index, int):
            raise TypeError(f"{key}_id must be an int or None, but got {type(index).__name__}: {index!r}")
        if not 0 <= index < len(self):
            raise ValueError(f"{key}_id {index} is outside the vocabulary of {len(self)} tokens")
        return self.convert_ids_to_tokens(index)

    def _require_in_vocab(self, content, key):
        if content not in self.get_vocab():
            raise ValueError(f"{key} {content!r} is not in the vocabulary; add it with "
                             f"add_special_tokens({{{key!r}: {content!r}}}) and resize the model's embeddings")

    @property
    def additional_special_tokens(self):
        """Special tokens without a name, list of str."""
        return [token.content for token in self._additional_special_tokens]

    @additional_special_tokens.setter
    def additional_special_tokens(self, values):
        tokens = [as_added_token(value) for value in values or []]
        for token in tokens:
            self._require_in_vocab(token.content, "additional_special_tokens")
        self._additional_special_tokens = _unique(tokens)

    @property
    def additional_special_tokens_ids(self):
        """Their ids, list of int."""
        return self.convert_tokens_to_ids(self.additional_special_tokens)

    @additional_special_tokens_ids.setter
    def additional_special_tokens_ids(self, values):
        self.additional_special_tokens = [self._token_of_id(v, "additional_special_tokens") for v in values or []]

    @property
    def extra_special_tokens(self):
        """Newer name of `additional_special_tokens`."""
        return self.additional_special_tokens

    @extra_special_tokens.setter
    def extra_special_tokens(self, values):
        self.additional_special_tokens = values

    @property
    def pad_token_type_id(self):
        """Token type of padding, 0."""
        return self._pad_token_type_id

    @property
    def special_tokens_map(self):
        """``{"bos_token": "<s>", ..., "additional_special_tokens": [...]}`` of those that are set, texts."""
        return _texts(self.special_tokens_map_extended)

    @property
    def special_tokens_map_extended(self):
        """Like `special_tokens_map`, with AddedToken objects."""
        found = {key: token for key, token in self._special_tokens.items() if token is not None}
        if self._additional_special_tokens:
            found["additional_special_tokens"] = list(self._additional_special_tokens)
        return found

    @property
    def all_special_tokens_extended(self):
        """Every special token once, AddedToken objects, named ones first."""
        named = [token for token in self._special_tokens.values() if token is not None]
        return _unique([*named, *self._additional_special_tokens])

    @property
    def all_special_tokens(self):
        """Every special token once, texts."""
        return [token.content for token in self.all_special_tokens_extended]

    @property
    def all_special_ids(self):
        """Ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    def add_special_tokens(self, special_tokens_dict, replace_additional_special_tokens=True):
        """Set named special tokens and add those that are missing to the vocabulary.

        Args:
            special_tokens_dict (dict): keys of `SPECIAL_TOKENS_ATTRIBUTES` (or "extra_special_tokens"); values a
                token, or a list of tokens for the additional ones.
            replace_additional_special_tokens (bool): the given additional tokens replace the present ones (which stay
                in the vocabulary), else they are appended. Default: True.

        Returns:
            int: how many tokens are new; resize the model's embeddings when it is not 0.

        Raises:
            TypeError: not a dict, or a value that is no token.
            ValueError: an unknown key; the message names the nearest.
        """
        if not isinstance(special_tokens_dict, dict):
            raise TypeError(f"special_tokens_dict must be a dict, but got {type(special_tokens_dict).__name__}; "
                            f"for plain tokens use add_tokens(list)")
        added = 0
        for key, value in special_tokens_dict.items():
            if key in ("additional_special_tokens", "extra_special_tokens") and not isinstance(value, dict):
                if isinstance(value, (str, AddedToken)) or not isinstance(value, (list, tuple)):
                    raise TypeError(f"{key} must be a list of tokens, but got {value!r}")
                tokens = [as_added_token(token) for token in value]
                added += self._add_tokens(tokens, special_tokens=True)
                kept = [] if replace_additional_special_tokens else self._additional_special_tokens
                self._additional_special_tokens = _unique([*kept, *tokens])
                continue
            named = value if key == "extra_special_tokens" else {key: value}
            for name, token in named.items():
                if name not in self._special_tokens and key != "extra_special_tokens":
                    known = [*self._special_tokens, "additional_special_tokens"]
                    raise ValueError(f"{name!r} is not a special token name; known: {', '.join(known)}."
                                     f"{did_you_mean(name, known)}")
                token = as_added_token(token)
                added += self._add_tokens([token], special_tokens=True)
                self._special_tokens[name] = token
        return added

    def add_tokens(self, new_tokens, special_tokens=False):
        """Add tokens to the end of the vocabulary; those already in it keep their id.

        Args:
            new_tokens (str | AddedToken | list): tokens that are found whole inside a text from now on.
            special_tokens (bool): decode may skip them. Default: False.

        Returns:
            int: how many tokens are new.
        """
        if not new_tokens:
            return 0
        if not isinstance(new_tokens, (list, tuple)):
            new_tokens = [new_tokens]
        tokens = [as_added_token(token, special=special_tokens) for token in new_tokens]
        return self._add_tokens(tokens, special_tokens=special_tokens)

    def sanitize_special_tokens(self):
        """Add special tokens that are missing from the vocabulary; returns how many were."""
        return self._add_tokens(self.all_special_tokens_extended, special_tokens=True)


def _unique(tokens):
    return list({token.content: token for token in tokens}.values())


def _texts(tokens_map):
    return {key: [token.content for token in value] if isinstance(value, list) else value.content
            for key, value in tokens_map.items()}


def _token_property(key):
    return property(lambda self: self._named_token(key), lambda self, value: self._set_named(key, value),
                    doc=f"Text of the {key.replace('_', ' ')}, or None.")


def _id_property(key):
    return property(lambda self: self._named_id(key), lambda self, value: self._set_named_id(key, value),
                    doc=f"Id of the {key.replace('_', ' ')}, or None.")


for _key in NAMED_SPECIAL_TOKENS:
    setattr(SpecialTokensMixin, _key, _token_property(_key))
    setattr(SpecialTokensMixin, f"{_key}_id", _id_property(_key))
