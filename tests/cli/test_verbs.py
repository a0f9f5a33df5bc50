"""The verbs in process: overrides, check of YAMLs and folders, ls, error and exit codes."""
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mindformers.cli import run
from mindformers.cli.arguments import parse
from mindformers.cli.console import InputError, describe, guarded
from mindformers.cli.main import main
from mindformers.tools.errors import CheckpointMismatchError, ConfigError, DamagedFileError, UnsupportedError

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "tests" / "reference" / "llama"
PREDICT = str(ROOT / "configs" / "tiny" / "predict_llama_tiny.yaml")


@pytest.fixture(name="started")
def _started(monkeypatch):
    """What would be run: the configurations that reach the Trainer."""
    configs = []
    monkeypatch.setattr(run, "start_job", configs.append)
    monkeypatch.setattr(run, "require_inputs", lambda config, source: None)
    monkeypatch.setenv("LOCAL_DEFAULT_PATH", "./output")
    return configs


def test_arguments_reach_their_keys_and_win(started, tmp_path):
    code = run.main(["--config", PREDICT, "--predict_data", r"def f():\n", "--seed", "0", "--batch_size", "3",
                     "--epochs=2", "--options", "model.model_config.max_decode_length=7", "use_parallel=False",
                     "--output_dir", str(tmp_path), "--top_k", "4", "--do_sample", "True",
                     "--model.model_config.top_p", "0.5",
                     "--model.model_config.block_size=32", "--predict_batch_size", "2"])
    config = started[0]
    assert code == 0
    assert config.input_data == "def f():\n" and config.seed == 0 and config.predict_batch_size == 2
    assert (config.runner_config.batch_size, config.runner_config.epochs) == (3, 2)
    model = config.model.model_config
    assert (model.max_decode_length, model.top_p, model.block_size) == (7, 0.5, 32)
    assert (model.top_k, model.do_sample) == (4, True)
    assert config.output_dir == str(tmp_path)


def test_several_prompts_and_values_that_start_with_a_minus(started):
    assert run.main(["--config", PREDICT, "--predict_data", "- a list", "two",
                     "--model.model_config.ignore_token_id", "-7"]) == 0
    assert started[0].input_data == ["- a list", "two"] and started[0].model.model_config.ignore_token_id == -7


