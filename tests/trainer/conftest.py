"""A tokenizer that the prediction tests share, and graph mode again after tests that leave it."""
import mindspore as ms
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers


@pytest.fixture(autouse=True)
def graph_mode_afterwards():
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory):
    """A tokenizer of single bytes: 256 of them and four specials."""
    specials = ["<unk>", "<s>", "</s>", "<pad>"]
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {token: number for number, token in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return str(path)
