"""Write the golden files of generation: what Hugging Face transformers makes of the same logits.

    python tests/reference/make_generation_goldens.py      # needs torch and transformers; the tests need neither

tests/reference/generation/tables.npz    tables A [V, V], B [V, V], C [7, V] of a model whose logits after tokens t are
                                         A[t[-1]] + B[t[-2]] + C[len(t) % 7]  (B only with two tokens or more)
tests/reference/generation/runs.json     settings, prompt -> sequences (and beam scores) of that model's generate()
tests/reference/generation/processors.npz  scores and ids, and what each logits processor makes of them
tests/reference/generation/chains.npz    scores of the first sampling step under several settings at once

Beam searches in which two candidates come near a tie are refused: their result would hang on rounding.
"""
import itertools
import json
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.generation import logits_process as hf
from transformers.modeling_outputs import CausalLMOutput

ROOT = Path(__file__).resolve().parent / "generation"
VERSIONS = {"transformers": transformers.__version__, "torch": torch.__version__.split("+")[0]}
VOCAB, EOS = 40, (2, 7)


class TableConfig(PretrainedConfig):
    """No settings."""

    model_type = "table"


class TableModel(PreTrainedModel, GenerationMixin):
    """Logits from tables; without a cache."""

    config_class = TableConfig

    def __init__(self, config, tables):
        super().__init__(config)
        self.tables = [torch.tensor(table) for table in tables]
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, input_ids, attention_mask=None, **_):
        last, before, place = self.tables
        logits = last[input_ids] + place[torch.arange(1, input_ids.shape[1] + 1) % 7]
        logits[:, 1:] += before[input_ids[:, :-1]]
        return CausalLMOutput(logits=logits)

    def prepare_inputs_for_generation(self, input_ids, attention_mask=None, **_):
        return {"input_ids": input_ids}


def draw_tables():
    generator = np.random.default_rng(11)
    tables = [generator.normal(0, 1.2, (rows, VOCAB)).astype(np.float32) for rows in (VOCAB, VOCAB, 7)]
    tables[0][:, list(EOS)] += (1.5, 0.7)  # ends are likely enough to matter
    return tables


def run(model, prompt, settings):
    """One call of generate() as a JSON-able record."""
    config = GenerationConfig(**{"eos_token_id": list(EOS), "pad_token_id": 0, "use_cache": False,
                                 "return_dict_in_generate": True, "output_scores": True, **settings})
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    ends = set(np.atleast_1d(config.eos_token_id).tolist())
    sequences = [strip(row.tolist(), len(prompt), ends) for row in out.sequences]
    scores = getattr(out, "sequences_scores", None)
    return {"prompt": prompt, "settings": settings, "sequences": sequences,
            "scores": None if scores is None else scores.tolist()}


def strip(tokens, start, ends):
    """Cut the padding after the first end token."""
    for place in range(start, len(tokens)):
        if tokens[place] in ends:
            return tokens[:place + 1]
    return tokens


def beam_runs(model):
    prompts = ([5, 6, 9], [11], [3, 3, 20, 8, 31])
    grid = itertools.product((2, 3, 5), (1.0, 0.0, 2.0, -1.0), (False, True, "never"))
    records = [run(model, prompts[i % 3], dict(num_beams=beams, length_penalty=penalty, early_stopping=early,
                                               max_new_tokens=12, num_return_sequences=beams))
               for i, (beams, penalty, early) in enumerate(grid)]
    for extra in (dict(repetition_penalty=1.4), dict(no_repeat_ngram_size=2), dict(min_new_tokens=6),
                  dict(eos_token_id=[2]), dict(eos_token_id=[2, 7, 9, 30]), dict(bad_words_ids=[[4], [13, 5], [2]]),
                  dict(forced_eos_token_id=2, min_length=6), dict(suppress_tokens=[1, 17, 18])):
        records += [run(model, prompt, dict(num_beams=4, max_new_tokens=14, num_return_sequences=2, **extra))
                    for prompt in prompts]
    # beams that end in one step, more of them than there is room for
    records += [run(model, [first, 5], dict(num_beams=3, max_new_tokens=16, num_return_sequences=3, early_stopping=True,
                                            eos_token_id=[5, 9, 17, 33])) for first in (3, 12, 19, 26, 31, 38)]
    return records


def greedy_runs(model):
    prompts = ([5, 6, 9], [11], [3, 3, 20, 8, 31])
    settings = (dict(), dict(repetition_penalty=1.7), dict(repetition_penalty=0.6), dict(no_repeat_ngram_size=2),
                dict(no_repeat_ngram_size=1), dict(no_repeat_ngram_size=3), dict(min_length=9), dict(min_new_tokens=9),
                dict(bad_words_ids=[[4], [13, 5], [2], [8, 31, 22]]), dict(suppress_tokens=[2, 7]),
                dict(begin_suppress_tokens=[2, 12, 19]), dict(forced_bos_token_id=21), dict(forced_eos_token_id=2),
                dict(min_new_tokens=5, repetition_penalty=1.2, no_repeat_ngram_size=2))
    return [run(model, prompt, dict(do_sample=False, max_new_tokens=16, **setting))
            for setting, prompt in itertools.product(settings, prompts)]


