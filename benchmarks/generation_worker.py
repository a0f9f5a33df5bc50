"""One model in one process, measured as a list of measures says; started by bench_generation.py and plot_context.py.

    generation_worker.py SIDE FOLDER --measures '[{"kind": "decode", "position": 128, ...}]'

SIDE is "ours" or "transformers". Prints one JSON object as its last line: {"cold_start": s, "peak_memory": MB after the
first generate, "results": [values of each measure]}. The process imports nothing heavy before the clock asks for it.
"""
import argparse
import json
import resource
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
GENERATED = 64  # tokens of the generate call whose peak memory counts
SAMPLING = dict(do_sample=True, temperature=0.8, top_k=50, top_p=0.95)


class Ours:
    """mindformers, through its Python API. Logits come back as numpy arrays."""

    def __init__(self, folder, threads, quantization, max_tokens):
        sys.path.insert(0, str(REPO))
        from mindformers import AutoModelForCausalLM
        options = {"quantization": quantization} if quantization else {}
        self.model = AutoModelForCausalLM.from_pretrained(folder, **options)
        self.model.set_train(False)
        self.max_tokens = max_tokens

    def session(self, batch):
        return OurSession(self.model, batch, self.max_tokens)

    def generate(self, ids, count, **options):
        options = options or {"do_sample": False}
        out = self.model.generate([ids], min_new_tokens=count, max_new_tokens=count, **options)
        return len(out[0]) - len(ids)

    def settle(self):
        """Wait for what the first steps leave behind: weights that move into huge pages."""
        from mindformers.tools import mapped_file
        mapped_file.finish()

    def versions(self):
        import mindspore
        return {"mindspore": mindspore.__version__}


class OurSession:
    """A batch of sequences of equal length with their cache."""

    def __init__(self, model, batch, max_tokens):
        import numpy as np
        self.np, self.model, self.batch = np, model, batch
        self.cache = model.make_cache(batch, max_tokens)

    def feed(self, ids):
        """Append the same tokens to every row; return the greedy next token of the first row."""
        tokens = self.np.tile(self.np.asarray(ids, self.np.int32), (self.batch, 1))
        logits = self.model.forward_step(tokens, self.np.full(self.batch, len(ids), self.np.int32), self.cache)
        return int(logits[0].argmax())

    def bytes_per_token(self):
        return self.cache.pool.bytes_per_token

    def close(self):
        self.cache.close()


class Transformers:
    """transformers on PyTorch CPU, its own cache, inference mode."""

    def __init__(self, folder, threads, quantization, max_tokens):
        import torch
        from transformers import AutoModelForCausalLM
        if quantization:
            raise SystemExit("transformers is not measured with int8 weights")
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self.torch = torch
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()

    def session(self, batch):
        return TransformersSession(self.torch, self.model, batch)

    def generate(self, ids, count, **options):
        ids = self.torch.tensor([ids])
        with self.torch.inference_mode():
            out = self.model.generate(ids, attention_mask=self.torch.ones_like(ids), min_new_tokens=count,
                                      max_new_tokens=count, **(options or {"do_sample": False}))
        return out.shape[1] - ids.shape[1]

    def settle(self):
        """Nothing is left behind."""

    def versions(self):
        import transformers
        return {"transformers": transformers.__version__, "torch": self.torch.__version__}


class TransformersSession:
    """The same as OurSession with transformers' DynamicCache."""

    def __init__(self, torch, model, batch):
        self.torch, self.model, self.batch, self.cache = torch, model, batch, None

    def feed(self, ids):
        with self.torch.inference_mode():
            out = self.model(self.torch.tensor([ids] * self.batch), past_key_values=self.cache, use_cache=True,
                             logits_to_keep=1)
        self.cache = out.past_key_values
        return int(out.logits[0, -1].argmax())

    def bytes_per_token(self):
        config = self.model.config
        return 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * self.model.dtype.itemsize

    def close(self):
        self.cache = None


# -- measures: each returns one value per repeat ---------------------------------------------------------------------


def prompt(vocab_size, count):
    """The same pseudo-random token ids on every side, none of them special."""
    return [3 + (i * 7919 + 101) % (vocab_size - 3) for i in range(count)]


def seconds(call, *args, **kwargs):
    start = time.perf_counter()
    call(*args, **kwargs)
    return time.perf_counter() - start


def feed_in_parts(session, ids, part=512):
    """Fill the cache; what a side does with a long prompt at once is not what is measured here."""
    for start in range(0, len(ids), part):
        token = session.feed(ids[start:start + part])
    return token


