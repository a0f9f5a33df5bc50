"""Parallel configurations: fresh, checked, without MindSpore."""
import subprocess
import sys

import pytest

from mindformers.core import parallel_config as pc
from mindformers.modules import transformer
from mindformers.modules.transformer import op_parallel_config
from mindformers.tools.errors import ConfigError


def test_import_does_not_load_mindspore():
    code = ("import sys; import mindformers.modules.transformer.op_parallel_config; "
            "import mindformers.core.parallel_config; print('mindspore' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_old_places_hold_the_same_classes():
    assert transformer.TransformerOpParallelConfig is pc.TransformerOpParallelConfig
    assert transformer.MoEConfig is pc.MoEConfig
    assert op_parallel_config.OpParallelConfig is pc.OpParallelConfig


def test_nothing_is_shared():
    one, other = pc.TransformerOpParallelConfig(), pc.TransformerOpParallelConfig()
    one.recompute.recompute = True
    one.data_parallel = 4
    assert other.recompute.recompute is False and other.data_parallel == 1


@pytest.mark.parametrize("args, error", [
    ({"data_parallel": 0}, ValueError), ({"model_parallel": 2.0}, TypeError), ({"model_parallel": True}, TypeError),
    ({"use_seq_parallel": 1}, TypeError), ({"context_parallel_algo": "ring"}, ValueError),
    ({"recompute": 3}, TypeError),
    ({"context_parallel_algo": "hybird_cp", "context_parallel": 4, "ulysses_degree_in_cp": 3}, ValueError),
])
def test_wrong_values(args, error):
    with pytest.raises(error):
        pc.TransformerOpParallelConfig(**args)


def test_values_are_checked_when_set_later():
    config = pc.OpParallelConfig()
    with pytest.raises(ValueError, match="OpParallelConfig.data_parallel"):
        config.data_parallel = -1


def test_views_and_dicts():
    config = pc.TransformerOpParallelConfig(data_parallel=2, model_parallel=4, expert_parallel=2, pipeline_stage=2)
    assert config.vocab_emb_dp is False
    assert config.dp_mp_config == pc.OpParallelConfig(2, 4)
    assert config.moe_parallel_config.dpmp == pc.OpParallelConfig(2, 4)
    assert config.embedding_dp_mp_config.vocab_emb_dp is False
    assert config.to_diff_dict() == {"data_parallel": 2, "model_parallel": 4, "expert_parallel": 2, "pipeline_stage": 2,
                                     "vocab_emb_dp": False}
    assert pc.TransformerOpParallelConfig.from_dict(config.to_dict()) == config


def test_devices():
    config = pc.TransformerOpParallelConfig(data_parallel=2, model_parallel=4)
    config.check_devices(8, exact=True)
    with pytest.raises(ConfigError, match="8 devices, but the job has 4"):
        config.check_devices(4)
    with pytest.raises(ConfigError):
        config.check_devices(16, exact=True)


def test_ulysses_degree():
    assert pc.OpParallelConfig(context_parallel=4).get_ulysses_cp_num() == 1
    assert pc.OpParallelConfig(context_parallel=4, context_parallel_algo="ulysses_cp").get_ulysses_cp_num() == 4
    hybrid = pc.TransformerOpParallelConfig(context_parallel=4, context_parallel_algo="hybird_cp",
                                            ulysses_degree_in_cp=2)
    assert hybrid.get_ulysses_cp_num() == 2


@pytest.mark.parametrize("args", [
    {"aux_loss_factor": 1.0}, {"num_experts_chosen": 2}, {"hot_expert_num": 2}, {"cold_token_percent": 0.0},
    {"router_dense_type": "int8"}, {"expert_num": 0}])
def test_wrong_experts(args):
    with pytest.raises(ValueError):
        pc.MoEConfig(**args)


def test_sections_become_objects_and_unknown_keys_are_named():
    config = {"parallel_config": {"data_parallel": 2}, "recompute_config": {"recompute": True}}
    pc.build_parallel_config(config)
    assert config["parallel_config"].recompute is config["recompute_config"]
    assert config["moe_config"] == pc.MoEConfig()
    pc.reset_parallel_config(config)
    assert config["parallel_config"].data_parallel == 1
    assert config["parallel_config"].recompute.recompute is True
    with pytest.raises(ConfigError, match="'data_parallel'"):
        pc.build_parallel_config({"parallel_config": {"data_paralel": 2}})