PROCESSORS = {
    "temperature 0.6": lambda: hf.TemperatureLogitsWarper(0.6),
    "top_k 1": lambda: hf.TopKLogitsWarper(1), "top_k 7": lambda: hf.TopKLogitsWarper(7),
    "top_k 1000": lambda: hf.TopKLogitsWarper(1000),
    "top_k 2 keep 5": lambda: hf.TopKLogitsWarper(2, min_tokens_to_keep=5),
    **{f"top_p {p}": lambda p=p: hf.TopPLogitsWarper(p) for p in (0.0, 0.1, 0.5, 0.9, 0.99)},
    "top_p 0.1 keep 4": lambda: hf.TopPLogitsWarper(0.1, min_tokens_to_keep=4),
    **{f"min_p {p}": lambda p=p: hf.MinPLogitsWarper(p) for p in (0.01, 0.1, 0.5, 1.0)},
    "min_p 0.9 keep 3": lambda: hf.MinPLogitsWarper(0.9, min_tokens_to_keep=3),
    "repetition 1.3": lambda: hf.RepetitionPenaltyLogitsProcessor(1.3),
    "repetition 0.5": lambda: hf.RepetitionPenaltyLogitsProcessor(0.5),
    **{f"ngram {n}": lambda n=n: hf.NoRepeatNGramLogitsProcessor(n) for n in (1, 2, 3)},
    "bad_words": lambda: hf.NoBadWordsLogitsProcessor([[9], [3, 8], [7, 3, 5], [2]], torch.tensor([2])),
    "min_length 13": lambda: hf.MinLengthLogitsProcessor(13, [2, 3]),
    "min_length 12": lambda: hf.MinLengthLogitsProcessor(12, [2, 3]),
    "min_new 5 after 8": lambda: hf.MinNewTokensLengthLogitsProcessor(8, 5, [2]),
    "normalize": hf.LogitNormalization,
}


def processor_goldens():
    """Scores [4, 300] (with ties and many orders of magnitude), ids [4, 12] with repeats."""
    generator = np.random.default_rng(3)
    scores = generator.normal(0, 3, (4, 300)).astype(np.float32)
    scores[1] = np.round(scores[1])                  # ties
    scores[2] *= 10                                  # nearly one-hot
    scores[3, 100:] = -np.inf                        # filtered before
    ids = generator.integers(0, 12, (4, 12))
    ids[0, -3:], ids[0, :4] = (5, 7, 3), (7, 3, 5, 8)
    arrays = {"scores": scores, "ids": ids.astype(np.int32)}
    for name, make in PROCESSORS.items():
        arrays[name] = make()(torch.tensor(ids), torch.tensor(scores)).numpy()
    return arrays


CHAINS = (dict(temperature=0.7, top_k=20, top_p=0.8), dict(top_k=0, top_p=0.6),
          dict(top_k=0, min_p=0.05, temperature=1.4),
          dict(top_k=12, top_p=0.9, min_p=0.02, temperature=0.9, repetition_penalty=1.3, no_repeat_ngram_size=2),
          dict(top_k=5, bad_words_ids=[[4], [20, 12]], suppress_tokens=[8, 9], renormalize_logits=True),
          dict(top_k=0, min_new_tokens=3, top_p=0.95, renormalize_logits=True))


def chain_goldens(model):
    prompt = [3, 20, 8, 20]
    arrays = {"settings": np.array(json.dumps(CHAINS)), "prompt": np.array(prompt, np.int32)}
    for index, settings in enumerate(CHAINS):
        config = GenerationConfig(**{"eos_token_id": list(EOS), "pad_token_id": 0, "use_cache": False,
                                     "do_sample": True, "return_dict_in_generate": True, "output_scores": True,
                                     "max_new_tokens": 4,
                                     **settings})
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        arrays[str(index)] = out.scores[0][0].numpy()
    return arrays


def main():
    ROOT.mkdir(exist_ok=True)
    tables = draw_tables()
    model = TableModel(TableConfig(), tables).eval()
    with torch.no_grad():
        runs = {"versions": VERSIONS, "greedy": greedy_runs(model), "beams": beam_runs(model)}
        for record in runs["beams"]:
            gaps = -np.diff(record["scores"])
            if len(gaps) and np.abs(gaps).min() < 1e-5:
                raise SystemExit(f"beam scores come near a tie, change the seed: {record}")
        np.savez_compressed(ROOT / "chains.npz", **chain_goldens(model))
    np.savez_compressed(ROOT / "tables.npz", A=tables[0], B=tables[1], C=tables[2], eos=np.array(EOS))
    np.savez_compressed(ROOT / "processors.npz", versions=json.dumps(VERSIONS), **processor_goldens())
    lines = [f'"versions": {json.dumps(VERSIONS)}']
    for kind in ("greedy", "beams"):
        lines.append(f'"{kind}": [\n  ' + ",\n  ".join(json.dumps(record) for record in runs[kind]) + "\n ]")
    (ROOT / "runs.json").write_text("{" + ",\n ".join(lines) + "}\n")
    print(len(runs["greedy"]), "greedy,", len(runs["beams"]), "beam runs")


if __name__ == "__main__":
    main()