def test_names_and_paths_of_the_suite_are_found_from_anywhere(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("configs/tiny/predict_llama_tiny.yaml", "tiny/predict_llama_tiny.yaml", "predict_llama_tiny",
                 "llama_tiny"):
        assert run.main(["--config", name]) == 0
    assert len(started) == 4


def test_the_run_verb_takes_the_file_without_an_option(started):
    assert main(["run", PREDICT, "--seed", "5"]) == 0
    assert started[0].seed == 5


def test_the_keys_of_options_may_be_nested_lists():
    _, overrides = parse(["--config", "x", "--options", "a.b=[(1,2),True]", "c=x,y"], "prog")
    assert overrides == {"a.b": [(1, 2), True], "c": ["x", "y"]}


def test_values_may_hold_equal_signs(started):
    assert run.main(["--config", PREDICT, "--predict_data=a = b", "--options", "save_file=x=1.txt",
                     "processor.tokenizer.bos_token=<k=v>", "--processor.tokenizer.eos_token=<x=y>",
                     "--processor.tokenizer.chat_template", "{{ p == 'q' }}"]) == 0
    config = started[0]
    assert (config.input_data, config.save_file) == ("a = b", "x=1.txt")
    tokenizer = config.processor.tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<k=v>", "<x=y>")
    assert tokenizer.chat_template == "{{ p == 'q' }}"


def test_a_strategy_folder_is_listed_without_effect(started, tmp_path, capsys):
    """A folder with and without strategy files; every rank loads whole weights, so none is read."""
    for folder in (tmp_path / "empty", tmp_path / "full"):
        folder.mkdir()
        (tmp_path / "full" / "ckpt_strategy_rank_0.ckpt").write_bytes(b"") if folder.name == "full" else None
        assert run.main(["--config", PREDICT, "--predict_data", "x", "--strategy_load_checkpoint", str(folder)]) == 0
        assert started[-1].parallel.strategy_ckpt_load_file == str(folder)
        assert "parallel.strategy_ckpt_load_file (models are not sharded here" in capsys.readouterr().err


def test_a_folder_as_prompt_is_refused(tmp_path, capsys):
    assert run.main(["--config", PREDICT, "--predict_data", str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("error, code, text", [
    (ConfigError("bad value"), 2, "error: bad value"),
    (CheckpointMismatchError("lacks 3 tensors"), 2, "error: lacks 3 tensors"),
    (DamagedFileError("model.ckpt is truncated"), 2, "error: model.ckpt is truncated"),
    (UnsupportedError("no such thing here"), 2, "error: no such thing here"),
    (FileNotFoundError("x holds no weights"), 2, "error: x holds no weights"),
    (FileNotFoundError(2, "No such file or directory", "x"), 1, "error: x: No such file or directory"),
    (OSError(28, "No space left on device", "x.ckpt"), 1, "error: x.ckpt: No space left on device"),
    (ValueError("a loss that is not finite"), 1, "error: a loss that is not finite"),
    (RuntimeError("broke"), 1, "error: RuntimeError: broke"),
    (KeyError("x"), 1, "error: missing key 'x'"),
    (ZeroDivisionError(), 1, "error: ZeroDivisionError"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (SystemExit(0), 0, ""),
    (SystemExit(3), 3, ""),
])
def test_errors_of_a_job(error, code, text, capsys, monkeypatch):
    def job():
        raise error
    monkeypatch.setenv("MF_LOG_LEVEL", "INFO")
    assert guarded(job) == code
    printed = capsys.readouterr().err
    assert text in printed and "Traceback" not in printed


def test_debug_shows_the_traceback(capsys, monkeypatch):
    monkeypatch.setenv("MF_LOG_LEVEL", "INFO")
    from mindformers.tools.logger import set_console_level
    try:
        assert guarded(lambda: 1 / 0, debug=True) == 1
    finally:
        set_console_level("INFO")
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "error: ZeroDivisionError: division by zero" in printed


def test_a_missing_package_says_how_to_install():
    assert "pip install" in describe(ModuleNotFoundError("No module named 'mindspore'", name="mindspore"))
    assert "pip install" not in describe(ModuleNotFoundError("no", name="mindformers.x"))


def test_check_yaml(capsys):
    assert main(["check", PREDICT]) == 0
    out = capsys.readouterr().out
    assert "valid, run_mode predict" in out and "parameters" in out and "--predict_data" in out
    assert main(["check", PREDICT, "--options", "seed=x"]) == 2
    assert "must be int" in capsys.readouterr().err
    assert main(["check"]) == 2 and main(["check", "nowhere.yaml"]) == 2


def test_check_counts_what_trains_of_a_model_with_adapters(capsys):
    assert main(["check", "configs/tiny/lora_llama_tiny.yaml"]) == 0
    # rank 8, six layers: wq 256+256, wk and wv 256+128, wo 256+256, w1, w2 and w3 256+704
    expected = 8 * 6 * (2 * 512 + 2 * 384 + 3 * 960)
    assert f"{expected:,} parameters of LoRA adapters train" in capsys.readouterr().out


def test_check_kernels(capsys):
    assert main(["check", "--kernels"]) == 0
    assert "rms_norm" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["llama2", "gqa", "tied", "biases", "bf16", "head_dim"])
def test_check_folder_finds_a_reference_model_right(name, capsys):
    assert main(["check", str(REFERENCE / name)]) == 0
    assert "valid" in capsys.readouterr().out


def _broken(tmp_path, change):
    folder = tmp_path / "model"
    shutil.copytree(REFERENCE / "gqa", folder)
    change(folder)
    return str(folder)


def _edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _edit_weights(folder, change):
    from safetensors.numpy import load_file
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, folder / "model.safetensors",
              {"format": "pt"})


@pytest.mark.parametrize("change, expected", [
    (lambda folder: _edit_config(folder, intermediate_size=48), "but the config gives"),
    (lambda folder: _edit_config(folder, num_hidden_layers=9), "missing: model.layers"),
    (lambda folder: _edit_config(folder, hidden_size="x"), "config:"),
    (lambda folder: (folder / "config.json").unlink(), "config:"),
    (lambda folder: (folder / "config.json").write_text("{"), "config:"),
    (lambda folder: (folder / "model.safetensors").unlink(), "weights:"),
    (lambda folder: _edit_weights(folder, lambda w: w.pop("model.norm.weight")), "missing: model.norm_out.weight"),
    (lambda folder: _edit_weights(folder, lambda w: w.update(extra=np.zeros(2, np.float32))), "unexpected: extra"),
    (lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:999]),
     "weights:"),
    (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json: not readable"),
    (lambda folder: (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 99999}}})),
     "largest token id is 99999"),
])
def test_check_folder_finds_what_is_wrong(tmp_path, change, expected, capsys):
    assert main(["check", _broken(tmp_path, change)]) == 2
    assert expected in capsys.readouterr().err


