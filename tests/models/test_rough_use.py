"""Models under rough use: threads, Ctrl-C, changes of mode, stop strings across tokens, both modes of a classifier."""
import copy
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

from mindformers import AutoTokenizer, pipeline
from mindformers.models.llama.llama import LlamaForCausalLM, LlamaForSequenceClassification
from mindformers.models.llama.llama_config import LlamaConfig

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = str(ROOT / "configs" / "tiny" / "llama_tiny")
SIZES = {"num_layers": 2, "hidden_size": 16, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 24, "vocab_size": 40,
         "seq_length": 64, "param_init_type": "float32", "compute_dtype": "float32", "do_sample": False,
         "eos_token_id": [], "pad_token_id": None}
PROMPTS = [[5, 6, 7], [30, 2], [9, 9, 9, 9, 9, 11], [17]]


def build(kind=LlamaForCausalLM, **fields):
    ms.set_seed(3)
    model = kind(LlamaConfig(**{**SIZES, **fields}))
    for parameter in model.get_parameters():
        values = np.random.default_rng(len(parameter.name)).normal(0, 0.4, parameter.shape)
        parameter.set_data(ms.Tensor(values, ms.float32))
    return model.set_train(False)


def answer(model, prompt, count=8):
    return model.generate(prompt, max_new_tokens=count)[0].tolist()


def test_threads_that_generate_on_one_model_from_its_first_use_on():
    model, alone = build(), build()
    expected = [answer(alone, prompt) for prompt in PROMPTS]
    found, errors = {}, []

    def work(number):
        try:
            for _ in range(2):
                found.setdefault(number, []).append(answer(model, PROMPTS[number]))
        except BaseException as error:  # pylint: disable=broad-except
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(PROMPTS))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and found == {number: [row, row] for number, row in enumerate(expected)}
    assert len({str(row) for row in expected}) == len(PROMPTS)  # a mix-up would show


def test_a_copy_of_a_model_that_has_answered():
    model = build()
    expected, logits = answer(model, [3, 4, 5]), model([[3, 4, 5]]).logits.asnumpy()
    copied = copy.deepcopy(model)
    assert answer(copied, [3, 4, 5]) == expected and np.array_equal(copied([[3, 4, 5]]).logits.asnumpy(), logits)
    for parameter in copied.get_parameters():
        parameter.set_data(parameter * 0 + 0.01)
    assert not np.allclose(copied([[3, 4, 5]]).logits.asnumpy(), logits), "the copy runs on its own weights"
    assert answer(model, [3, 4, 5]) == expected and np.array_equal(model([[3, 4, 5]]).logits.asnumpy(), logits)


def test_graph_then_pynative_then_graph():
    model, rows = build(), []
    for mode in (ms.GRAPH_MODE, ms.PYNATIVE_MODE, ms.GRAPH_MODE):
        ms.set_context(mode=mode)
        rows.append((answer(model, PROMPTS[0]), model([PROMPTS[0]]).logits.asnumpy()))
    for tokens, logits in rows[1:]:
        assert tokens == rows[0][0]
        np.testing.assert_allclose(logits, rows[0][1], rtol=1e-4, atol=1e-5)


INTERRUPTED = textwrap.dedent("""
    import os, signal, sys, threading, time
    sys.path[:0] = [%r, %r]
    from test_rough_use import PROMPTS, answer, build

    class Interrupting:
        steps = 0
        def put(self, value):
            self.steps += 1
            if self.steps == 4:
                signal.raise_signal(signal.SIGINT)
        def end(self):
            pass

    class Slow(Interrupting):
        def put(self, value):
            time.sleep(0.01)

    def interrupted(model, **more):
        try:
            model.generate(PROMPTS[0], max_new_tokens=60, **more)
        except KeyboardInterrupt:
            return True

    def soon(delay):
        timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        return timer

    model, begin = build(), time.perf_counter()
    expected = answer(model, PROMPTS[0])
    first, model = time.perf_counter() - begin, build()
    for share in (0.1, 0.4):  # while graphs compile, or early in the run where there are none
        soon(share * max(first, 0.3))
        assert interrupted(model, streamer=Slow()), share
    assert answer(model, PROMPTS[0]) == expected
    assert interrupted(model, streamer=Interrupting())  # between two steps
    assert answer(model, PROMPTS[0]) == expected
    begin = time.perf_counter()
    model.generate(PROMPTS[0], max_new_tokens=60)
    whole = time.perf_counter() - begin
    for share in (0.2, 0.4, 0.6):  # wherever it hits
        timer = soon(share * whole)
        try:
            interrupted(model)
            timer.join()  # it may come after a fast run
            time.sleep(0.1)
        except KeyboardInterrupt:
            pass
        assert answer(model, PROMPTS[0]) == expected
    pool = model._pool
    assert len(pool._free) == pool.num_blocks  # every cache gave its blocks back
    print("usable")
""" % (str(ROOT), str(ROOT / "tests" / "models")))


