"""Files of text and records: every reader yields ``(place, record)``, where place is "file:line" for messages."""
import csv
import json
import os

from mindformers.tools.errors import ConfigError, UnsupportedError

TABULAR = {"csv": ",", "tsv": "\t"}
RECORD_FORMATS = ("jsonl", "json", *TABULAR)
HANDLED_ELSEWHERE = {"parquet": "jsonl", "arrow": "jsonl", "mindrecord": "data_loader type MindDataset",
                     "tfrecord": "mindrecord with data_loader type MindDataset"}


def find_files(dataset_dir=None, dataset_files=None, matches=lambda name: True, what="data"):
    """Return the files to read, sorted within a folder.

    Args:
        dataset_dir (str): a folder, walked with its subfolders (names starting with a dot are left out), or one file.
        dataset_files (str | list[str]): the files themselves, in this order.
        matches (callable): ``file name -> bool``; for folders only.
        what (str): what to call such files in messages.

    Raises:
        ValueError: neither is given.
        FileNotFoundError: a path is not there, or the folder has no such file.
    """
    if dataset_files:
        files = [dataset_files] if isinstance(dataset_files, (str, os.PathLike)) else list(dataset_files)
        missing = [name for name in files if not os.path.isfile(name)]
        if missing:
            raise FileNotFoundError(f"dataset_files: {missing[0]!r} is no file")
        return [os.fspath(name) for name in files]
    if not dataset_dir:
        raise ValueError("data_loader must contain dataset_dir or dataset_files")
    if os.path.isfile(dataset_dir):
        return [os.fspath(dataset_dir)]
    if not os.path.isdir(dataset_dir):
        raise FileNotFoundError(f"dataset_dir {os.fspath(dataset_dir)!r} does not exist")
    found = []
    for folder, subfolders, names in os.walk(dataset_dir):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [os.path.join(folder, name) for name in names if not name.startswith(".") and matches(name)]
    if not found:
        raise FileNotFoundError(f"dataset_dir {os.fspath(dataset_dir)!r} has no {what} files")
    return sorted(found)


def format_of(path, file_format=None):
    """Return the format of a file: `file_format`, else its extension; anything that is no record format is plain text.

    Raises:
        UnsupportedError: a format that is read elsewhere or has to be converted.
    """
    kind = (file_format or os.path.splitext(path)[1]).lower().lstrip(".")
    if kind in HANDLED_ELSEWHERE:
        raise UnsupportedError(f"{path}: {kind} files are not read as text; use {HANDLED_ELSEWHERE[kind]}")
    return kind if kind in RECORD_FORMATS else "text"


def read_text(path):
    """Return the text of a UTF-8 file; ConfigError when it is not UTF-8."""
    try:
        with open(path, encoding="utf-8", newline=None) as file:
            return file.read()
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def read_records(path, file_format=None):
    """Yield ``(place, record)`` of a jsonl (one object a line; blank lines are skipped), json (a list of objects), csv
    or tsv file (first line: names of the columns).

    Raises:
        ConfigError: a line that is no JSON object, with file:line.
    """
    kind = format_of(path, file_format)
    if kind == "jsonl":
        for number, line in enumerate(read_text(path).split("\n"), 1):
            if line.strip():
                yield f"{path}:{number}", _json_object(line, f"{path}:{number}")
    elif kind == "json":
        yield from _read_json(path)
    elif kind in TABULAR:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, delimiter=TABULAR[kind])
            for record in reader:
                yield f"{path}:{reader.line_num}", record
    else:
        raise ConfigError(f"{path} holds no records: expected one of {', '.join(RECORD_FORMATS)}; say file_format when "
                          f"the extension does not")


def _json_object(text, place):
    try:
        record = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place}: not valid JSON: {error.msg} at column {error.colno}") from None
    if not isinstance(record, dict):
        raise ConfigError(f"{place}: expected a JSON object, but got {type(record).__name__}")
    return record


def _read_json(path):
    text = read_text(path)
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        hint = " (one object a line? then say file_format: jsonl)" if error.msg == "Extra data" else ""
        raise ConfigError(f"{path}:{error.lineno}: not valid JSON: {error.msg} at column {error.colno}{hint}") from None
    records = [records] if isinstance(records, dict) else records
    if not isinstance(records, list):
        raise ConfigError(f"{path}: expected a list of JSON objects, but got {type(records).__name__}")
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise ConfigError(f"{path}: element {index} is no JSON object, but {type(record).__name__}")
        yield f"{path}[{index}]", record


def text_field(record, name, place):
    """Return the text ``record[name]``; ConfigError names the place and the columns that are there."""
    if name not in record:
        raise ConfigError(f"{place}: no text column {name!r}; the columns are {sorted(map(str, record))}; set text_col")
    if not isinstance(record[name], str):
        raise ConfigError(f"{place}: column {name!r} must be text, but is {type(record[name]).__name__}")
    return record[name]
