"""Real text on every machine: the source of the Python standard library, with a tokenizer trained on it."""
import hashlib
import json
import os
import platform
import re
import sysconfig

import numpy as np

from mindformers.dataset.rows import TokenRows
from mindformers.dataset.text_encoder import TextEncoder, build_text_encoder
from mindformers.dataset.token_store import locked, open_tokens, read_manifest, write_manifest, write_tokens
from mindformers.tools.errors import ConfigError
from mindformers.tools.logger import logger
from mindformers.tools.utils import atomic_write

RECIPE = 1  # raised whenever the same sources would give other tokens
SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")  # ids 0, 1, 2, 3
# Folders without prose or programs: tests, tables of code points, help texts, build products, third parties
SKIPPED_FOLDERS = {"__pycache__", "__phello__", "dist-packages", "encodings", "idle_test", "lib-dynload", "pydoc_data",
                   "site-packages", "test", "tests", "turtledemo"}
VALIDATION_SHARE = 32  # one file in 32
DOCUMENT_LENGTH = 2000  # characters after which a file may be cut before a top-level def, class or decorator

# Pieces that never merge, in order of preference: indentation; line ends; all but the last of several spaces; dunder
# names; words with the space before them; underscores; single digits; punctuation; whatever is left.
PIECES = (r"(?<=\n) +|\n+| +(?= )| ?__\p{L}+__| ?\p{L}+|_+| ?\p{N}| ?[^\s\p{L}\p{N}_]+|\s")
_LITERAL_LINE = re.compile(r"""\s*[(\[{]*\s*(?:[rbu]*(["'])(?:\\.|(?!\1).)*\1|"""
                           r"""-?[\d.]+(?:[eE][-+]?\d+)?|0[xX][0-9a-fA-F]+)\s*(?:[,:)\]}]|$)""")
_TOP_LEVEL = re.compile(r"^(?=(?:async def|def|class) |@)", re.MULTILINE)


def find_source_files(root=None):
    """Return the sorted paths, relative to `root`, of the source files under it that are worth reading.

    Left out: `SKIPPED_FOLDERS`, generated files, and files that are mostly a table of literals.
    """
    root = root or sysconfig.get_paths()["stdlib"]
    found = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and not name.startswith("config-")]
        found += [os.path.relpath(os.path.join(folder, name), root) for name in names
                  if name.endswith(".py") and not name.startswith("_sysconfigdata")]
    return [name for name in sorted(found) if not is_table(read_source(os.path.join(root, name)))]


def read_source(path):
    """Return the text of a source file with line ends \\n; undecodable bytes become U+FFFD."""
    with open(path, encoding="utf-8", errors="replace", newline=None) as file:
        return file.read()


def is_table(text, share=0.4):
    """Whether `text` is empty or more than `share` of its non-empty lines are nothing but literals."""
    lines = [line for line in text.split("\n") if line.strip()]
    return sum(bool(_LITERAL_LINE.match(line)) for line in lines) >= share * len(lines)


def split_documents(text):
    """Cut `text` into documents of at least DOCUMENT_LENGTH characters (except the last), each starting at a top-level
    def, class or decorator, so that a model sees these at the start of a document too; joined they are `text`."""
    cuts, start = [], 0
    for match in _TOP_LEVEL.finditer(text):
        decorated = text[:match.start()].rpartition("\n")[0].rpartition("\n")[2].startswith("@")
        if match.start() - start >= DOCUMENT_LENGTH and not decorated:
            cuts.append(match.start())
            start = match.start()
    return [text[low:high] for low, high in zip([0, *cuts], [*cuts, len(text)])]


def is_validation_file(name):
    """Whether the file `name` (relative path) is held out: one in VALIDATION_SHARE, by the hash of its name."""
    digest = hashlib.blake2b(name.replace(os.sep, "/").encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % VALIDATION_SHARE == 0


def train_tokenizer(texts, vocab_size):
    """Train a byte-level BPE (`tokenizers.Tokenizer`) on `texts`; any text is encoded without loss."""
    # pylint: disable-next=C0415
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PIECES), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", SPECIAL_TOKENS.index("<s>"))])
    return tokenizer


def split_leading_spaces(ids, encoder, rate, seed=0):
    """Write a share `rate` of the tokens " word" in `ids` (int [N]) as " " and "word"; the text stays the same.

    A prompt that ends in a space ("def ") ends in a token that training text would never end a piece with; this way the
    model has seen it. Returns int [M], M >= N.
    """
    vocabulary = encoder.tokenizer.get_vocab()
    space = vocabulary.get("\u0120")  # how byte-level BPE spells a space
    rest = np.full(encoder.vocab_size, -1)
    for token, index in vocabulary.items():
        if len(token) > 1 and token[0] == "\u0120" and token[1:] in vocabulary:
            rest[index] = vocabulary[token[1:]]
    chosen = (rest[ids] >= 0) & (np.random.Generator(np.random.PCG64(seed)).random(len(ids)) < rate)
    split = np.repeat(ids, 1 + chosen)
    second = np.cumsum(1 + chosen)[chosen] - 1
    split[second] = rest[ids[chosen]]
    split[second - 1] = space
    return split