def test_check_folder_reports_weights_that_have_no_config(tmp_path, capsys):
    assert main(["check", _broken(tmp_path, lambda folder: (folder / "config.json").unlink())]) == 2
    told = capsys.readouterr().err.splitlines()
    assert "1 fault" in told[0] and "holds neither config.json nor a .yaml file" in told[1]
    assert any("found: weights: 21 tensors, " in line and "float32" in line for line in told)
    assert any("found: names: " in line and "model.embed_tokens.weight [96, 64]" in line for line in told)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "LlamaForSequenceClassification"])
@pytest.mark.parametrize("fields", [{}, {"qkv_has_bias": True, "attn_proj_has_bias": True, "mlp_has_bias": True},
                                    {"qkv_concat": True},
                                    {"tie_word_embeddings": True, "n_kv_heads": 2, "head_dim": 12}])
def test_shapes_counted_from_the_config_are_those_of_the_model(architecture, fields):
    import mindformers
    from mindformers.models.llama.llama_shapes import parameter_shapes
    config = mindformers.LlamaConfig(num_layers=2, hidden_size=32, num_heads=4, vocab_size=40, seq_length=16,
                                     intermediate_size=48, param_init_type="float32", **fields)
    model = getattr(mindformers, architecture)(config)
    assert parameter_shapes(config, architecture) == {
        parameter.name: tuple(parameter.shape) for parameter in model.get_parameters()}


def test_ls(capsys):
    assert main(["ls"]) == 0
    out = capsys.readouterr().out
    assert "llama_tiny\t" in out and "LlamaForCausalLM" in out and "text_generation" in out
    assert main(["ls", "optimizer"]) == 0 and "AdamW" in capsys.readouterr().out
    assert main(["ls", "optimiser"]) == 2 and "Did you mean 'optimizer'" in capsys.readouterr().err


def test_convert_refuses_before_it_starts(tmp_path, capsys):
    assert main(["convert", "nowhere", str(tmp_path), "--to", "hf"]) == 2
    assert main(["convert", str(tmp_path), str(tmp_path), "--to", "hf"]) == 2
    assert main(["convert", str(tmp_path), str(tmp_path / "x"), "--to", "hf", "--format", "ckpt"]) == 2
    assert main(["convert", str(tmp_path)]) == 2
    (tmp_path / "file").write_text("kept")
    assert main(["convert", str(tmp_path), str(tmp_path / "file"), "--to", "hf"]) == 2
    assert (tmp_path / "file").read_text() == "kept"
    printed = capsys.readouterr().err
    assert "no such file" in printed and "same folder" in printed and "safetensors" in printed
    assert "dst must be a folder" in printed


