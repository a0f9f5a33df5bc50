"""Whole models on native kernels: equal to the portable form, right in bfloat16 and int8, safe in threads and forks."""
import multiprocessing
import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest

from mindformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from mindformers.kernels import library
from mindformers.tools.errors import ConfigError, UnsupportedError
from tests.graph_mode import eagerly

SHIPPED = Path(__file__).resolve().parents[2] / "configs" / "tiny" / "llama_tiny"
pytestmark = pytest.mark.skipif(not library.verdict().usable, reason=f"no native library: {library.verdict().reason}")
TEXT = (Path(os.__file__).parent / "textwrap.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tokens():
    return np.array(AutoTokenizer.from_pretrained(str(SHIPPED)).encode(TEXT), np.int32)[:1536]


def shipped(monkeypatch, form, **kwargs):
    monkeypatch.setenv("MF_KERNELS", "portable" if form == "portable" else "")
    return AutoModelForCausalLM.from_pretrained(str(SHIPPED), **kwargs)


def step_logits(model, tokens, prompt=37, steps=40):
    """Logits [steps + 1, V] of a prompt and of tokens fed one by one."""
    with model.make_cache(1, prompt + steps) as cache:
        rows = [model.forward_step(tokens[None, :prompt], [prompt], cache)[0]]
        for i in range(prompt, prompt + steps):
            rows.append(model.forward_step(tokens[None, i:i + 1], [1], cache)[0])
    return np.stack(rows)


def perplexity(model, tokens, length=256):
    """Perplexity of rows of `length` tokens, each on its own."""
    rows = tokens[:len(tokens) // length * length].reshape(-1, length)
    losses = [float(model(row[None], labels=row[None]).loss.asnumpy()) for row in rows]
    return float(np.exp(np.mean(losses)))


@pytest.fixture(scope="module", name="portable")
def _portable(tokens):
    """The model in float32 and plain ops, and its logits: what the others are held to."""
    with pytest.MonkeyPatch.context() as patch:
        model = shipped(patch, "portable", dtype="float32")
        return model, step_logits(model, tokens)


@pytest.fixture(scope="module", name="reference")
def _reference(tokens):
    """Perplexity of the model as it is shipped."""
    with pytest.MonkeyPatch.context() as patch:
        return perplexity(shipped(patch, "native"), tokens)


def test_float32_equals_the_portable_form_token_for_token(monkeypatch, tokens, portable):
    (portable, expected), native = portable, shipped(monkeypatch, "native", dtype="float32")
    found = step_logits(native, tokens)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() <= 1e-5 * scale
    assert np.abs(found[1:] - expected[:-1]).max() > 1e-2 * scale  # one position off is told apart
    with eagerly():
        expected = portable(tokens[None, :64]).logits.asnumpy()
    assert np.abs(native(tokens[None, :64]).logits.asnumpy() - expected).max() <= 1e-5 * scale
    prompts = [tokens[:9].tolist(), tokens[100:131].tolist()]
    answers = [model.generate(prompts, max_new_tokens=128, min_new_tokens=128, do_sample=False)
               for model in (portable, native)]
    for one, other in zip(*answers):
        assert list(one) == list(other)


def test_bfloat16_stays_within_rounding_of_float32(monkeypatch, tokens, portable):
    _, exact = portable
    native = step_logits(shipped(monkeypatch, "native", dtype="bfloat16"), tokens)
    # the weights are bfloat16 in both; activations, keys and values round to 8 bits at each of the 4 products and the
    # attention of 8 layers, errors that add up like a random walk: 2^-9 * sqrt(8 * 6) = 1.4 % of the logits' spread
    error = np.sqrt(np.mean((native - exact) ** 2)) / exact.std()
    assert error < 0.014, error
    assert (np.argmax(native, -1) == np.argmax(exact, -1)).mean() > 0.9


@pytest.mark.parametrize("quantization", ["int8", "int8:64"])
def test_int8_keeps_the_perplexity(monkeypatch, tokens, quantization, reference):
    model = shipped(monkeypatch, "native", quantization=quantization)
    assert abs(perplexity(model, tokens) / reference - 1) < 0.01
    with pytest.raises(UnsupportedError, match="quantised"):
        model.save_pretrained("nowhere")


def test_int8_that_loses_its_scales_is_noticed(monkeypatch, tokens):
    model = shipped(monkeypatch, "native", quantization="int8")
    reference = perplexity(model, tokens[:512])
    for layer in model.model.layers:
        layer.feed_forward.w2.weight_scale.set_data(layer.feed_forward.w2.weight_scale * 2)
    assert perplexity(model, tokens[:512]) > 1.01 * reference


@pytest.mark.parametrize("quantization", ["int4", "int8:7", "int8:48"])
def test_wrong_quantization_is_named(monkeypatch, quantization):
    with pytest.raises(ConfigError, match=quantization.replace("int8:48", "48")):
        shipped(monkeypatch, "native", quantization=quantization)


def tiny():
    return LlamaForCausalLM(LlamaConfig(hidden_size=64, num_layers=2, num_heads=4, n_kv_heads=2, vocab_size=128,
                                        intermediate_size=96, seq_length=512, pad_token_id=None))


def answer(model, prompt):
    return list(model.generate([prompt], max_new_tokens=24, min_new_tokens=24, do_sample=False)[0])


def test_two_models_generate_in_two_threads():
    models = [tiny().set_train(False) for _ in range(2)]
    prompts = [[5, 6, 7], [9, 8, 7, 6, 5]]
    alone = [answer(model, prompt) for model, prompt in zip(models, prompts)]
    assert alone[0][3:] != alone[1][5:]
    together = [[], []]

    def work(i):
        together[i] = [answer(models[i], prompts[i]) for _ in range(4)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == [[alone[0]] * 4, [alone[1]] * 4]


def _child(queue, x, weight):
    meta, out = np.array([1e-5] + 7 * [0], np.float32), np.zeros((4, 300), np.float32)
    none = np.zeros(1, np.float32)
    library.Call("mf_linear", x, meta, none, weight, none, none, none, out)()
    queue.put(out)


def test_a_forked_process_computes():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 256), np.float32), rng.standard_normal((300, 256), np.float32)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    meta, out, none = np.zeros(8, np.float32), np.zeros((4, 300), np.float32), np.zeros(1, np.float32)
    library.Call("mf_linear", x, meta, none, weight, none, none, none, out)()  # the pool has its workers
    process = context.Process(target=_child, args=(queue, x, weight))
    process.start()
    found = queue.get(timeout=60)
    process.join(60)
    assert process.exitcode == 0
    np.testing.assert_array_equal(found, out)


@pytest.mark.slow
def test_ten_thousand_steps_leak_nothing():
    model = tiny().set_train(False)
    one, held = np.array([[5]], np.int32), []
    with model.make_cache(1, 500) as cache:
        model.forward_step(one, [1], cache)
        for step in range(10000):
            if cache.lengths[0] == 500:
                cache.lengths[:] = 0
            model.forward_step(one, [1], cache)
            if step in (1000, 9999):
                held.append(resource_now())
    assert held[1] - held[0] < 8 * 2 ** 20


def resource_now():
    """Resident bytes of this process now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
