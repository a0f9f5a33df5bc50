"""Training GLM with the trainer: shifted labels, rows of their length, the prefix alone, and resuming."""
import numpy as np
import pytest
from trainer_helpers import arrays, checkpoint, tiny_config

from mindformers import AutoModelForCausalLM, Trainer
from mindformers.dataset import CausalLanguageModelDataset
from mindformers.dataset.rows import ArrayRows
from mindformers.tools.errors import ConfigError

GLM = {"type": "ChatGLM2Config", "hidden_size": 16, "num_layers": 1, "num_attention_heads": 2, "kv_channels": 8,
       "multi_query_group_num": 1, "ffn_hidden_size": 24, "padded_vocab_size": 40, "seq_length": 12, "pad_token_id": 39,
       "param_init_type": "float32", "compute_dtype": "float32", "prefix_dropout": 0.0}


def config_of(folder, **fields):
    config = tiny_config(folder)
    config.model = {"arch": {"type": "ChatGLM2ForConditionalGeneration"}, "model_config": {**GLM, **fields}}
    return config


def rows_of(width=12, labels=True, count=20):
    """Rows that count up by one, with shifted labels, half of them without target."""
    first = np.random.default_rng(0).integers(0, 38, (count, 1))
    tokens = ((first + np.arange(width + 1)) % 38).astype(np.int32)
    columns = {"input_ids": tokens[:, :width]}
    if labels:
        columns["labels"] = np.where(np.arange(width) < width // 2, -100, tokens[:, 1:width + 1]).astype(np.int32)
    return CausalLanguageModelDataset(data_loader=ArrayRows(columns), batch_size=4, seed=3)


def losses(folder):
    with open(folder / "out" / "loss.csv", encoding="utf-8") as file:
        head, *lines = [line.strip().split(",") for line in file]
    return [float(line[head.index("loss")]) for line in lines]


def test_shifted_labels_train(tmp_path):
    Trainer(config_of(tmp_path), train_dataset=rows_of()).train()
    found = losses(tmp_path)
    assert len(found) == 10 and np.mean(found[-3:]) < np.mean(found[:3]) - 0.1


@pytest.mark.parametrize("dtype", [pytest.param("float32", marks=pytest.mark.slow), "float16"])
def test_only_the_prefix_trains_and_is_in_the_checkpoint(tmp_path, dtype):
    """The frozen rest may be stored in 16 bits; the prefix is float32."""
    config = config_of(tmp_path, pre_seq_len=3, param_init_type=dtype)
    trainer = Trainer(config, train_dataset=rows_of())
    trainer.train()
    saved = arrays(checkpoint(tmp_path, 2, 5))
    trained = {name.split(".", 1)[1] for name in saved if name.startswith("adam_m.")}
    assert trained == {"transformer.prefix_encoder.embedding.embedding_weight"}
    assert "transformer.output_layer.weight" in saved and losses(tmp_path)[-1] != losses(tmp_path)[0]
    trainer.model.set_train(False)
    trainer.model.save_pretrained(tmp_path / "model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    ids = np.arange(8)[None]
    np.testing.assert_allclose(again(ids).logits.asnumpy(), trainer.model(ids).logits.asnumpy(), atol=1e-5)
    assert {str(p.dtype).lower() for p in again.get_parameters() if "prefix" in p.name} == {"float32"}


@pytest.mark.parametrize("columns, message", [
    ({"width": 13}, "labels_shifted: False"),
    ({"width": 12, "labels": False}, "seq_length [+] 1"),
])
def test_rows_of_another_length_are_refused(tmp_path, columns, message):
    with pytest.raises(ConfigError, match=message):
        Trainer(config_of(tmp_path), train_dataset=rows_of(**columns)).train()
