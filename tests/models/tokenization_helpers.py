"""Tokenizers and texts that the tokenizer tests share."""
from pathlib import Path

from mindformers.models.llama import LlamaTokenizer
from mindformers.models.tokenization_utils_fast import PreTrainedTokenizerFast

ROOT = Path(__file__).resolve().parents[1] / "reference" / "tokenizers"
MODEL = str(ROOT / "llama2" / "tokenizer.model")
SLOW, PLAIN = LlamaTokenizer(MODEL), LlamaTokenizer(MODEL, legacy=False)
THIRD = PreTrainedTokenizerFast.from_pretrained(ROOT / "llama3")
TEXTS = ["Hello world", "x", "a longer text that is cut somewhere"]
