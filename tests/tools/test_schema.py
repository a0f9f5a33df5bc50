"""The schema: faults with line and nearest key, ignored keys with reasons, defaults, rules across keys."""
import copy
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mindformers.tools import ConfigError, MindFormerConfig
from mindformers.tools.register.readiness import missing_inputs, require_inputs
from mindformers.tools.register.schema import check_config
from mindformers.tools.register.sections import ROOT

FIXTURES = Path(__file__).parents[1] / "fixtures" / "mindformers_1_3"

MODEL = {"arch": {"type": "LlamaForCausalLM"},
         "model_config": {"type": "LlamaConfig", "num_layers": 2, "hidden_size": 64, "num_heads": 4, "vocab_size": 100,
                          "seq_length": 32}}
DATA = {"data_loader": {"type": "PythonSourceDataLoader", "dataset_dir": "./data", "seq_length": 32}}


def train_config(**changes):
    """A small valid training configuration, with dotted changes."""
    config = MindFormerConfig(
        run_mode="train", trainer={"type": "CausalLanguageModelingTrainer"}, model=copy.deepcopy(MODEL),
        runner_config={"epochs": 1, "batch_size": 2}, train_dataset=copy.deepcopy(DATA),
        train_dataset_task={"type": "CausalLanguageModelDataset"}, optimizer={"type": "AdamW"},
        lr_schedule={"type": "CosineWithWarmUpLR", "learning_rate": 1e-3},
        runner_wrapper={"type": "MFTrainOneStepCell"})
    config.merge_from_dict({key.replace("__", "."): value for key, value in changes.items()})
    return config


def fault(config):
    """The message of the ConfigError that a configuration gives."""
    with pytest.raises(ConfigError) as caught:
        check_config(config)
    return str(caught.value)


def test_a_valid_configuration_is_completed_and_left_as_it_was():
    config = train_config()
    before = config.to_dict()
    checked = check_config(config)
    assert config.to_dict() == before and not checked.ignored
    assert checked.config.output_dir == "./output" and checked.config.use_parallel is False
    assert checked.config.runner_config.gradient_accumulation_steps == 1
    assert checked.config.context.device_target == "CPU" and checked.config.runner_config.sink_mode is False
    again = check_config(checked.config)
    assert again.config == checked.config and not again.ignored


