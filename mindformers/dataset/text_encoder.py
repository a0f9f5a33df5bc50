"""From whatever the user calls a tokenizer to what data preparation needs: text -> ids without special tokens."""
import hashlib
import json
import os

from mindformers.tools.errors import ConfigError
from mindformers.tools.register.register import MindFormerModuleType, MindFormerRegister

_PROBE = "def f(x):\n    return [x, 'é', \"漢字\", 10]  # </s> <s>\n"


class TextEncoder:
    """Text to token ids, with no special token added and none recognised inside the text where the tokenizer allows it.

    Args:
        tokenizer: a tokenizer object of this suite or of transformers (`__call__(texts, add_special_tokens=False)`), or
            a `tokenizers.Tokenizer`.
        bos_token_id, eos_token_id, pad_token_id (int | None): override the tokenizer's own.
    """

    def __init__(self, tokenizer, bos_token_id=None, eos_token_id=None, pad_token_id=None):
        self.tokenizer = tokenizer
        self._is_raw = hasattr(tokenizer, "encode_batch") and hasattr(tokenizer, "token_to_id")
        if self._is_raw:
            tokenizer.encode_special_tokens = True
            self.vocab_size = tokenizer.get_vocab_size()
        else:
            self.vocab_size = len(tokenizer)
        self.bos_token_id = self._special("bos_token_id", "<s>", bos_token_id)
        self.eos_token_id = self._special("eos_token_id", "</s>", eos_token_id)
        self.pad_token_id = self._special("pad_token_id", "<pad>", pad_token_id)

    def _special(self, name, token, given):
        if given is not None:
            return given
        return self.tokenizer.token_to_id(token) if self._is_raw else getattr(self.tokenizer, name, None)

    def encode(self, texts):
        """Return the token ids of each of `texts` (list of str) as a list of lists."""
        if self._is_raw:
            return [encoding.ids for encoding in self.tokenizer.encode_batch(texts, add_special_tokens=False)]
        plain = {"split_special_tokens": True} if hasattr(self.tokenizer, "split_special_tokens") else {}
        return self.tokenizer(texts, add_special_tokens=False, padding=False, truncation=False, **plain)["input_ids"]

    def decode(self, ids):
        """Return the text of `ids`."""
        return self.tokenizer.decode([int(token) for token in ids], skip_special_tokens=False)

    def fingerprint(self):
        """Return a hash (hex) that changes when the tokenizer would encode anything else."""
        if self._is_raw:
            vocabulary = self.tokenizer.to_str()
        else:
            vocabulary = json.dumps(sorted(self.tokenizer.get_vocab().items()))
        state = [vocabulary, self.encode([_PROBE]), self.bos_token_id, self.eos_token_id, self.pad_token_id]
        return hashlib.blake2b(json.dumps(state).encode(), digest_size=16).hexdigest()


def build_text_encoder(tokenizer, **special_ids):
    """Return a TextEncoder of `tokenizer`.

    Args:
        tokenizer: TextEncoder, tokenizer object, ``{"type": ..., ...}`` of the registry, or a path: a tokenizer.json, a
            SentencePiece ``*.model``, or a folder with one of them.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`, when the tokenizer's own are not to be used.

    Raises:
        ConfigError: no tokenizer.
        FileNotFoundError: the path holds no tokenizer.
    """
    if isinstance(tokenizer, TextEncoder):
        return tokenizer
    if tokenizer is None:
        raise ConfigError("text needs a tokenizer: give data_loader.tokenizer (a folder with tokenizer.json or "
                          "tokenizer.model, or {type: ..., vocab_file: ...}), or processor.tokenizer for the whole job")
    if isinstance(tokenizer, dict):
        tokenizer = MindFormerRegister.get_instance_from_cfg(dict(tokenizer), MindFormerModuleType.TOKENIZER)
    elif isinstance(tokenizer, (str, os.PathLike)):
        tokenizer = _open_tokenizer(os.fspath(tokenizer))
    return TextEncoder(tokenizer, **special_ids)


def _open_tokenizer(path):
    candidates = [path] if os.path.isfile(path) else [os.path.join(path, name)
                                                      for name in ("tokenizer.json", "tokenizer.model")]
    found = next((name for name in candidates if os.path.isfile(name)), None)
    if found is None:
        raise FileNotFoundError(f"no tokenizer at {path!r}: expected a tokenizer.json or tokenizer.model, or a folder "
                                f"with one of them")
    if found.endswith(".json"):
        from tokenizers import Tokenizer  # pylint: disable=C0415
        return Tokenizer.from_file(found)
    return MindFormerRegister.get_instance(MindFormerModuleType.TOKENIZER, "LlamaTokenizer", vocab_file=found)
