"""research/: what each folder holds, and that imports go one way."""
import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESEARCH = ROOT / "research"
FOLDERS = sorted(path for path in RESEARCH.iterdir() if path.is_dir() and path.name != "__pycache__")
EACH = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def imports(files):
    """Top names of everything that the files import."""
    found = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def modules(folder):
    return {path.stem for path in folder.glob("*.py")}


def test_folders_were_found():
    assert {folder.name for folder in FOLDERS} >= {"_template", "qwen2"}


@EACH
def test_files_of_a_folder(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    heads = re.search(r"^\| owner \| status \| compared with \|\n\|[-|]+\|\n\| (.+) \| (.+) \| (.+) \|$", readme, re.M)
    assert heads and all(heads.groups())
    assert list(folder.glob("test_*.py")), "tests of its own"
    assert not list(folder.glob("run_*.py")), "run_mindformer.py starts it"
    assert f"({folder.name}/README.md)" in (RESEARCH / "README.md").read_text(encoding="utf-8")


@EACH
def test_yamls_say_how_they_are_run(folder):
    files = list(folder.glob("*.yaml"))
    assert files
    for file in files:
        assert file.name.startswith(("pretrain_", "finetune_", "predict_", "eval_"))
        head = "".join(file.read_text(encoding="utf-8").splitlines(keepends=True)[:4])
        assert f"run_mindformer.py --config research/{folder.name}/{file.name} --register_path research/{folder.name}" \
            in head


@EACH
def test_a_folder_is_imported_by_no_other_and_not_by_the_suite(folder):
    own = modules(folder)
    assert own
    assert not own & imports((ROOT / "mindformers").rglob("*.py"))
    for other in FOLDERS:
        if other != folder:
            assert not own & modules(other), "two modules of one name"
            assert not own & imports(other.glob("*.py"))