def test_all_faults_of_a_file_with_line_and_nearest_key(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("run_mode: predict\nuse_paralel: True\nuse_parallel: Flase\ntrainer:\n"
                    "  type: CausalLanguageModelingTrainer\nrunner_config:\n  epochs: two\nmodel:\n  arch:\n"
                    "    type: LlamaForCausaLM\n  model_config:\n    type: LlamaConfig\n    num_layrs: 2\n")
    message = fault(MindFormerConfig(path))
    assert "5 faults" in message
    for line, key, hint in ((2, "use_paralel", "'use_parallel'"), (3, "use_parallel", "must be bool"),
                            (7, "runner_config.epochs", "'two'"), (10, "model.arch.type", "'LlamaForCausalLM'"),
                            (13, "model.model_config.num_layrs", "'num_layers'")):
        found = next(text for text in message.splitlines() if f"bad.yaml:{line}: {key}:" in text)
        assert hint in found
    assert message.index(":2:") < message.index(":13:")


@pytest.mark.parametrize("key, value, expected", [
    ("run_mode", "trian", "Did you mean 'train'"),
    ("run_mode", None, "is missing"),
    ("seed", -1, "at least 0"),
    ("seed", True, "must be int"),
    ("use_parallel", "Flase", "Did you mean 'False'"),
    ("use_parallel", 1, "must be bool"),
    ("runner_config.batch_size", 0, "at least 1"),
    ("runner_config.batch_size", 2.5, "must be int"),
    ("runner_config.sink_mode", "yes", "must be bool"),
    ("lr_schedule.warmup_ratio", 1.5, "at most 1"),
    ("lr_schedule.learning_rate", "fast", "must be float"),
    ("lr_schedule.learning_rate", float("nan"), "finite"),
    ("lr_schedule.learning_rat", 1.0, "Did you mean 'learning_rate'"),
    ("lr_schedule.type", "CosineWithWarmUp", "Did you mean 'CosineWithWarmUpLR'"),
    ("optimizer.wieght_decay", 0.1, "Did you mean 'weight_decay'"),
    ("optimizer.betas", [0.9], "two numbers"),
    ("optimizer.weight_decay", -1, "at least 0"),
    ("context.mode", 5, "must be one of"),
    ("context.device_target", "GPU", "must be one of"),
    ("context.max_device_memry", "1GB", "Did you mean 'max_device_memory'"),
    ("runner_wrapper.scale_sense", "DynamicLossScaleUpdatCell", "Did you mean 'DynamicLossScaleUpdateCell'"),
    ("callbacks", {"type": "MFLossMonitor"}, "must be a list"),
    ("callbacks", [{"type": "MFLosMonitor"}], "Did you mean 'MFLossMonitor'"),
    ("callbacks", [{"per_print_times": 1}], "is missing"),
    ("model.model_config.hidden_size", 63, "multiple of num_heads"),
    ("model.model_config.pet_config", {"pet_type": "lora"}, "target_modules: is missing"),
    ("model.model_config.pet_config", {"pet_type": "lora", "lora_rnk": 4}, "Did you mean 'lora_rank'"),
    ("model.model_config.pet_config", {"pet_type": "prefixtuning"}, "is not carried; use pet_type: lora"),
    ("model.model_config.pet_config", {"pet_type": "lara"}, "must be one of lora"),
    ("model.model_config.pet_config", "lora", "must be a section with pet_type"),
    ("model.model_config.quantization_config", {"quant_method": "rtn"}, "not carried"),
    ("model.model_config.compute_dtype", "float61", "float16"),
    ("moe_config.expert_num", 8, "mixture of experts"),
    ("only_save_strategy", True, "not carried"),
    ("micro_batch_interleave_num", 2, "set it to 1"),
    ("train_dataset.data_loader.type", "MindDataet", "Did you mean 'MindDataset'"),
    ("train_dataset.prefech_size", 1, "Did you mean 'prefetch_size'"),
    ("train_dataset", None, "section is missing"),
    ("model", None, "section is missing"),
    ("model", 5, "must be a section"),
    ("load_checkpoint", 5, "must be str"),
    ("quantization_config", {"a": 1}, "not carried"),
])
def test_faults(key, value, expected):
    message = fault(train_config(**{key: value}))
    assert expected in message and key.split(".")[-1] in message


def test_model_parallel_is_refused_with_the_reason_and_semi_auto_is_explained():
    config = train_config(use_parallel=True, parallel__parallel_mode=1, parallel_config__model_parallel=2)
    assert "parallel_config.model_parallel: 2 needs a model sharded" in fault(config)
    config = train_config(use_parallel=True, parallel__parallel_mode=1, parallel_config__data_parallel=2)
    checked = check_config(config)
    assert "data parallel" in dict(checked.ignored)["parallel.parallel_mode"]
    assert checked.config.parallel.parallel_mode == 0
    assert "not carried" in fault(train_config(use_parallel=True, parallel__parallel_mode=2))


def test_splits_are_inert_without_use_parallel():
    checked = check_config(train_config(parallel_config__model_parallel=8))
    assert checked.ignored == [("parallel_config.model_parallel", "use_parallel is False")]
    assert checked.config.parallel_config.model_parallel == 1


@pytest.mark.parametrize("key, value", [
    ("runner_config.sink_mode", True), ("context.max_device_memory", "58GB"),
    ("context.ascend_config", {"precision_mode": "x"}),
    ("recompute_config.select_recompute", True), ("auto_trans_ckpt", True), ("train_dataset.num_parallel_workers", 8),
    ("profile", True), ("parallel.enable_parallel_optimizer", True), ("remote_save_url", "obs://x"),
    ("model.model_config.use_flash_attention", True),
])
def test_keys_without_effect_are_listed_with_a_reason(key, value):
    checked = check_config(train_config(**{key: value}))
    assert list(dict(checked.ignored)) == [key] and len(dict(checked.ignored)[key]) > 10


@pytest.mark.parametrize("key, value", [
    ("auto_tune", False), ("filepath_prefix", "./autotune"), ("profile_start_step", 1), ("layer_decay", 0.65),
    ("moe_config", {"expert_num": 1, "capacity_factor": 1.05}), ("recompute_config.recompute", False),
    ("remote_save_url", ""), ("micro_batch_interleave_num", 1), ("load_ckpt_format", "safetensors"),
])
def test_values_that_ask_for_nothing_are_not_listed(key, value):
    assert not check_config(train_config(**{key: value})).ignored


def test_ascend_keys_work_on_ascend():
    checked = check_config(train_config(context__device_target="Ascend", context__max_device_memory="58GB",
                                        runner_config__sink_mode=True))
    assert not checked.ignored and checked.config.runner_config.sink_mode is True


def test_sections_a_mode_does_not_use_may_name_what_is_not_carried():
    config = train_config(run_mode="predict", train_dataset__data_loader__type="ADGenDataLoader")
    assert "not used in mode predict" in dict(check_config(config).ignored)["train_dataset.data_loader.type"]
    config = train_config(run_mode="predict", optimizer__wieght_decay=1)
    assert "wieght_decay" in fault(config)  # a typo is a typo everywhere


def test_betas_reach_the_optimizer_in_its_own_form():
    checked = check_config(train_config(optimizer__beta1=0.9, optimizer__beta2=0.95)).config.optimizer
    assert list(checked.betas) == [0.9, 0.95] and checked.beta1 is None
    fp32 = {"type": "FP32StateAdamWeightDecay", "betas": [0.9, 0.95]}
    checked = check_config(train_config(optimizer=fp32)).config.optimizer
    assert (checked.beta1, checked.beta2, checked.betas) == (0.9, 0.95, None)
    assert "given twice" in fault(train_config(optimizer__betas=[0.9, 0.95], optimizer__beta1=0.9))


def test_dataset_config_and_dataset_count_once():
    config = train_config(train_dataset_task__dataset_config=copy.deepcopy(DATA))
    checked = check_config(config).config
    assert "dataset_config" not in checked.train_dataset_task
    config = train_config(train_dataset=None, train_dataset_task__dataset_config=copy.deepcopy(DATA))
    assert check_config(config).config.train_dataset.data_loader.type == "PythonSourceDataLoader"
    config = train_config(train_dataset=None, train_dataset_task__dataset_config={"data_loader": {"type": "Nope"}})
    assert "Nope" in fault(config)


def test_document_resets_and_padded_batches_reach_the_dataset():
    config = train_config(train_dataset__eod_reset=True, train_dataset__eod_token_id=2,
                          train_dataset__dynamic_batch=True, train_dataset__divisor=8, train_dataset__remainder=1)
    checked = check_config(config)
    assert checked.config.train_dataset.eod_reset is True and checked.config.train_dataset.divisor == 8
    assert not checked.ignored


def test_batch_size_of_the_dataset_gives_way():
    checked = check_config(train_config(train_dataset__batch_size=6))
    assert checked.config.train_dataset.batch_size == 2
    assert dict(checked.ignored) == {"train_dataset.batch_size": "runner_config.batch_size (2) is used"}


def test_paths_are_found_beside_the_yaml(tmp_path, monkeypatch):
    (tmp_path / "configs" / "weights").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "configs" / "p.yaml"
    path.write_text("run_mode: predict\nload_checkpoint: ./weights\ntrainer: {type: CausalLanguageModelingTrainer}\n"
                    "model:\n  arch: {type: LlamaForCausalLM}\n  model_config: {type: LlamaConfig}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert check_config(MindFormerConfig(path)).config.load_checkpoint == str(tmp_path / "configs" / "weights")
    (tmp_path / "elsewhere" / "weights").mkdir()
    assert check_config(MindFormerConfig(path)).config.load_checkpoint == "./weights"


def test_the_text_none_means_none_where_none_is_allowed():
    assert check_config(train_config(load_checkpoint="None")).config.load_checkpoint is None


def test_partial_configurations_when_objects_are_given_beside():
    assert check_config(MindFormerConfig(seed=1), complete=False).config.seed == 1
    assert "missing" in fault(MindFormerConfig(seed=1))


def test_real_mindformers_files_check():
    files = sorted(FIXTURES.glob("*.yaml"))
    assert len(files) == 4
    for path in files:
        config, ignored = check_config(MindFormerConfig(path), str(path))
        assert config.model.model_config.num_layers == 32 and config.seed == 0
        assert all(reason for _, reason in ignored) and ignored
        reported = dict(ignored)
        assert any(key.startswith("recompute_config") for key in reported)
        assert ("callbacks[2].type" in reported) == (config.run_mode in ("train", "finetune"))


@pytest.mark.parametrize("name", [path.name for path in sorted(FIXTURES.glob("*.yaml"))])
def test_real_files_say_what_they_need(name):
    config = check_config(MindFormerConfig(FIXTURES / name)).config
    needed = {path[0] for path, _ in missing_inputs(config, devices={"CPU"})}
    assert "context" in needed and "context" not in {
        path[0] for path, _ in missing_inputs(config, devices={"CPU", "Ascend"})}
    expected = {"train": "train_dataset", "finetune": "train_dataset", "eval": "eval_dataset", "predict": "input_data"}
    assert expected[config.run_mode] in needed


def test_require_inputs_lists_everything_with_lines(tmp_path):
    config = check_config(MindFormerConfig(FIXTURES / "predict_llama2_7b.yaml")).config
    config.context.device_target = "CPU"
    with pytest.raises(ConfigError, match="3 inputs are missing") as caught:
        require_inputs(config)
    assert "--load_checkpoint" in str(caught.value) and "predict_llama2_7b.yaml:" in str(caught.value)
    config.merge_from_dict({"load_checkpoint": str(tmp_path), "input_data": "hello"}, source="command line")
    with pytest.raises(ConfigError, match="holds no weights"):
        require_inputs(config)
    (tmp_path / "model.ckpt").write_text("")
    config.merge_from_dict({"load_checkpoint": str(tmp_path / "model.ckpt"), "input_data": "hello",
                            "processor.tokenizer.vocab_file": str(tmp_path / "model.ckpt")})
    require_inputs(config)


def test_the_output_folder_can_be_written(tmp_path, monkeypatch):
    config = MindFormerConfig(run_mode="train", output_dir=str(tmp_path / "new" / "newer"))

    def found():
        return [message for path, message in missing_inputs(config, devices={"CPU"}) if path == ("output_dir",)]

    assert found() == []
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != tmp_path)
    assert found() == [f"nothing can be written in {str(tmp_path)!r}; give --output_dir another folder"]
    (tmp_path / "new").write_text("")
    assert found() == [f"{str(tmp_path / 'new')!r} is a file; give --output_dir a folder"]


ODD = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=4), st.just([]),
                st.just({}), st.lists(st.integers(), max_size=2),
                st.dictionaries(st.text(max_size=3), st.integers(), max_size=2))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(sorted(ROOT.keys)), inner=st.one_of(st.none(), st.text(min_size=1, max_size=5)), value=ODD)
