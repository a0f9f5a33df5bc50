"""How the name of a repository on a hub looks: ``owner/name``, or with a prefix such as ``hf://owner/name``."""
import re

PREFIXES = {"hf": "huggingface", "huggingface": "huggingface", "openmind": "openmind", "modelers": "openmind"}
PART = r"[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_-])?"
_REPO = re.compile(rf"{PART}/{PART}", re.ASCII)
# a name that ends so is a file that is not there
_FILES = (".yaml", ".yml", ".json", ".ckpt", ".safetensors", ".bin", ".model", ".txt", ".py", ".jsonl", ".git")


def is_owner_and_name(text):
    """Whether `text` has the form owner/name, and is not the name of a file."""
    return bool(_REPO.fullmatch(text)) and not text.lower().endswith(_FILES) and ".." not in text and "--" not in text


def looks_like_repository(text):
    """Whether `text` could name a repository; nothing is looked up."""
    prefix, separator, _ = text.partition("://")
    return prefix in PREFIXES if separator else is_owner_and_name(text)
