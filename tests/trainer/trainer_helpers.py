"""A run small enough for tests: a Llama of one layer on a file of random token ids."""
import numpy as np

from mindformers.checkpoint import open_weights
from mindformers.tools.register import MindFormerConfig

MODEL = {"type": "LlamaConfig", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "n_kv_heads": 1,
         "intermediate_size": 24, "vocab_size": 40, "seq_length": 12, "max_position_embedding": 12,
         "tie_word_embeddings": True, "pad_token_id": 39, "param_init_type": "float32", "compute_dtype": "float32"}


def write_tokens(path, count, seed=7):
    """Write `count` random token ids below 38 to the .npy file `path`; returns it as a string."""
    np.save(path, np.random.default_rng(seed).integers(0, 38, count).astype(np.uint16))
    return str(path)


def tiny_config(folder, tokens=None, rows=20, **overrides):
    """Return the MindFormerConfig of a run in `folder`: 2 epochs over `rows` rows in batches of 4.

    Args:
        overrides: dotted keys with __ for the dot, such as ``runner_config__epochs=1``.
    """
    tokens = tokens or write_tokens(folder / "tokens.npy", rows * 12 + 1)
    data = {"data_loader": {"type": "NumpyTokens", "dataset_dir": tokens, "seq_length": 12, "shuffle": True,
                            "pad_token_id": 39},
            "input_columns": ["input_ids", "labels"], "seed": 3, "prefetch_size": 1}
    config = MindFormerConfig(
        seed=0, output_dir=str(folder / "out"), run_mode="train", use_parallel=False,
        trainer={"type": "CausalLanguageModelingTrainer", "model_name": "tiny"},
        context={"mode": 0, "device_target": "CPU"},
        runner_config={"epochs": 2, "batch_size": 4, "sink_mode": False},
        model={"arch": {"type": "LlamaForCausalLM"}, "model_config": dict(MODEL)},
        optimizer={"type": "AdamW", "betas": [0.9, 0.95], "weight_decay": 0.1},
        lr_schedule={"type": "CosineWithWarmUpLR", "learning_rate": 0.01, "warmup_ratio": 0.2, "total_steps": -1},
        runner_wrapper={"type": "MFTrainOneStepCell", "scale_sense": 1.0, "use_clip_grad": True, "max_grad_norm": 1.0},
        train_dataset=data, train_dataset_task={"type": "CausalLanguageModelDataset"},
        callbacks=[{"type": "MFLossMonitor"},
                   {"type": "CheckpointMonitor", "prefix": "t", "save_checkpoint_steps": 100}])
    config.merge_from_dict({key.replace("__", "."): value for key, value in overrides.items()})
    return config


def with_evaluation(folder, **overrides):
    """Return the `tiny_config` of one epoch (5 steps) with an evaluation set of 8 rows, which are 2 batches.

    PYNATIVE unless `overrides` say otherwise: that spares compiling.
    """
    config = tiny_config(folder, **{"runner_config__epochs": 1, "context__mode": 1, **overrides})
    config.merge_from_dict({
        "eval_dataset": {"data_loader": {"type": "NumpyTokens", "seq_length": 12, "shuffle": False, "pad_token_id": 39,
                                         "dataset_dir": write_tokens(folder / "eval.npy", 8 * 12 + 1, seed=9)},
                         "input_columns": ["input_ids", "labels"], "drop_remainder": False},
        "eval_dataset_task": {"type": "CausalLanguageModelDataset"}})
    return config


def arrays(path):
    """Return every array of a checkpoint file by name."""
    source = open_weights(path)
    return {name: source.read(name) for name in source.names()}


def checkpoint(folder, epoch, step, rank=0):
    """Path of the training checkpoint of an (epoch, step) below the run folder of `tiny_config`."""
    return folder / "out" / "checkpoint" / f"rank_{rank}" / f"t_rank_{rank}-{epoch}_{step}.ckpt"


def differing(first, second):
    """Names whose bytes differ between two dicts of arrays with the same names."""
    assert first.keys() == second.keys()
    return sorted(name for name in first if first[name].tobytes() != second[name].tobytes())
