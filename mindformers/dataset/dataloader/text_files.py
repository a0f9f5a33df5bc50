"""Text to packed rows: files -> documents -> one token stream on disk -> rows of seq_length + 1."""
import hashlib
import json
import os

import numpy as np

from mindformers.dataset.dataloader.records import find_files, format_of, read_records, read_text, text_field
from mindformers.dataset.rows import TokenRows
from mindformers.dataset.text_encoder import build_text_encoder
from mindformers.dataset.token_store import (file_digest, locked, open_tokens, read_manifest, write_manifest,
                                             write_tokens)
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger
from mindformers.tools.utils import get_output_root_path

RECIPE = 1  # raised whenever the same files would give other tokens
CHUNK = 1 << 22  # characters tokenized at a time


def read_documents(path, file_format=None, text_col="text", read_function=None):
    """Yield the documents (str) of a file: a text file is one, a record file has one in the column `text_col` of each
    record, `read_function(path)` yields its own."""
    if read_function is not None:
        for index, item in enumerate(read_function(path)):
            yield text_field(item, text_col, f"{path}[{index}]") if isinstance(item, dict) else item
    elif format_of(path, file_format) == "text":
        yield read_text(path)
    else:
        for place, record in read_records(path, file_format):
            yield text_field(record, text_col, place)


def tokenize_documents(documents, encoder, add_bos=True, add_eos=True):
    """Yield int arrays of the tokens of `documents` (iterable of str), each as ``[bos] tokens [eos]``; empty documents
    are left out."""
    prefix = [encoder.bos_token_id] if add_bos and encoder.bos_token_id is not None else []
    suffix = [encoder.eos_token_id] if add_eos else []

    def tokens_of(chunk):
        return np.asarray([token for ids in encoder.encode(chunk) for token in (*prefix, *ids, *suffix)], np.int32)

    chunk, size = [], 0
    for document in documents:
        if not document:
            continue
        chunk.append(document)
        size += len(document)
        if size >= CHUNK:
            yield tokens_of(chunk)
            chunk, size = [], 0
    if chunk:
        yield tokens_of(chunk)


