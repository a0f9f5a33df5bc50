"""Fine-tuning samples: what is learnt, what is cut, what is refused."""
import json

import numpy as np
import pytest

from mindformers.dataset.causal_language_model_dataset import CausalLanguageModelDataset
from mindformers.dataset.dataloader.sft_dataloader import SFTDataLoader
from mindformers.tools.errors import ConfigError


def write(path, records):
    """A jsonl file."""
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return str(path)


def learnt(row, encoder):
    """The texts of the stretches that have labels."""
    inside = row["labels"] != -100
    assert np.array_equal(row["labels"][inside], row["input_ids"][inside])
    edges = np.flatnonzero(np.diff(np.r_[False, inside, False].astype(int)))
    return [encoder.decode(row["input_ids"][low:high]) for low, high in zip(edges[::2], edges[1::2])]


def test_prompt_and_answer(tmp_path, encoder):
    path = write(tmp_path / "a.jsonl", [{"prompt": "def add(a, b):\n", "answer": "    return a + b\n"}])
    (row,) = SFTDataLoader(path, tokenizer=encoder, max_length=64)
    assert row["input_ids"].shape == row["labels"].shape == (64,)
    assert encoder.decode(row["input_ids"]).rstrip("<pad>") == "<s>def add(a, b):\n    return a + b\n</s"
    assert learnt(row, encoder) == ["    return a + b\n</s>"]
    assert row["input_ids"][-1] == encoder.pad_token_id


def test_alpaca(tmp_path, encoder):
    path = write(tmp_path / "a.jsonl", [{"instruction": "Add", "input": "1 2", "output": "3"},
                                        {"instruction": "Say hi", "output": "hi"}])
    rows = SFTDataLoader(path, tokenizer=encoder, dataset_name="alpaca", max_length=400)
    texts = [encoder.decode(row["input_ids"]) for row in rows]
    assert "### Input:\n1 2\n\n### Response:3</s>" in texts[0] and "### Input" not in texts[1]
    assert [learnt(row, encoder) for row in rows] == [["3</s>"], ["hi</s>"]]


def test_chat_learns_the_assistant_only(tmp_path, encoder):
    turns = [{"role": "system", "text": "Be kind."}, {"role": "human", "text": "a?"}, {"role": "bot", "text": "A."},
             {"role": "human", "text": "b?"}, {"role": "bot", "text": "B."}]
    path = write(tmp_path / "a.jsonl", [{"chat": turns}])
    options = {"data_field": "chat", "from_keyword": "role", "value_keyword": "text", "assistant_role_name": "bot",
               "user_prompt": "[U]", "assistant_prompt": "[A]"}
    (row,) = SFTDataLoader(path, tokenizer=encoder, map_function="multi_round_chat_map_fn", map_function_kwargs=options,
                           max_length=100)
    text = encoder.decode(row["input_ids"])
    assert text.startswith("<s>Be kind.[U]a?[A]A.</s>[U]b?[A]B.</s><pad>")
    assert learnt(row, encoder) == ["A.</s>", "B.</s>"]
    turns[1]["role"] = "user"
    with pytest.raises(ConfigError, match=r"a\.jsonl:1: unknown role 'user'"):
        SFTDataLoader(write(tmp_path / "a.jsonl", [{"chat": turns}]), tokenizer=encoder, map_function_kwargs=options,
                      map_function="multi_round_chat_map_fn")


def test_samples_with_nothing_left_to_learn_are_counted(tmp_path, encoder, caplog):
    path = write(tmp_path / "a.jsonl", [{"prompt": "x" * 50, "answer": "y"}, {"prompt": "x", "answer": "y" * 50}])
    rows = SFTDataLoader(path, tokenizer=encoder, max_length=16)
    assert len(rows) == 1 and "1 of 2 samples" in caplog.text
    with pytest.raises(ConfigError, match="anything to learn"):
        path = write(tmp_path / "b.jsonl", [{"prompt": "x" * 50, "answer": "y"}])
        SFTDataLoader(path, tokenizer=encoder, max_length=16)


def test_dynamic_batch_pads_to_the_longest_row(tmp_path, encoder):
    path = write(tmp_path / "a.jsonl", [{"instruction": "Add", "output": "3" * count} for count in (1, 9)])
    loader = SFTDataLoader(path, tokenizer=encoder, dataset_name="multi-instruct-dyn", max_length=400)
    dataset = CausalLanguageModelDataset(data_loader=loader, batch_size=2, shuffle=False, dynamic_batch=True,
                                         divisor=16, remainder=1, pad_token_id=3)
    batch = dataset.loader.batch(0)
    longest = max(len(row["input_ids"]) for row in loader)
    width = batch["input_ids"].shape[1]
    assert (width - 1) % 16 == 0 and longest <= width < longest + 16
    tail = batch["labels"][0, len(loader[0]["labels"]):]
    assert (tail == -100).all() and (batch["input_ids"][0, -len(tail):] == 3).all()


def test_read_function_and_own_map_function(tmp_path, encoder):
    (tmp_path / "a.xyz").write_text("")
    rows = SFTDataLoader(tmp_path / "a.xyz", ["ids"], encoder, max_length=4,
                         read_function=lambda path: {"n": [1, 2, 3]},
                         map_function=lambda example, **kwargs: {"ids": np.full(kwargs["max_length"], example["n"])})
    assert [row["ids"].tolist() for row in rows] == [[1] * 4, [2] * 4, [3] * 4]


def test_wrong_inputs(tmp_path, encoder):
    good = write(tmp_path / "a.jsonl", [{"prompt": "a", "answer": "b"}])
    with pytest.raises(ConfigError, match=r"b\.jsonl:2: no column 'text'; the columns are \['answer'\]"):
        SFTDataLoader(write(tmp_path / "b.jsonl", [{"text": "x"}, {"answer": "b"}]), tokenizer=encoder)
    with pytest.raises(ConfigError, match="dataset_name 'alpacca'.*Did you mean 'alpaca'"):
        SFTDataLoader(good, tokenizer=encoder, dataset_name="alpacca")
    with pytest.raises(ConfigError, match="Did you mean 'alpaca_map_fn'"):
        SFTDataLoader(good, tokenizer=encoder, map_function="alpaca_map")
    with pytest.raises(ConfigError, match="no column 'attention_mask'"):
        SFTDataLoader(good, ["input_ids", "attention_mask"], encoder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="has no jsonl"):
        SFTDataLoader(tmp_path / "empty", tokenizer=encoder)
