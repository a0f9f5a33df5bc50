"""The floors of the house: rooms import rooms of lower floors only."""
import ast
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from floors import FLOORS, imports_of, nodes_of, violations  # noqa: E402

PACKAGE = Path(__file__).parents[2] / "mindformers"
# table of names: strings and imports are how F7 offers everything below it
NO_MINDSPORE = ("tools", "cli", "version_control.py", "__init__.py", "mindformer_book.py", "run_check.py",
                "core/parallel_config.py", "generation/generation_config.py", "models/configuration_utils.py")


def test_no_room_imports_upwards_or_sideways():
    found = violations(PACKAGE)
    assert not found, "\n".join(found)


def test_every_room_is_on_a_floor_and_was_read():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert rooms <= set(FLOORS) and {"tools", "core", "models", "trainer"} <= rooms
    assert sum(len(imports_of(path, PACKAGE)) for path in PACKAGE.rglob("*.py")) > 100


def test_the_check_sees_a_violation(tmp_path):
    house = tmp_path / "mindformers"
    for name, text in {
        "core/good.py": "from mindformers.tools.errors import ConfigError\nfrom mindformers.core import other\n",
        "core/up.py": "def f():\n    from mindformers.trainer import Trainer\n    return Trainer\n",
        "core/sideways.py": "import mindformers.hub.ops\n",
        "core/relative.py": "from ..models import llama\n",
        "core/named.py": "from mindformers import dataset\n",
        "core/dynamic.py": "import importlib\nimportlib.import_module('mindformers.cli.main')\n",
        "models/llama/llama.py": ("from mindformers.models.glm2.glm2 import X\n"
                                  "from mindformers.models.modeling_utils import Y\n"),
        "attic/x.py": "",
    }.items():
        path = house / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = "\n".join(violations(house))
    for part in ("core/up.py:2", "core/sideways.py:1", "core/relative.py:1", "core/named.py:1", "core/dynamic.py:2",
                 "llama/llama.py:1", "'attic' is on no floor"):
        assert part in found
    assert "good" not in found and "llama/llama.py:2" not in found and len(found.splitlines()) == 7


def _files(names):
    for name in names:
        path = PACKAGE / name
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def test_mindspore_is_not_imported_at_import_time_where_it_must_not_be():
    files = [*_files(NO_MINDSPORE), *PACKAGE.glob("models/*/*_config.py"), *PACKAGE.glob("models/tokenization*.py")]
    assert len(files) > 25
    for path in files:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in _import_time_nodes(tree):
            names = ([alias.name for alias in node.names] if isinstance(node, ast.Import) else
                     [node.module or ""] if isinstance(node, ast.ImportFrom) else [])
            assert not any(name.split(".")[0] == "mindspore" for name in names), f"{path}:{node.lineno}"


def _import_time_nodes(node):
    """The nodes of a module that run when it is imported: all but the bodies of functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child
            yield from _import_time_nodes(child)


def test_only_env_reads_the_environment():
    readers = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")
               if any(isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "putenv")
                      and getattr(node.value, "id", "") == "os" or
                      isinstance(node, ast.ImportFrom) and node.module == "os"
                      and any(alias.name in ("environ", "getenv") for alias in node.names)
                      for node in nodes_of(path))]
    assert readers == ["tools/env.py"]


def test_variables_that_are_read_are_listed():
    from mindformers.tools.env import VARIABLES
    for path in PACKAGE.rglob("*.py"):
        for node in nodes_of(path):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("get_env", "get_env_int"):
                argument = node.args[0]
                if isinstance(argument, ast.Constant):
                    assert argument.value in VARIABLES, f"{path}:{node.lineno} reads {argument.value}"
