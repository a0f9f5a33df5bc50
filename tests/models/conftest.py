"""One tokenizer of each kind."""
import pytest

from mindformers.models.llama import LlamaTokenizer, LlamaTokenizerFast
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast
from tokenization_helpers import MODEL, ROOT


@pytest.fixture(params=["slow", "fast", "llama3"])
def tokenizer(request):
    """Each kind, fresh, with a pad token."""
    made = {"slow": lambda: LlamaTokenizer(MODEL), "fast": lambda: LlamaTokenizerFast(MODEL),
            "llama3": lambda: PreTrainedTokenizerFast.from_pretrained(ROOT / "llama3")}[request.param]()
    made.pad_token = made.eos_token
    return made
