"""Speed of a GLM beside a Llama of the same sizes, random weights, alternately in one process; the result is the ratio.

    python benchmarks/bench_families.py [--dtype bfloat16] [--rounds 10] [--size tiny]
"""
import argparse
import statistics
import time

import mindspore as ms
import numpy as np

from mindformers import ChatGLM2Config, ChatGLM2ForConditionalGeneration, LlamaConfig, LlamaForCausalLM

PROMPT, NEW = 128, 48
# layers, hidden, heads, inner, vocabulary; 134m is the size of bench_llama
SIZES = {"134m": (12, 768, 12, 2048, 32000), "tiny": (2, 64, 4, 128, 512)}


def build(size, kv_heads, dtype):
    """The two models: (Llama, GLM). The GLM has packed products and biases on q, k, v, as its checkpoints do."""
    layers, hidden, heads, inner, vocabulary = SIZES[size]
    shared = dict(num_layers=layers, hidden_size=hidden, vocab_size=vocabulary, seq_length=1024, pad_token_id=None,
                  param_init_type=dtype, compute_dtype=dtype)
    kv_heads = kv_heads or heads
    llama = LlamaForCausalLM(LlamaConfig(num_heads=heads, n_kv_heads=kv_heads, intermediate_size=inner, **shared))
    glm = ChatGLM2ForConditionalGeneration(ChatGLM2Config(
        num_heads=heads, n_kv_heads=kv_heads, kv_channels=hidden // heads, ffn_hidden_size=inner, **shared))
    return llama.set_train(False), glm.set_train(False)


def speed(model, new=NEW):
    """(prompt tokens a second, new tokens a second) of one sequence."""
    vocabulary = model.config.vocab_size
    prompt = np.random.default_rng(0).integers(0, vocabulary, (1, PROMPT)).astype(np.int32)
    token, one = np.array([[5]], np.int32), np.ones(1, np.int32)
    with model.make_cache(1, PROMPT + new) as cache:
        begin = time.perf_counter()
        model.forward_step(prompt, np.array([PROMPT], np.int32), cache)
        middle = time.perf_counter()
        for _ in range(new):
            model.forward_step(token, one, cache)
        end = time.perf_counter()
    return PROMPT / (middle - begin), new / (end - middle)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
    parser.add_argument("--size", default="134m", choices=SIZES)
    parser.add_argument("--kv-heads", type=int, help="kv heads of both; default as many as query heads")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    ms.set_seed(0)
    models = build(args.size, args.kv_heads, args.dtype)
    for model in models:  # compile
        speed(model, 4)
    rounds = [(speed(models[0]), speed(models[1])) for _ in range(args.rounds)]
    for index, what in enumerate(("prefill", "decode")):
        llama, glm = (statistics.median(pair[which][index] for pair in rounds) for which in (0, 1))
        ratio = statistics.median(pair[1][index] / pair[0][index] for pair in rounds)
        print(f"{what} {args.dtype}: Llama {llama:.1f} tok/s, GLM {glm:.1f} tok/s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
