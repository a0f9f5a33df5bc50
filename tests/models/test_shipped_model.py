"""The small Llama that is shipped completes Python: by its perplexity on text it never saw, and by what it writes."""
import ast
import math
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest

from mindformers import AutoModelForCausalLM, AutoTokenizer
from mindformers.dataset.dataloader.python_source import is_validation_file, split_documents

ROOT = Path(__file__).resolve().parents[2]
FOLDER = str(ROOT / "configs" / "tiny" / "llama_tiny")
HELD_OUT = {"concurrent/futures/_base.py": "concurrent_futures_base.txt", "xml/sax/saxutils.py": "xml_sax_saxutils.txt"}
LENGTH = 512

PROMPTS = ["import os\n\ndef ", "def add(self, item):\n", "if __name__ == ", "try:\n    import "]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype="float32")  # no rounding decides what is likeliest


@pytest.fixture(scope="module")
def untrained(model):
    ms.set_seed(0)
    return AutoModelForCausalLM.from_config(model.config).set_train(False)


def perplexity(model, rows):
    """Per target token over rows of token ids."""
    loss = tokens = 0
    for row in rows:
        loss += float(model([row], labels=[row]).loss.asnumpy()) * (len(row) - 1)
        tokens += len(row) - 1
    return math.exp(loss / tokens)


def whole_statements(text):
    """The syntax tree of the longest beginning of `text` that is whole statements."""
    lines = text.split("\n")
    for count in range(len(lines), 0, -1):
        try:
            return ast.parse("\n".join(lines[:count]))
        except SyntaxError:
            continue
    return ast.Module([], [])


def completions(model, tokenizer):
    encoded = tokenizer(PROMPTS, padding=True, padding_side="left", return_tensors="np")
    rows = model.generate(encoded["input_ids"], attention_mask=encoded["attention_mask"], max_new_tokens=96,
                          do_sample=False)
    texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    assert all(text.startswith(prompt) for prompt, text in zip(PROMPTS, texts))
    return [whole_statements(text).body for text in texts]


def test_the_text_was_held_out():
    assert all(is_validation_file(name) for name in HELD_OUT)
    assert not is_validation_file("os.py")


def test_perplexity_on_text_it_never_saw(model, untrained, tokenizer):
    rows = []
    for name in HELD_OUT.values():
        text = (ROOT / "tests" / "fixtures" / "held_out" / name).read_text(encoding="utf-8")
        rows += [tokenizer(document).input_ids[:LENGTH] for document in split_documents(text)]
    found = perplexity(model, rows)
    print(f"perplexity {found:.2f} on {sum(map(len, rows))} tokens")
    assert found < 25
    mixed = [np.random.default_rng(0).permutation(row).tolist() for row in rows]
    assert perplexity(model, mixed) > 10 * found  # the order of the tokens is what it knows
    assert perplexity(untrained, rows[:1]) > 100 * found


def test_greedy_completions_are_python(model, tokenizer):
    imported, add, main, guarded = completions(model, tokenizer)
    assert isinstance(imported[0], ast.Import) and isinstance(imported[1], ast.FunctionDef)
    assert isinstance(add[0], ast.FunctionDef) and add[0].name == "add"
    for function in (imported[1], add[0]):  # a docstring that speaks of something, and a result
        assert len(ast.get_docstring(function).split()) >= 3
        assert any(isinstance(node, ast.Return) for node in ast.walk(function))
    (test,) = [node.test for node in main if isinstance(node, ast.If)]
    assert ast.unparse(test) == "__name__ == '__main__'" and len(main[0].body) >= 1
    assert isinstance(guarded[0], ast.Try)
    assert {handler.type.id for handler in guarded[0].handlers} <= {"ImportError", "ModuleNotFoundError", "OSError"}


def test_an_untrained_model_does_not(untrained, tokenizer):
    """The checks above are none that any text passes."""
    with pytest.raises((AssertionError, IndexError, AttributeError, ValueError)):
        test_greedy_completions_are_python(untrained, tokenizer)