def decode_seconds(session, token, count):
    """Seconds of `count` greedy steps."""
    start = time.perf_counter()
    for _ in range(count):
        token = session.feed([token])
    return time.perf_counter() - start


def measure_prefill(side, vocab, tokens, repeats, batch=1):
    """tok/s of a prompt into an empty cache, logits of its last token; after one run that is not counted."""
    ids, values = prompt(vocab, tokens), []
    for _ in range(repeats + 1):
        session = side.session(batch)
        values.append(batch * tokens / seconds(session.feed, ids))
        session.close()
    return values[1:]


def measure_decode(side, vocab, position, count, repeats, batch=1):
    """tok/s, all rows together, of `count` greedy steps from `position` on; after 3 steps that are not counted."""
    values = []
    for _ in range(repeats):
        warm, session = side.session(batch), side.session(batch)
        decode_seconds(warm, warm.feed(prompt(vocab, 8)), 3)
        warm.close()
        token = feed_in_parts(session, prompt(vocab, position))
        values.append(batch * count / decode_seconds(session, token, count))
        session.close()
    return values


def measure_generate(side, vocab, position, count, repeats, **options):
    """tok/s that `count` more tokens of one generate call take."""
    ids, values = prompt(vocab, position), []
    side.generate(ids, 2, **options)
    for _ in range(repeats):
        short = seconds(side.generate, ids, 1, **options)
        values.append(count / max(1e-9, seconds(side.generate, ids, 1 + count, **options) - short))
    return values


def measure_sampling(side, vocab, position, count, repeats):
    """% that sampling (temperature, top-k, top-p) adds to a step of greedy generate; the two take turns."""
    values = []
    for _ in range(repeats):
        greedy = measure_generate(side, vocab, position, count, 1)[0]
        values.append(100 * (greedy / measure_generate(side, vocab, position, count, 1, **SAMPLING)[0] - 1))
    return values


def measure_new_length(side, vocab, lengths):
    """First time of a prompt length over the third time of it, for each length; 1 = no recompile."""
    feed_in_parts(warm := side.session(1), prompt(vocab, 8))
    warm.close()
    values = []
    for length in lengths:
        times = []
        for _ in range(3):
            session = side.session(1)
            times.append(seconds(session.feed, prompt(vocab, length)))
            session.close()
        values.append(times[0] / min(times[1:]))
    return values


def measure_context(side, vocab, positions, count):
    """[position, seconds per token, bytes of cache per token] while one sequence grows; median of the single steps."""
    values, session, held = [], side.session(1), 0
    token = session.feed(prompt(vocab, 1))
    held += 1
    for position in sorted(positions):
        if position > held:
            token = feed_in_parts(session, prompt(vocab, position - held))
            held = position
        decode_seconds(session, token, 3)
        steps = [decode_seconds(session, token, 1) for _ in range(count)]
        values.append([held + 3 + count / 2, statistics.median(steps), session.bytes_per_token()])
        held += 3 + count
    session.close()
    return values


MEASURES = {"prefill": measure_prefill, "decode": measure_decode, "generate": measure_generate,
            "sampling": measure_sampling, "new_length": measure_new_length, "context": measure_context}


def peak_memory():
    """MB: the largest resident size of this program so far (ru_maxrss may hold that of the parent)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(args):
    measures = json.loads(args.measures)
    vocab = json.loads((Path(args.folder) / "config.json").read_text())["vocab_size"]
    ids = prompt(vocab, 128)
    side = {"ours": Ours, "transformers": Transformers}[args.side](args.folder, args.threads, args.quantization,
                                                                   args.max_tokens)
    loaded = time.monotonic() - args.spawned
    side.generate(ids, 1)
    found = {"loaded": loaded, "cold_start": time.monotonic() - args.spawned}
    if args.generated:
        side.generate(ids, args.generated)
    found["peak_memory"] = peak_memory()
    side.settle()
    found["results"] = [MEASURES[m.pop("kind")](side, vocab, **m) for m in measures]
    found["versions"] = side.versions()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=("ours", "transformers"))
    parser.add_argument("folder")
    parser.add_argument("--measures", default="[]", help="JSON list of {kind, arguments}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quantization")
    parser.add_argument("--max-tokens", type=int, default=1024, help="room of a cache (default: %(default)s)")
    parser.add_argument("--generated", type=int, default=GENERATED, help="tokens before the memory is read")
    parser.add_argument("--spawned", type=float, default=time.monotonic(), help="time.monotonic() at its start")
    print(json.dumps(run(parser.parse_args())))


if __name__ == "__main__":
    main()
