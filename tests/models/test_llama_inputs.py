"""Llama and what it is fed: packed documents that do not see each other, and prompts of any length in one graph."""
import mindspore as ms
import numpy as np
import pytest
from mindspore.graph.api import _cell_graph_executor

from mindformers import LlamaConfig, LlamaForCausalLM, kernels
from mindformers.dataset.causal_language_model_dataset import CausalLanguageModelDataset
from mindformers.dataset.rows import ArrayRows
from tests.graph_mode import graph_mode  # noqa: F401

EOD = 2


def small(**fields):
    """A two-layer model with random weights."""
    ms.set_seed(0)
    config = LlamaConfig(num_layers=2, hidden_size=32, num_heads=4, n_kv_heads=2, intermediate_size=48, vocab_size=64,
                         seq_length=64, pad_token_id=None, param_init_type="float32", compute_dtype="float32",
                         **fields)
    return LlamaForCausalLM(config)


def test_documents_of_a_packed_row_equal_documents_one_by_one():
    """Sum of the token losses of a row read with `eod_reset`, against each document alone."""
    model = small(calculate_per_token_loss=True).set_train()
    for weight in model.get_parameters():  # attention that matters: at its initial size it hardly does
        if "attention.w" in weight.name:
            weight.set_data(weight * 20)
    rng = np.random.default_rng(1)
    documents = [np.append(rng.integers(3, 64, length), EOD) for length in (5, 9, 3)]
    row = np.concatenate(documents).astype(np.int32)[None]
    labels = row.copy()
    labels[0, np.cumsum([len(document) for document in documents])[:-1]] = -100  # first of a document: no target

    def packed(**settings):
        dataset = CausalLanguageModelDataset(data_loader=ArrayRows({"input_ids": row, "labels": labels}), batch_size=1,
                                             **settings)
        return [float(part.asnumpy()) for part in model(*map(ms.Tensor, next(dataset.create_tuple_iterator(
            output_numpy=True).__iter__())))]

    alone = [model(ms.Tensor(document[None].astype(np.int32))) for document in documents]
    expected = [sum(float(part[index].asnumpy()) for part in alone) for index in (0, 1)]
    total, count = packed(eod_reset=True, eod_token_id=EOD)
    assert count == expected[1] == len(row[0]) - 3
    assert total == pytest.approx(expected[0], rel=1e-5)
    assert abs(packed()[0] - expected[0]) > 1e-3 * expected[0]  # control: documents that see each other


def test_new_prompt_lengths_do_not_compile_again(monkeypatch):
    compiled = []
    executor = type(_cell_graph_executor)
    compile_graph = executor.compile

    def counting(self, cell, *args, **kwargs):
        phase, is_new = compile_graph(self, cell, *args, **kwargs)
        compiled.extend([type(cell).__name__] * is_new)
        return phase, is_new

    monkeypatch.setattr(executor, "compile", counting)
    model = small().set_train(False)

    def use(length):
        model.generate(list(range(3, 3 + length)), max_new_tokens=3, do_sample=False)
        model(np.arange(3, 3 + length)[None])

    use(5)
    steps = {"EmbedGraph", "CachedStepGraph"} if kernels.form() == "portable" else set()
    assert set(compiled) == {"ForwardGraph"} | steps  # the counter sees compilations
    first = len(compiled)
    for length in (2, 6, 9, 11):
        use(length)
    assert compiled[first:] == []
