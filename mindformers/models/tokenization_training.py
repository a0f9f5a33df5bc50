"""A new vocabulary for a fast tokenizer: same normalizer, splitting, decoder and special tokens, other pieces."""
import json

from tokenizers import AddedToken, Tokenizer, pre_tokenizers, trainers

from mindformers.tools.errors import UnsupportedError

# model type of tokenizer.json -> (trainer, what empties the model's vocabulary)
_TRAINERS = {
    "BPE": (trainers.BpeTrainer, {"vocab": {}, "merges": []}),
    "Unigram": (trainers.UnigramTrainer, {"vocab": [], "unk_id": None}),
    "WordPiece": (trainers.WordPieceTrainer, {"vocab": {}}),
    "WordLevel": (trainers.WordLevelTrainer, {"vocab": {}}),
}


def train_backend(backend, text_iterator, vocab_size, length=None, new_special_tokens=None, special_tokens_map=None,
                  **options):
    """Return a new `tokenizers.Tokenizer` with the pipeline of `backend` and a vocabulary trained on texts.

    Args:
        backend (tokenizers.Tokenizer): the pipeline; it stays as it is.
        text_iterator (Iterable[str | list[str]]): texts, or batches of them.
        vocab_size (int): size of the new vocabulary, special tokens included.
        length (int | None): number of texts, for the progress bar. Default: None.
        new_special_tokens (list[str | AddedToken] | None): more special tokens. Default: None.
        special_tokens_map (dict[str, str] | None): new texts for present special tokens. Default: None.
        **options: for the trainer (`min_frequency`, `show_progress`, ...).

    Raises:
        UnsupportedError: a vocabulary with byte fallback, whose byte pieces no trainer here makes.
    """
    state = json.loads(backend.to_str())
    model = state["model"]
    if model.get("byte_fallback"):
        raise UnsupportedError("a vocabulary with byte fallback (Llama 1 and 2) is trained by SentencePiece: use "
                               "sentencepiece.SentencePieceTrainer, then LlamaTokenizer(vocab_file=...)")
    trainer, empty = _TRAINERS[model["type"]]
    model.update(empty)
    renamed = special_tokens_map or {}
    special = [_renamed(entry, renamed) for entry in sorted(state["added_tokens"], key=lambda entry: entry["id"])]
    special += [token if isinstance(token, AddedToken) else AddedToken(token, special=True)
                for token in new_special_tokens or () if str(token) not in {held.content for held in special}]
    processor, state["post_processor"], state["added_tokens"] = state["post_processor"], None, []
    new = Tokenizer.from_str(json.dumps(state))
    if "ByteLevel" in json.dumps(state["pre_tokenizer"]):
        options.setdefault("initial_alphabet", pre_tokenizers.ByteLevel.alphabet())
    if model.get("unk_token") is not None and model["type"] != "BPE":
        options.setdefault("unk_token", model["unk_token"])
    new.train_from_iterator(text_iterator, trainer(vocab_size=vocab_size, special_tokens=special, **options), length)
    if processor is not None:
        state = json.loads(new.to_str())
        state["post_processor"] = _with_new_ids(processor, renamed, new)
        new = Tokenizer.from_str(json.dumps(state))
    return new


def _renamed(entry, renamed):
    flags = {key: entry[key] for key in ("lstrip", "rstrip", "normalized", "single_word", "special")}
    return AddedToken(renamed.get(entry["content"], entry["content"]), **flags)


def _with_new_ids(node, renamed, tokenizer):
    """Return a post-processor (JSON) with its special tokens renamed and given their ids in `tokenizer`."""
    if isinstance(node, list):
        return [_with_new_ids(one, renamed, tokenizer) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: _with_new_ids(value, renamed, tokenizer) for key, value in node.items()}
    if node.get("type") == "TemplateProcessing":
        names = [renamed.get(name, name) for name in node["special_tokens"]]
        found["special_tokens"] = {name: {"id": name, "ids": [tokenizer.token_to_id(name)], "tokens": [name]}
                                   for name in names}
    if "SpecialToken" in node:
        held = node["SpecialToken"]
        found["SpecialToken"] = {**held, "id": renamed.get(held["id"], held["id"])}
    for key in ("sep", "cls"):  # of BertProcessing and RobertaProcessing
        if isinstance(node.get(key), list) and len(node[key]) == 2:
            name = renamed.get(node[key][0], node[key][0])
            found[key] = [name, tokenizer.token_to_id(name)]
    return found