def prepare_python_source(folder, vocab_size=8192, tokenizer=None, space_split_rate=0.05, root=None):
    """Prepare the corpus in `folder`, or find it prepared there; return the manifest (dict).

    Writes train.npy and val.npy (token streams of documents ``<s> text </s>``, split by file), tokenizer.json and
    tokenizer_config.json when the tokenizer is trained here, and at last manifest.json. Several processes may call it
    at once: one prepares, the others wait. A prepared folder is used as it is, whatever Python is running.

    Args:
        folder (str): where to write.
        vocab_size (int): size of the tokenizer to train, specials included. Default: 8192.
        tokenizer: use this one instead of training one (see `build_text_encoder`). Default: None.
        space_split_rate (float): see `split_leading_spaces`; only for a tokenizer trained here. Default: 0.05.
        root (str): folder of the sources. Default: the running Python's standard library.

    Raises:
        ConfigError: `folder` was prepared with other settings or is damaged; no source files, or too few for
            `vocab_size`.
    """
    encoder = build_text_encoder(tokenizer) if tokenizer is not None else None
    settings = {"recipe": RECIPE, "vocab_size": encoder.vocab_size if encoder else vocab_size,
                "tokenizer": encoder.fingerprint() if encoder else "trained here",
                "space_split_rate": 0.0 if encoder else space_split_rate}
    with locked(folder):
        facts = read_manifest(folder)
        if facts is None:
            facts = _prepare(folder, encoder, settings, root)
    differing = {key: (facts["settings"].get(key), value) for key, value in settings.items()
                 if facts["settings"].get(key) != value}
    if differing:
        raise ConfigError(f"{folder!r} was prepared with other settings (there, asked for): {differing}; name another "
                          f"folder or delete this one")
    return facts


def _prepare(folder, encoder, settings, root):
    root = root or sysconfig.get_paths()["stdlib"]
    names = find_source_files(root)
    if not names:
        raise ConfigError(f"no Python source files under {root!r}")
    logger.info("Preparing %d files of the Python standard library in %s", len(names), folder)
    texts = {name: read_source(os.path.join(root, name)) for name in names}
    held_out = [name for name in names if is_validation_file(name)]
    train = [name for name in names if name not in held_out]
    written = ["train.npy", "val.npy"]
    if encoder is None:
        trained = train_tokenizer((texts[name] for name in train), settings["vocab_size"])
        if trained.get_vocab_size() != settings["vocab_size"]:
            raise ConfigError(f"the {len(train)} files give a tokenizer of {trained.get_vocab_size()} tokens, not the "
                              f"{settings['vocab_size']} of vocab_size")
        _save_tokenizer(trained, folder)
        written += ["tokenizer.json", "tokenizer_config.json"]
        encoder = TextEncoder(trained)
    splits = {}
    for split, members, rate in (("train", train, settings["space_split_rate"]), ("val", held_out, 0.0)):
        documents = [part for name in members for part in split_documents(texts[name])]
        streams = [np.asarray([encoder.bos_token_id, *ids, encoder.eos_token_id]) for ids in encoder.encode(documents)]
        if rate and streams:
            streams = [split_leading_spaces(np.concatenate(streams), encoder, rate)]
        tokens = write_tokens(os.path.join(folder, f"{split}.npy"), streams, encoder.vocab_size)
        splits[split] = {"files": len(members), "documents": len(documents), "tokens": tokens,
                         "characters": sum(len(texts[name]) for name in members)}
    digest = hashlib.blake2b("\0".join(name + "\0" + texts[name] for name in names).encode(), digest_size=16)
    return write_manifest(folder, written, settings=settings, splits=splits, validation_files=held_out,
                          sources=digest.hexdigest(), python=platform.python_version(),
                          special_ids={name: getattr(encoder, name) for name in
                                       ("bos_token_id", "eos_token_id", "pad_token_id")})


def _save_tokenizer(tokenizer, folder):
    """Write tokenizer.json and tokenizer_config.json (Hugging Face's files) to `folder`."""
    unk, bos, eos, pad = SPECIAL_TOKENS
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": unk, "bos_token": bos, "eos_token": eos,
              "pad_token": pad, "clean_up_tokenization_spaces": False}
    for name, text in (("tokenizer.json", tokenizer.to_str(pretty=True)),
                       ("tokenizer_config.json", json.dumps(config, indent=2))):
        with atomic_write(os.path.join(folder, name)) as temporary:
            temporary.write_text(text, encoding="utf-8")


class PythonSourceDataLoader(TokenRows):
    """Rows of the standard library's source, prepared at the first use (YAML: ``type: PythonSourceDataLoader``).

    Args:
        dataset_dir (str): folder of the prepared data. Default: "./output/tiny_data".
        split (str): "train" or "val". Default: "train".
        seq_length (int): rows have seq_length + 1 tokens. Default: 512.
        vocab_size (int), tokenizer, space_split_rate: see `prepare_python_source`.
        column_names (list[str]): ["input_ids", "labels"] (default) or ["input_ids"].
        shuffle (bool): new order in each epoch. Default: None, the dataset decides.
    """

    def __init__(self, dataset_dir="./output/tiny_data", split="train", seq_length=512, vocab_size=8192, tokenizer=None,
                 space_split_rate=0.05, column_names=("input_ids", "labels"), shuffle=None):
        self.manifest = prepare_python_source(dataset_dir, vocab_size, tokenizer, space_split_rate)
        if split not in self.manifest["splits"]:
            raise ConfigError(f"split must be one of {sorted(self.manifest['splits'])}, but got {split!r}")
        self.vocab_size = self.manifest["settings"]["vocab_size"]
        pad = self.manifest["special_ids"]["pad_token_id"]
        super().__init__(open_tokens(os.path.join(dataset_dir, f"{split}.npy")), seq_length, "labels" in column_names,
                         self.manifest["special_ids"]["eos_token_id"] if pad is None else pad, shuffle)
