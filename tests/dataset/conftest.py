"""A tokenizer for the data tests."""
import pytest

from mindformers.dataset.dataloader.python_source import train_tokenizer
from mindformers.dataset.text_encoder import TextEncoder

TEXT = """def add(first, second):
    return first + second


class Stack:
    def push(self, item):
        self.items.append(item)
"""


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer of 300 tokens: <unk> 0, <s> 1, </s> 2, <pad> 3."""
    return train_tokenizer([TEXT] * 3, 300)


@pytest.fixture(scope="session")
def encoder(tokenizer):
    """Its TextEncoder."""
    return TextEncoder(tokenizer)


@pytest.fixture(scope="session")
def tokenizer_file(tokenizer, tmp_path_factory):
    """The path of its tokenizer.json."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)