def test_chat_refuses_before_it_starts(capsys):
    assert main(["chat", "nowhere"]) == 2
    assert main(["chat", "x", "--top_p", "2"]) == 2 and main(["chat", "x", "--temperature", "nan"]) == 2
    assert "from 0 to 1" in capsys.readouterr().err


@pytest.fixture(name="model_folder")
def _model_folder(tmp_path):
    """A reference model with a word tokenizer beside it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    folder = tmp_path / "model"
    shutil.copytree(REFERENCE / "gqa", folder)
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{number}": number for number in range(3, size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "LlamaTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>",
        "pad_token": "</s>", "add_bos_token": False, "clean_up_tokenization_spaces": False}))
    return folder


def test_chat_takes_damaged_files_for_wrong_input(model_folder, capsys):
    weights, config, tokenizer = (model_folder / name for name in ("model.safetensors", "config.json", "tokenizer.json"))
    for path, size, message in ((weights, 5000, "is truncated: tensor"), (weights, 0, "0 bytes, too short"),
                                (tokenizer, 300, "cannot be read as a tokenizer.json"),
                                (config, 100, "is not valid JSON")):
        whole = path.read_bytes()
        path.write_bytes(whole[:size])
        assert main(["chat", str(model_folder), "--message", "w5"]) == 2
        printed = capsys.readouterr().err
        assert message in printed and str(path) in printed and len(printed.splitlines()) == 1
        path.write_bytes(whole)
    tokenizer.unlink()
    assert main(["chat", str(model_folder), "--message", "w5"]) == 2
    assert "found no tokenizer.model or tokenizer.json" in capsys.readouterr().err


def test_chat_continues_the_text_of_a_model_without_template(model_folder, capsys, monkeypatch):
    greedy = ["chat", str(model_folder), "--max_new_tokens", "4", "--temperature", "0"]
    assert main([*greedy, "--message", "w5 w6 w7"]) == 0
    first = capsys.readouterr().out
    assert first.startswith("w5 w6 w7") and len(first.split()) == 7
    lines = iter(["w5 w6 w7", "/clear", "/help", "/exit", "never"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert main(greedy) == 0
    again = capsys.readouterr().out
    assert again.startswith(first) and "/clear forgets" in again


def test_convert_there_and_back_keeps_every_bit(model_folder, tmp_path, capsys):
    from safetensors.numpy import load_file
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert main(["convert", str(model_folder), str(ours), "--to", "mindformers", "--format", "ckpt"]) == 0
    assert main(["convert", str(ours), str(back), "--to", "hf"]) == 0
    assert str(back) in capsys.readouterr().out
    before, after = load_file(model_folder / "model.safetensors"), load_file(back / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_chat_on_a_terminal_survives_a_conversation_that_is_too_long(capsys):
    from mindformers.cli.chat import Talk

    class Model:
        def chat(self, tokenizer, text, history, **settings):
            raise ValueError("a prompt of 200 tokens is longer than the model's context")

    tokenizer = type("Tokenizer", (), {"chat_template": "{{ messages }}", "decode": lambda self, ids: ""})()
    args = type("Args", (), {"system": "", "temperature": 0, "max_new_tokens": 4, "seed": None})()
    talk = Talk(Model(), tokenizer, args)
    talk.history = [{"role": "user", "content": "kept"}]
    talk.interruptible_answer("more", interactive=True)
    out = capsys.readouterr().out
    assert "longer than the model's context" in out and "/clear" in out and len(talk.history) == 1
    with pytest.raises(InputError, match="longer"):  # a pipe must end with an exit code
        talk.interruptible_answer("more", interactive=False)


def test_a_folder_in_place_of_a_yaml(tmp_path, capsys):
    assert run.main(["--config", str(tmp_path)]) == 2
    assert "is a folder; give the YAML in it" in capsys.readouterr().err