def cached_tokens(files, encoder, cache_dir=None, read_function=None, **options):
    """Return the token stream (memmap [N]) of `files`, tokenized once and kept in `cache_dir`.

    The cache is keyed by the content of the files, the tokenizer and the options; a damaged one is refused.

    Args:
        files (list[str]): files in order.
        encoder (TextEncoder): the tokenizer.
        cache_dir (str): default ``<output root>/dataset_cache``.
        read_function (callable): see `read_documents`.
        options: `file_format`, `text_col`, `add_bos`, `add_eos`.
    """
    if options["add_eos"] and encoder.eos_token_id is None:
        raise ConfigError("the tokenizer has no eos token to end documents with; give the tokenizer one or set "
                          "add_eos: False")
    reader = f"{read_function.__module__}:{read_function.__qualname__}" if read_function else None
    recipe = {"recipe": RECIPE, "files": [file_digest(name) for name in files], "tokenizer": encoder.fingerprint(),
              "reader": reader, **options}
    key = hashlib.blake2b(json.dumps(recipe, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder = os.path.join(cache_dir or os.path.join(get_output_root_path(), "dataset_cache"), key)
    with locked(folder):
        if read_manifest(folder) is None:
            logger.info("Tokenizing %d files into %s", len(files), folder)
            how = (options["file_format"], options["text_col"], read_function)
            documents = (document for name in files for document in read_documents(name, *how))
            parts = tokenize_documents(documents, encoder, options["add_bos"], options["add_eos"])
            count = write_tokens(os.path.join(folder, "tokens.npy"), parts, encoder.vocab_size)
            write_manifest(folder, ["tokens.npy"], tokens=count, vocab_size=encoder.vocab_size, recipe=recipe)
    return open_tokens(os.path.join(folder, "tokens.npy"))


class TextFilesDataLoader(TokenRows):
    """Rows packed from text files or records (YAML: ``type: TextFilesDataLoader``).

    Documents become ``<s> tokens </s>``, are joined in order, and cut into rows of seq_length + 1 (see TokenRows).

    Args:
        dataset_dir (str): folder (walked) or file; or
        dataset_files (list[str]): the files, in this order.
        tokenizer: see `build_text_encoder`; the job's tokenizer when not given in a YAML.
        seq_length (int): rows have seq_length + 1 tokens; or
        max_length (int): tokens of a row, seq_length + 1. Default: 1025.
        file_format (str): jsonl, json, csv, tsv or text; and in a folder the extension of the files to take. Default:
            by extension, all files of a folder.
        text_col (str): column of the text in record files. Default: "text".
        column_names (list[str]): ["input_ids", "labels"] (default) or ["input_ids"].
        add_bos, add_eos (bool): whether documents start with bos and end with eos. Default: True.
        read_function (callable): ``path -> iterable`` of texts or records, instead of the formats above.
        cache_dir (str): see `cached_tokens`.
        shuffle (bool): new order in each epoch. Default: None, the dataset decides.

    Raises:
        ValueError: neither dataset_dir nor dataset_files.
        FileNotFoundError: nothing at the path.
        ConfigError: a file without the text column, a bad JSON line, no text at all.
    """

    def __init__(self, dataset_dir=None, dataset_files=None, tokenizer=None, seq_length=None, max_length=None,
                 file_format=None, text_col="text", column_names=("input_ids", "labels"), add_bos=True, add_eos=True,
                 read_function=None, cache_dir=None, shuffle=None):
        width = row_width(seq_length, max_length)
        check_token_columns(column_names)
        suffix = f".{file_format.lstrip('.')}" if file_format and file_format != "text" else ""
        files = find_files(dataset_dir, dataset_files, lambda name: name.endswith(suffix), suffix or "text")
        encoder = build_text_encoder(tokenizer)
        tokens = cached_tokens(files, encoder, cache_dir, read_function, file_format=file_format,
                               text_col=text_col or "text", add_bos=add_bos, add_eos=add_eos)
        if not len(tokens):
            raise ConfigError(f"{dataset_dir or dataset_files} holds no text: every document is empty")
        self.vocab_size = encoder.vocab_size
        super().__init__(tokens, width - 1, "labels" in column_names, filling_token(encoder), shuffle)


def filling_token(encoder):
    """Return what to fill incomplete rows with: pad, else eos, else 0 (the labels say that it does not count)."""
    return next((token for token in (encoder.pad_token_id, encoder.eos_token_id) if token is not None), 0)


def row_width(seq_length, max_length, default=1025):
    """Return the tokens of a row from `seq_length` (one less) or `max_length`; ConfigError when they contradict."""
    if seq_length is not None and max_length not in (None, seq_length + 1):
        raise ConfigError(f"max_length counts the tokens of a row and must be seq_length + 1 = {seq_length + 1}, but "
                          f"got {max_length}; give one of the two")
    return seq_length + 1 if seq_length is not None else max_length or default


def check_token_columns(column_names):
    """ConfigError unless `column_names` are what packed rows have: input_ids, or input_ids and labels."""
    if tuple(column_names) not in (("input_ids",), ("input_ids", "labels")):
        raise ConfigError(f"packed rows have the columns ['input_ids', 'labels'] or ['input_ids'], but "
                          f"{list(column_names)} was asked for")


class TrainingDataLoader(TextFilesDataLoader):
    """TextFilesDataLoader under MindFormers' name and arguments.

    Args:
        dataset_dir, column_names, tokenizer, max_length, text_col, file_format, read_function, shuffle: as there.
        is_align (bool): rows of one length; only True is carried.
        samples_num (int): take at most this many rows. Default: all.
        skip_num (int): leave out the first rows. Default: 0.
        dataset_name (str), file_limit, process_num (int): accepted; the text is read as its format says.

    Raises:
        UnsupportedError: is_align False.
    """

    def __init__(self, dataset_dir, column_names=("input_ids", "labels"), tokenizer=None, dataset_name="",
                 is_align=True, max_length=1025, text_col="text", file_format=None, read_function=None, shuffle=None,
                 samples_num=None, skip_num=0, file_limit=1, process_num=1):
        if not is_align:
            raise UnsupportedError("TrainingDataLoader: is_align: False (rows of different lengths) is not carried; "
                                   "packed rows lose nothing, and SFTDataLoader with dynamic_batch: True keeps "
                                   "samples apart")
        super().__init__(dataset_dir, tokenizer=tokenizer, max_length=max_length, text_col=text_col,
                         file_format=file_format, column_names=column_names, read_function=read_function,
                         shuffle=shuffle)
        self.skip_num = skip_num
        rows = self._length - skip_num if samples_num is None else min(samples_num, self._length - skip_num)
        if rows < 1:
            raise ConfigError(f"skip_num: {skip_num} leaves none of the {self._length} rows")
        self._length = rows

    def take(self, indices):
        return super().take(np.asarray(indices) + self.skip_num)