def test_nothing_but_config_error_comes_out(key, inner, value):
    config = train_config()
    if inner is None or not isinstance(config.get(key), dict):
        config[key] = value
    else:
        config[key][inner] = value
    try:
        check_config(config)
    except ConfigError as error:
        assert str(error)


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), value=ODD)
def test_no_known_key_crashes_on_an_odd_value(data, value):
    sections = [name for name, spec in ROOT.keys.items() if getattr(spec, "keys", None)]
    name = data.draw(st.sampled_from(sections))
    key = data.draw(st.sampled_from(sorted(ROOT.keys[name].keys)))
    config = train_config(run_mode=data.draw(st.sampled_from(["train", "predict", "eval"])))
    if not isinstance(config.get(name), dict):
        config[name] = {}
    config[name][key] = value
    try:
        check_config(config)
    except ConfigError as error:
        assert str(error)


def test_modules_of_the_users_own_must_be_there(tmp_path, monkeypatch):
    config = MindFormerConfig(run_mode="train", model={"arch": {"type": "Mine", "auto_register": "mine.Mine"}})

    def said():
        return [message for path, message in missing_inputs(config, devices={"CPU"})
                if path == ("model", "arch", "auto_register")]

    monkeypatch.setenv("REGISTER_PATH", "")
    assert said() == ["'mine.Mine' is a class of your own; give --register_path, the folder of mine.py"]
    monkeypatch.setenv("REGISTER_PATH", str(tmp_path))
    assert len(said()) == 1 and f"there is no '{tmp_path / 'mine.py'}'" in said()[0]
    (tmp_path / "mine.py").write_text("")
    assert not said()
