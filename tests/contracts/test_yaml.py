"""Every YAML that ships checks, names what it needs, and says in its first lines how it is run."""
import re
from pathlib import Path

import pytest

from mindformers.tools import MindFormerConfig
from mindformers.tools.register.schema import check_config

ROOT = Path(__file__).parents[2]
FILES = sorted(path for folder in ("configs", "research") for path in (ROOT / folder).rglob("*.yaml")
               if "_base_" not in path.parts and not path.parent.joinpath("config.json").exists())


def test_files_were_found():
    print(f"{len(FILES)} YAML files")
    assert len([path for path in FILES if "tiny" in path.parts]) >= 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_checks(path):
    config, ignored = check_config(MindFormerConfig(path), str(path))
    assert config.run_mode in ("train", "finetune", "eval", "predict")
    assert all(reason for _, reason in ignored)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_begins_with_the_command_that_runs_it(path):
    head = "\n".join(line for line in path.read_text(encoding="utf-8").splitlines()[:8] if line.startswith("#"))
    commands = re.findall(r"run_mindformer\.py --config (\S+\.yaml)", head)
    assert commands and all((ROOT / command).is_file() for command in commands)
    assert str(path.relative_to(ROOT)) in commands
