"""Which form runs: what the library must be to be used, what MF_KERNELS forces, and who runs each op."""
import ctypes
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindformers import kernels
from mindformers.kernels import build, library, select
from mindformers.kernels.library import Verdict
from mindformers.tools.errors import UnsupportedError

ROOT = Path(__file__).parents[2]
IS_STALE = library.is_stale
CACHES = (library.load, library.facts, library.verdict, library.plugin_verdict, library.warn_once)


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    """Each test decides anew, with no variable set; sources newer than the library have a test of their own."""
    monkeypatch.setattr(library, "is_stale", lambda: False)
    monkeypatch.delenv("MF_KERNELS", raising=False)
    for function in CACHES:
        function.cache_clear()
    yield
    for function in CACHES:
        function.cache_clear()


@pytest.fixture(name="warnings")
def _warnings(monkeypatch):
    """The warnings that are logged."""
    texts = []
    monkeypatch.setattr(library.logger, "warning", texts.append)
    return texts


def in_new_process(code, **variables):
    """Run Python code in a process of its own with these variables only; returns (code, stdout, stderr)."""
    for name in ("MF_KERNELS", "MS_OP_PLUGIN_PATH"):
        variables.setdefault(name, None)
    environment = {name: value for name, value in {**os.environ, **variables}.items() if value is not None}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False,
                          env=environment)
    return done.returncode, done.stdout, done.stderr


def test_the_library_of_this_checkout_is_used():
    assert library.verdict() == Verdict(True)
    found = library.facts()
    assert found.abi == build.ABI and found.mindspore_versions == build.MINDSPORE_VERSIONS
    assert found.sources == build.source_digest(), f"build it first: {library.BUILD}"
    assert found.threads >= 1
    assert found.isa in build.ISAS[build.machine()]
    assert kernels.form() == "fused"


def test_every_op_is_described_by_who_runs_it():
    table = kernels.describe()
    assert set(table) == set(kernels.OPS)
    modules = {runner: module for module, runner in select.RUNNERS.items()}
    for op, info in table.items():
        function = kernels.get(op)
        assert callable(function)
        assert function is getattr(importlib.import_module(f"mindformers.kernels.{modules[info.runner]}"), op)
        assert (info.form == "portable") == (info.runner == "portable")
    assert any(info.runner == "native" for info in table.values())
    with pytest.raises(KeyError, match="Did you mean 'rms_norm'"):
        kernels.get("rms_nrm")


def test_names_read_from_the_text_are_those_of_the_module():
    for module in ("native", "fused"):
        found = vars(importlib.import_module(f"mindformers.kernels.{module}"))
        for name in select._names_of(module):
            assert name in found


def test_portable_is_forced(monkeypatch):
    monkeypatch.setenv("MF_KERNELS", "portable")
    from mindformers.kernels import portable
    assert kernels.form() == "portable" and kernels.get("linear") is portable.linear
    assert {info.form for info in kernels.describe().values()} == {"portable"}
    assert kernels.compute_dtype("bfloat16") == "float32"


def test_a_name_that_is_no_form(monkeypatch):
    monkeypatch.setenv("MF_KERNELS", "portble")
    with pytest.raises(UnsupportedError, match="Did you mean 'portable'"):
        kernels.form()


def refused(reason_part, warnings, monkeypatch):
    """The library is refused with these words: portable with one warning, and an error where fused is forced."""
    usable, reason = library.verdict()
    assert not usable and reason_part in reason, reason
    assert kernels.form() == "portable" and kernels.form() == "portable"
    assert kernels.get("linear").__module__ == "mindformers.kernels.portable"
    assert [text for text in warnings if reason_part in text] == warnings and len(warnings) == 1, warnings
    monkeypatch.setenv("MF_KERNELS", "fused")
    with pytest.raises(UnsupportedError) as error:
        kernels.form()
    assert reason_part in str(error.value) and "MF_KERNELS=portable" in str(error.value)


def test_a_missing_library_names_the_command_that_builds_it(warnings, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "PATH", tmp_path / "libmf_kernels.so")
    refused("`python -m mindformers.kernels.build` builds it", warnings, monkeypatch)


@pytest.mark.parametrize("version", ["2.7.2", "2.11.0", ""])
def test_another_mindspore_version_is_refused(version, warnings, monkeypatch):
    monkeypatch.setattr(library, "mindspore_version", lambda: version)
    refused(f"built for MindSpore 2.10.0, and this is {version or 'none'}", warnings, monkeypatch)


