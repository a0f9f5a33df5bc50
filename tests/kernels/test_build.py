"""The command that builds the native library: what it compiles again, what it leaves alone, and how it fails."""
import ctypes
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mindformers.kernels import build

ROOT = Path(__file__).parents[2]
EXPORT = 'extern "C" __attribute__((visibility("default")))'

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")


@pytest.fixture(name="csrc")
def _csrc(tmp_path, monkeypatch):
    """A small source tree: two baseline units, one header, one file for each instruction set, one test program."""
    csrc = tmp_path / "csrc"
    for folder in ("custom", "plugin", "tests"):
        (csrc / folder).mkdir(parents=True)
    (csrc / "number.h").write_text("inline int number() { return 1; }\n")
    (csrc / "first.cpp").write_text(f'#include "number.h"\n{EXPORT} int first() {{ return number(); }}\n')
    (csrc / "custom" / "second.cpp").write_text(f"{EXPORT} int second() {{ return 2; }}\n")
    (csrc / "wide.inc").write_text("namespace MF_ISA_NS { int width() { return 3; } }\n")
    (csrc / "tests" / "test_all.cpp").write_text("namespace portable { int width(); }\n"
                                                 "int main() { return portable::width() - 3; }\n")
    monkeypatch.setattr(build, "CSRC", csrc)
    monkeypatch.setattr(build, "LIB", tmp_path / "lib")
    return csrc


def built(**options):
    """Build the library; returns (what was said, path)."""
    said = []
    path = build.Builder(**options, say=said.append).library()
    return "".join(said), path


def value(path, name):
    """Call int name() of the library in a process of its own: a loaded library stays the one it was."""
    code = f"import ctypes; print(ctypes.CDLL({str(path)!r}).{name}())"
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_only_what_changed_is_compiled(csrc):
    said, path = built()
    assert "compiling 6 of 6" in said and (value(path, "first"), value(path, "second")) == (1, 2)
    stamp = path.stat().st_mtime_ns
    os.utime(csrc / "first.cpp")  # touched, not changed
    assert built() == ("", path) and path.stat().st_mtime_ns == stamp
    (csrc / "number.h").write_text("inline int number() { return 7; }\n")
    said, _ = built()
    assert "compiling 1 of 6" in said and value(path, "first") == 7


def test_units_are_linked_from_the_baseline_up(csrc):
    """Of a function that several units hold the linker keeps the first: it must run on every processor."""
    order = [isa for _, _, isa in build.units("x86_64")]
    assert order == ["", "", "portable", "avx2", "avx512", "avx512_bf16"]
    assert [name for name, _, _ in build.units("aarch64")] == ["first", "custom-second", "wide-portable"]
    flags = build.ISAS["x86_64"]
    assert not flags["portable"] and set(flags["avx2"]) < set(flags["avx512"]) < set(flags["avx512_bf16"])


@pytest.mark.skipif(build.machine() != "x86_64", reason="checks the instruction sets of x86-64")
def test_a_function_of_several_instruction_sets_is_the_least_one_s(csrc):
    (csrc / "wide.inc").write_text(
        "inline __attribute__((noinline)) int which() {\n#if defined(__AVX512F__)\nreturn 512;\n"
        "#elif defined(__AVX2__)\nreturn 2;\n#else\nreturn 0;\n#endif\n}\n"
        "namespace MF_ISA_NS { int width() { return which(); } }\n")
    (csrc / "first.cpp").write_text(f"namespace avx512 {{ int width(); }}\n{EXPORT} int first() "
                                    "{ return avx512::width(); }\n")
    assert value(built()[1], "first") == 0


def test_a_failed_build_leaves_the_old_library(csrc, capsys):
    _, path = built()
    (csrc / "first.cpp").write_text("int first() { return wrong_name; }\n")
    with pytest.raises(build.BuildError, match="wrong_name"):
        built()
    assert value(path, "first") == 1
    assert build.main([]) == 1 and "wrong_name" in capsys.readouterr().err
    (csrc / "first.cpp").write_text(f"int nowhere();\n{EXPORT} int first() {{ return nowhere(); }}\n")
    with pytest.raises(build.BuildError, match="nowhere"):  # refused when it is linked, not when it is used
        built()
    assert value(path, "first") == 1
    assert sorted(item.name for item in path.parent.iterdir()) == ["libmf_kernels.so", "objects"]