@pytest.mark.parametrize("form", ["", "portable"])
def test_ctrl_c_in_a_generation_leaves_the_model_usable(form, tmp_path):
    """In a process of its own: a Ctrl-C that is not caught ends it."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], cwd=tmp_path, capture_output=True, text=True,
                          check=False, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
                          env={**os.environ, "PYTHONPATH": str(ROOT), "MF_KERNELS": form})
    assert done.returncode == 0 and done.stdout.strip().endswith("usable"), done.stderr[-2000:]


# ---- stop strings with the tokenizer that is shipped ----

@pytest.mark.parametrize("stop, expected", [
    ("value)", "x = read(value)"),  # ends in the middle of a token, or spans several
    ("d(val", "x = read(val"), ("= read", "x = read"), ("\n    re", "x = read(value)\n    re"),
    (["nowhere", "turn"], "x = read(value)\n    return"), ("nowhere", None)])
def test_stop_strings_across_tokens(stop, expected):
    tokenizer = AutoTokenizer.from_pretrained(SHIPPED)
    text = "x = read(value)\n    return x\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    model = build(vocab_size=len(tokenizer))
    prompt = tokenizer.encode("def f(value):\n    ", add_special_tokens=False)

    def write(input_ids, scores):
        out = np.full_like(scores, -np.inf)
        out[:, ids[min(input_ids.shape[1] - len(prompt), len(ids) - 1)]] = 0.0
        return out

    row = model.generate(prompt, max_new_tokens=len(ids), logits_processor=write, stop_strings=stop,
                         tokenizer=tokenizer)[0]
    answered = tokenizer.decode(row[len(prompt):])
    if expected is None:
        assert answered == text
        return
    stops = [stop] if isinstance(stop, str) else stop
    assert answered.startswith(expected) and text.startswith(answered)
    assert not any(word in tokenizer.decode(row[len(prompt):-1]) for word in stops)  # not a token longer than needed


def test_a_pipeline_without_a_tokenizer():
    model = build()
    with pytest.raises(ValueError, match="needs a tokenizer: pass tokenizer="):
        pipeline("text_generation", model=model)
    for wrong in (5, object(), print):
        with pytest.raises(ValueError, match="needs a tokenizer object"):
            pipeline("text_generation", model=model, tokenizer=wrong)


# ---- the classifier ----

@pytest.mark.parametrize("problem, labels, data", [
    ("single_label_classification", 3, np.array([2, 0, 1], np.int32)),
    ("regression", 1, np.array([0.5, -1.0, 2.0], np.float32)),
    ("multi_label_classification", 2, np.array([[1, 0], [0, 1], [1, 1]], np.float32))])
def test_a_classifier_learns_and_answers(problem, labels, data):
    model = build(LlamaForSequenceClassification, num_labels=labels, problem_type=problem, pad_token_id=0)
    tokens = np.array([[5, 6, 7, 8, 0, 0], [9, 10, 11, 12, 13, 14], [15, 16, 0, 0, 0, 0]], np.int32)
    before = model(tokens, labels=data)
    assert before.logits.shape == (3, labels)
    alone = [model(row[row > 0][None]).logits.asnumpy()[0] for row in tokens]
    np.testing.assert_allclose(before.logits.asnumpy(), alone, rtol=1e-4, atol=1e-5)  # the last real token decides
    model.set_train()
    step = nn.TrainOneStepCell(model, nn.Adam(model.trainable_params(), 0.02))
    losses = [float(step(ms.Tensor(tokens), ms.Tensor(data)).asnumpy()) for _ in range(25)]
    assert losses[0] == pytest.approx(float(before.loss.asnumpy()), rel=1e-4)  # training and evaluation agree
    assert losses[-1] < 0.1 * losses[0]
    after = model.set_train(False)(tokens, labels=data)
    assert float(after.loss.asnumpy()) < 0.1 * losses[0]
    if problem == "single_label_classification":
        assert after.logits.asnumpy().argmax(1).tolist() == data.tolist()