def test_another_interface_is_refused(warnings, monkeypatch):
    monkeypatch.setattr(library, "ABI", build.ABI + 1)
    refused(f"another version of mindformers (interface {build.ABI}, wanted {build.ABI + 1})", warnings, monkeypatch)


def test_a_file_that_is_no_library_is_refused(warnings, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "PATH", tmp_path / "libmf_kernels.so")
    library.PATH.write_bytes(b"no library")
    refused("cannot be used", warnings, monkeypatch)


def test_another_library_of_that_name_is_refused(warnings, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "PATH", tmp_path / "libmf_kernels.so")
    (tmp_path / "other.cpp").write_text("int x;")
    subprocess.run([build.find_compiler(), "-shared", "-fPIC", tmp_path / "other.cpp", "-o", library.PATH], check=True)
    refused("undefined symbol: mf_", warnings, monkeypatch)


def test_wrong_numbers_are_noticed(warnings, monkeypatch):
    right = library._rms_norm
    monkeypatch.setattr(library, "_rms_norm", lambda x, weight, eps: right(x, weight, 1e-6))
    refused("computed a known case wrong", warnings, monkeypatch)


def test_changed_sources_are_said_and_still_run(warnings, monkeypatch, tmp_path):
    monkeypatch.setattr(library, "is_stale", IS_STALE)
    monkeypatch.setattr(library, "CSRC", tmp_path)
    monkeypatch.setattr(library, "source_digest", lambda: library.facts().sources)
    (tmp_path / "new.cpp").write_text("")
    assert library.verdict().usable and not warnings  # newer, but the same text
    library.verdict.cache_clear()
    monkeypatch.setattr(library, "source_digest", lambda: "0" * 16)
    assert library.verdict().usable and kernels.form() == "fused"
    assert len(warnings) == 1 and "changed since it was built" in warnings[0]


def test_the_library_says_what_it_refuses():
    import numpy as np
    call = library.Call("mf_rms_norm", np.zeros((2, 3), np.float32), np.zeros(4, np.float32),
                        np.zeros(8, np.float32), np.zeros((2, 3), np.float32))
    with pytest.raises(RuntimeError, match="weight .* has 4 elements, but needs 3"):
        call()


def test_a_call_can_be_repeated_on_another_array():
    import numpy as np
    x, weight, meta = np.ones((2, 3), np.float32), np.ones(3, np.float32), np.zeros(8, np.float32)
    first, second = np.zeros((2, 3), np.float32), np.zeros((2, 3), np.float32)
    call = library.Call("mf_rms_norm", x, library.Operand(weight.ctypes.data, "float32", (3,)), meta, first)
    call()
    x *= 2
    weight *= 5
    call.place(-1, second)
    call()
    assert np.allclose(first, 1) and np.allclose(second, 5)


@pytest.mark.parametrize("variable, value", [("MF_ISA", "sse9"), *(("MF_NUM_THREADS", value) for value in (
    "none", "0", "-1", "257", " 2", "2 ", "+2", "2.0", "1_0", "99999999999999999999"))])
def test_a_bad_variable_is_an_error_that_names_it(variable, value):
    code, _, err = in_new_process("from mindformers import kernels; kernels.form()", **{variable: value})
    assert code == 1 and err.strip().splitlines()[-1].startswith("mindformers.tools.errors.ConfigError"), err
    assert variable in err.splitlines()[-1] and value in err.splitlines()[-1]


def test_every_entry_is_there_and_listed():
    exported = subprocess.run(["nm", "-D", "--defined-only", library.path()], capture_output=True, text=True,
                              check=True).stdout
    shaped = {line.split()[2] for line in exported.splitlines()}
    entries = {name.removesuffix("InferShape") for name in shaped if name.startswith("mf_")
               and name.endswith("InferShape")} | {name for name in shaped if f"{name}InferShape" in exported}
    assert entries == set(library.ENTRIES)


def test_plugin_ops_have_limits():
    ops = library.plugin_ops()
    assert "RmsNorm" in ops and all(ops.values())
    assert ctypes.CDLL(library.path()).GetRegisteredOpCount() == len(ops)


PLUGIN = """
import numpy as np, mindspore as ms
from mindspore import Tensor, ops
from mindformers.tools.env import get_env
"""