def test_no_compiler_is_said(csrc, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert build.main([]) == 1
    assert "no-such-compiler" in capsys.readouterr().err
    with pytest.raises(build.BuildError, match="x86_64, aarch64"):
        build.Builder(target="sparc")


def test_two_builds_at_once_make_one_library(csrc):
    with ThreadPoolExecutor(2) as pool:
        said = [said for said, _ in pool.map(lambda _: built(), range(2))]
    assert sorted(said)[0] == "" and "compiling 6 of 6" in sorted(said)[1]


def test_test_programs_and_sanitizers_have_folders_of_their_own(csrc):
    _, path = built()
    programs = build.Builder(sanitize="memory", say=lambda _: None).tests()
    assert [program.name for program in programs] == ["test_all"] and programs[0].parent.parent != path.parent
    assert subprocess.run([programs[0]], check=False).returncode == 0
    (csrc / "wide.inc").write_text("namespace MF_ISA_NS { int width() { int n = 2147483647; volatile int m = n; "
                                   "volatile int next = m + 1; return next ? 3 : 4; } }\n")
    programs = build.Builder(sanitize="memory", say=lambda _: None).tests()
    assert subprocess.run([programs[0]], check=False, capture_output=True).returncode != 0  # the overflow is found
    assert path.is_file()


def test_the_digest_is_of_the_library_s_sources(csrc):
    before = build.source_digest()
    (csrc / "tests" / "test_all.cpp").write_text("int main() { return 0; }\n")
    assert build.source_digest() == before
    (csrc / "wide.inc").write_text("namespace MF_ISA_NS { int width() { return 4; } }\n")
    assert build.source_digest() != before


@pytest.mark.skipif(not shutil.which("aarch64-linux-gnu-g++"), reason="no compiler for aarch64")
def test_cross_compiling(csrc):
    path = build.Builder(target="aarch64", say=lambda _: None).library()
    assert path.read_bytes()[18:20] == b"\xb7\x00"  # e_machine of ELF: AArch64
    with pytest.raises(OSError):
        ctypes.CDLL(str(path))


@pytest.mark.skipif(build.machine() != "x86_64", reason="checks the instruction sets of x86-64")
def test_one_instruction_set_is_sanitized_beside_those_of_the_library(csrc):
    """An overflow in the code of one set is found where that set is sanitized, and runs where another one is."""
    (csrc / "wide.inc").write_text("namespace MF_ISA_NS { int width() { volatile int m = 2147483647; "
                                   "volatile int next = m + 1; return next ? 3 : 4; } }\n")
    quiet = build.Builder(sanitize="memory", say=lambda _: None)
    codes = [subprocess.run(quiet.tests(isa=isa), check=False, capture_output=True).returncode
             for isa in ("portable", "avx2")]
    assert codes[0] != 0 and codes[1] == 0  # the program calls the portable one
    with pytest.raises(build.BuildError, match="'sse9' is not known; there are portable, avx2"):
        quiet.tests(isa="sse9")


@pytest.mark.skipif(build.machine() != "x86_64", reason="checks the instruction sets of x86-64")
@pytest.mark.parametrize("flags, isa", [
    ("sse2", "portable"), ("avx2 fma f16c bmi2", "avx2"), ("avx2 f16c bmi2", "portable"),
    ("avx2 fma f16c bmi2 avx512f avx512bw avx512dq avx512vl", "avx512"),
    ("avx2 fma f16c bmi2 avx512f avx512bw avx512dq avx512vl avx512_bf16 avx512_vnni", "avx512_bf16")])
def test_the_best_instruction_set_is_read_from_the_processor_s_flags(tmp_path, monkeypatch, flags, isa):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags} ssse3\n")
    monkeypatch.setattr(build, "CPUINFO", tmp_path / "cpuinfo")
    assert build.best_isa() == isa


@pytest.mark.slow
def test_the_unit_tests_of_the_kernels_are_clean():
    """With AddressSanitizer and UndefinedBehaviorSanitizer, for the best instruction set; a planted error is found.

    What they need is compiled once for a state of a file. All kinds and sets: ``scripts/check_kernels.sh``.
    """
    done = subprocess.run(["bash", "scripts/check_kernels.sh", "quick"], cwd=ROOT, capture_output=True, text=True,
                          env={**os.environ, "PYTHON": sys.executable}, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    programs = len(list((build.CSRC / "tests").glob("test_*.cpp")))
    assert done.stdout.count(" 0 failures") == programs and "all passed: quick" in done.stdout, done.stdout
    assert "planted error (memory) found: AddressSanitizer" in done.stdout, done.stdout
