"""The command line: help of each verb, exit codes, one-line messages, and no MindSpore before the input is right."""
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mindformers.cli.main import VERBS, main

ROOT = Path(__file__).parents[2]
PREDICT = "configs/tiny/predict_llama_tiny.yaml"
PRETRAIN = "configs/tiny/pretrain_llama_tiny.yaml"

# runs the launcher in this process and tells whether MindSpore came in
_PROBE = """
import sys
sys.argv = ["run_mindformer.py", *sys.argv[1:]]
from mindformers.cli.run import main
code = main()
assert "mindspore" not in sys.modules, "mindspore was imported"
sys.exit(code)
"""


def launch(*arguments):
    """Run the launcher on wrong input; returns (exit code, stderr lines, seconds)."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", _PROBE, *arguments], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=False)
    return done.returncode, done.stderr.strip().splitlines(), time.perf_counter() - start


@pytest.mark.parametrize("arguments, message", [
    ([], "--config is required"),
    (["--config", "nothere.yaml"], "no configuration 'nothere.yaml'"),
    (["--config", PREDICT, "--use_parallel", "Flase"], "Did you mean 'False'"),
    (["--config", PREDICT, "--epoch", "2"], "Did you mean '--epochs'"),
    (["--config", PREDICT, "--epochs", "0"], "--epochs"),
    (["--config", PREDICT, "--run_mode", "trian"], "Did you mean 'train'"),
    (["--config", PREDICT, "--options", "a=[1"], "must appear in pairs"),
    (["--config", PREDICT, "--model.model_config.num_layrs", "2"], "Did you mean 'num_layers'"),
    (["--config", PREDICT, "--model.model_config.num_layers"], "not in pair"),
    (["--config", PREDICT, "--register_path", "nofolder"], "not a folder"),
    (["--config", "configs/tiny/eval_llama_tiny.yaml", "--load_checkpoint", "nofile.ckpt"],
     "'nofile.ckpt' does not exist"),
    (["--config", PRETRAIN, "--device_target", "Ascend"], "give --device_target CPU"),
    (["--config", PRETRAIN, "--use_parallel", "True"], "msrun_launcher.sh"),
])
def test_wrong_input_is_one_line_and_never_imports_mindspore(arguments, message):
    code, lines, seconds = launch(*arguments)
    print(f"{seconds:.2f} s")
    assert code == 2, lines
    assert len(lines) == 1 and message in lines[0], lines


def test_all_faults_of_a_file_come_at_once(tmp_path):
    path = tmp_path / "two.yaml"
    path.write_text((ROOT / PREDICT).read_text().replace("base_config: ", f"base_config: {ROOT}/configs/tiny/")
                    + "\nuse_paralel: True\nsed: 1\n")
    code, lines, _ = launch("--config", str(path))
    assert code == 2 and lines[0] == "error: 2 faults:" and len(lines) == 3
    assert "'use_parallel'" in lines[1] and "'seed'" in lines[2]


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_each_verb(verb, capsys):
    assert main([verb, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mindformers {verb}") and "--debug" in text


def test_help_of_the_launcher_lists_every_documented_argument():
    done = subprocess.run([sys.executable, "run_mindformer.py", "--help"], cwd=ROOT, capture_output=True, text=True,
                          timeout=60, check=True)
    for name in """config mode device_id device_target run_mode do_eval train_dataset_dir eval_dataset_dir predict_data
            predict_batch_size load_checkpoint src_strategy_path_or_dir auto_trans_ckpt only_save_strategy use_parallel
            profile sink_mode resume_training transform_process_num seed epochs batch_size gradient_accumulation_steps
            num_samples strategy_load_checkpoint remote_save_url output_dir options register_path do_sample
            trust_remote_code""".split():
        assert f"--{name}" in done.stdout


def test_overview_version_and_unknown_verbs(capsys):
    from mindformers import __version__
    assert main([]) == 0
    overview = capsys.readouterr().out
    assert all(verb in overview for verb in VERBS)
    assert main(["--version"]) == 0 and __version__ in capsys.readouterr().out
    assert main(["chek"]) == 2 and "Did you mean 'check'" in capsys.readouterr().err