def test_plugin_is_offered_and_runs():
    code, out, err = in_new_process(PLUGIN + """
from mindformers import kernels
kernels.form()
from mindformers.kernels import library
assert get_env("MS_OP_PLUGIN_PATH") == library.path()
assert library.plugin_verdict() == (True, ""), library.plugin_verdict()
""", MF_KERNELS="fused")
    assert code == 0, out + err


def test_plugin_is_offered_where_mindspore_comes_second():
    code, out, err = in_new_process("""
from mindformers import kernels
kernels.form()
from mindformers.kernels import library
from mindformers.tools.env import get_env
assert get_env("MS_OP_PLUGIN_PATH") == ""
import numpy as np, mindspore as ms
kernels.get("rms_norm")
assert library.plugin_verdict() == (True, ""), library.plugin_verdict()
x = ms.Tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
assert ((x.T + x.T).asnumpy() == 2 * x.asnumpy().T).all()
""", MF_KERNELS="fused")
    assert code == 0, out + err


def test_plugin_of_another_mindspore_ends_the_process_with_a_message(monkeypatch, tmp_path):
    """The user's script, without mindformers: nobody else could refuse, and the numbers would be wrong."""
    script = """
import numpy as np, mindspore as ms
print((ms.Tensor(np.ones(3, np.float32)) + 1).asnumpy())
"""
    code, out, err = in_new_process(script, MS_OP_PLUGIN_PATH=library.path())
    assert code == 0 and "[2. 2. 2.]" in out, out + err
    monkeypatch.setattr(build, "MINDSPORE_VERSIONS", ("9.9.9",))
    other = build.Builder(say=lambda _: None).library(tmp_path)
    code, out, err = in_new_process(script, MS_OP_PLUGIN_PATH=str(other))
    assert code == 1 and "built for MindSpore 9.9.9, and this is 2.10.0" in err and not out, out + err


@pytest.mark.parametrize("forced, found", [("portable", "portable"), ("", "fused")])
def test_plugin_is_not_offered_unasked(forced, found):
    code, out, err = in_new_process(PLUGIN + f"""
from mindformers import kernels
assert kernels.form() == "{found}" and kernels.get("linear") and get_env("MS_OP_PLUGIN_PATH") == ""
assert "primitive" not in {{info.runner for info in kernels.describe().values()}}
""", MF_KERNELS=forced)
    assert code == 0, out + err


def test_a_plugin_that_comes_too_late_is_noticed():
    code, out, err = in_new_process(PLUGIN + """
print((Tensor(np.ones(3, np.float32)) + 1).asnumpy())
from mindformers import kernels
assert kernels.form() == "fused"
from mindformers.kernels import library
print(library.plugin_verdict())
""", MF_KERNELS="fused")
    assert code == 0 and "an op ran before" in out, out + err


def test_a_plugin_of_the_user_is_kept(warnings, monkeypatch):
    monkeypatch.setenv("MS_OP_PLUGIN_PATH", "/their/own.so")
    library.offer_plugin()
    assert kernels.form() == "fused" and not warnings  # custom ops need no plugin
    monkeypatch.setenv("MF_KERNELS", "fused")
    library.offer_plugin()
    library.offer_plugin()
    assert library.plugin_offer() == "/their/own.so (named by MS_OP_PLUGIN_PATH)"
    assert len(warnings) == 1 and "/their/own.so is kept" in warnings[0]
    assert not library.plugin_verdict().usable and "/their/own.so" in library.plugin_verdict().reason
    monkeypatch.setattr(select, "_names_of", lambda module: {"rms_norm"} if module == "fused" else set())
    monkeypatch.setattr(library, "plugin_wanted", lambda: True)
    with pytest.raises(UnsupportedError, match="/their/own.so"):
        kernels.get("rms_norm")
    monkeypatch.setenv("MF_KERNELS", "")
    assert kernels.get("rms_norm").__module__ == "mindformers.kernels.portable"
    assert len(warnings) == 2 and "primitives cannot run here" in warnings[1]


def test_ascend_runs_the_primitives(monkeypatch):
    monkeypatch.setattr(select, "backend", lambda: "Ascend")
    monkeypatch.setattr(library, "verdict", lambda: Verdict(False, "a CPU library"))
    assert kernels.form() == "fused"
    assert "native" not in {info.runner for info in kernels.describe().values()}
