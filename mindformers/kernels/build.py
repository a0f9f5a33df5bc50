"""Compiles csrc/ into lib/libmf_kernels.so: ``python -m mindformers.kernels.build``.

Needs g++ or clang++ and the standard library of Python, no MindSpore. Only what changed since the last build is
compiled again: an object is kept under the hash of its flags and of every file that it includes.
"""
import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mindformers.tools.env import get_env

ROOT = Path(__file__).resolve().parent
CSRC = ROOT / "csrc"
LIB = ROOT / "lib"
NAME = "libmf_kernels.so"
CPUINFO = Path("/proc/cpuinfo")

ABI = 2  # raised when an entry's arguments change their meaning: Python refuses a library of another number
MINDSPORE_VERSIONS = ("2.10.0",)  # what the library was tested with; the layout it is called with is not promised

FLAGS = ["-std=c++17", "-fPIC", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-fno-math-errno", "-pthread",
         "-Wall", "-Wextra", "-D_GLIBCXX_USE_CXX11_ABI=0"]
_AVX2 = ["-mavx2", "-mfma", "-mf16c", "-mbmi2"]
# GCC 12 finds its own AVX-512 header uninitialized; the same code is compiled with that warning for the others
_AVX512 = [*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512",
           "-Wno-uninitialized", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option"]
# instruction set -> flags, from the least to the most: the order of linking, see `_link`
ISAS = {
    "x86_64": {"portable": [], "avx2": _AVX2, "avx512": _AVX512,
               "avx512_bf16": [*_AVX512, "-mavx512bf16", "-mavx512vnni"]},
    "aarch64": {"portable": []},
}
_SANITIZED = ["-g1", "-fno-omit-frame-pointer", "-fno-sanitize-recover=all"]
SANITIZERS = {
    "": ["-O3"],
    # both in one build, and no read optimised away; compiled in a quarter of the time that -O1 takes
    "memory": ["-O0", *_SANITIZED, "-fsanitize=address,undefined"],
    "thread": ["-O1", *_SANITIZED, "-fsanitize=thread"],
}
_INCLUDE = re.compile(rb'^\s*#\s*include\s*"([^"]+)"', re.M)


class BuildError(RuntimeError):
    """No compiler, or one that failed; the message has its output."""


def machine():
    """Return the processor of this machine as the compilers name it: ``"x86_64"``, ``"aarch64"``."""
    name = os.uname().machine
    return "aarch64" if name == "arm64" else name


def best_isa():
    """Return the instruction set that the library takes on this machine: the last of `ISAS` whose flags it has.

    Without flags in /proc/cpuinfo it is "portable".
    """
    known = re.search(r"^flags\s*:(.*)$", CPUINFO.read_text(), re.M) if CPUINFO.is_file() else None
    has = set(known[1].replace("_", "").split()) if known else set()
    sets = {isa: {flag[2:] for flag in flags if re.fullmatch("-m[a-z0-9]+", flag)}
            for isa, flags in ISAS[machine()].items()}
    return [isa for isa, needed in sets.items() if needed <= has][-1]


def find_compiler(target=""):
    """Return the path of a C++ compiler for `target` (default: this machine); ``CXX`` names another.

    Raises:
        BuildError: there is none.
    """
    if target and target != machine():
        names = [f"{target}-linux-gnu-g++"]
    else:
        names = [get_env("CXX")] if get_env("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        found = shutil.which(name)
        if found:
            return found
    raise BuildError(f"no C++ compiler: looked for {', '.join(names)} in PATH (Debian: apt-get install "
                     f"{'g++-' + target + '-linux-gnu' if target and target != machine() else 'g++'})")


def units(target, folders=("", "custom", "plugin")):
    """Return ``[(object name, source, isa or "")]`` in the order of linking, from the least instruction set up.

    Every .cpp of these folders of csrc/ is compiled once for the baseline, every .inc once for each instruction set
    with ``MF_ISA_NS`` = its name.
    """
    sources = [path for folder in folders for path in sorted((CSRC / folder).glob("*.cpp"))]
    found = [("-".join(path.relative_to(CSRC).with_suffix("").parts), path, "") for path in sources]
    for isa in ISAS[target]:
        found += [(f"{path.stem}-{isa}", path, isa) for path in sorted(CSRC.glob("*.inc"))]
    return found


def includes(path, seen=None):
    """Return `path` and every file it includes with quotes, directly or not; system headers are not followed."""
    seen = {} if seen is None else seen
    if path in seen:
        return seen
    seen[path] = path.read_bytes()
    for name in _INCLUDE.findall(seen[path]):
        for folder in (path.parent, CSRC):
            inner = (folder / name.decode()).resolve()
            if inner.is_file():
                includes(inner, seen)
                break
    return seen


def source_digest():
    """Return a hash of all sources, 16 hex digits: the library carries that of the sources it was made from."""
    whole = hashlib.sha256()
    for path in sorted(path for path in CSRC.rglob("*") if path.suffix in (".cpp", ".h", ".inc")):
        if "tests" not in path.relative_to(CSRC).parts:
            whole.update(str(path.relative_to(CSRC)).encode() + b"\0" + path.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


class Builder:
    """One flavour of the build: target, sanitizer, compiler; objects are shared by its library and its tests."""

    def __init__(self, target="", sanitize="", jobs=None, say=print):
        self.target = target or machine()
        if self.target not in ISAS:
            raise BuildError(f"target {self.target!r} is not known; there are {', '.join(ISAS)}")
        self.sanitize = sanitize
        self.compiler = find_compiler(target)
        self.jobs = jobs or len(os.sched_getaffinity(0))
        self.say = say
        flavour = "-".join(part for part in (self.target, sanitize) if part)
        self.objects = LIB / "objects" / flavour
        self.default_out = LIB if flavour == machine() else LIB / flavour
        self.version = self._run([self.compiler, "--version"]).split("\n")[0]

    def library(self, out=None):
        """Build the shared library into folder `out`; returns its path. Its file is replaced in one step."""
        with self._locked():
            objects = self._compile(units(self.target))
            target = Path(out or self.default_out) / NAME
            extra = [] if self.sanitize else ["-static-libstdc++", "-static-libgcc", "-Wl,--exclude-libs,ALL"]
            self._link(objects, target, ["-shared", "-Wl,-z,defs" if not self.sanitize else "-Wl,-z,lazy", *extra])
        return target

    def tests(self, out=None, pattern="test_*", isa=""):
        """Build every csrc/tests/<pattern>.cpp into a program of its own in folder `out`; returns their paths.

        With `isa` only the units of that instruction set are sanitized, beside those for any processor; the others
        are the library's own objects, and the programs are to run with MF_ISA = `isa`. The entries for MindSpore's
        primitives are left out: they are tested from Python.
        """
        if isa and isa not in ISAS[self.target]:
            raise BuildError(f"instruction set {isa!r} is not known; there are {', '.join(ISAS[self.target])}")
        code = units(self.target, ("", "custom"))
        own = [(f"tests-{path.stem}", path, "") for path in sorted((CSRC / "tests").glob(f"{pattern}.cpp"))]
        objects = {}
        if isa and self.sanitize:
            library = Builder(self.target, "", self.jobs, self.say)
            others = [unit for unit in code if unit[2] not in ("", isa)]
            with library._locked():
                objects.update(zip(others, library._compile(others)))
        with self._locked():
            mine = [unit for unit in [*code, *own] if unit not in objects]
            objects.update(zip(mine, self._compile(mine)))
            shared, mains = [objects[unit] for unit in code], [objects[unit] for unit in own]
            folder = Path(out or self.default_out / "tests")
            programs = [folder / path.stem for _, path, _ in own]
            static = ["-static"] if self.target != machine() else []  # runs under qemu without the target's libraries
            with ThreadPoolExecutor(self.jobs) as pool:
                list(pool.map(lambda pair: self._link([pair[0], *shared], pair[1], static), zip(mains, programs)))
        return programs

    @contextlib.contextmanager
    def _locked(self):
        """Hold the lock of this flavour: a second build waits, and then finds everything made."""
        self.objects.mkdir(parents=True, exist_ok=True)
        with open(self.objects / ".lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _flags(self, isa):
        flags = [*FLAGS, *SANITIZERS[self.sanitize], f"-I{CSRC}"]
        return [*flags, f"-DMF_ISA_NS={isa}", *ISAS[self.target][isa]] if isa else flags

    def _compile(self, wanted):
        """Compile what has no object yet, in parallel; returns the objects in the order of `wanted`."""
        digest = source_digest()
        plans = []
        for name, source, isa in wanted:
            flags = self._flags(isa)
            if source.name == "about.cpp":
                flags += [f"-DMF_ABI={ABI}", f'-DMF_SOURCES="{digest}"',
                          f'-DMF_MINDSPORE_VERSIONS="{" ".join(MINDSPORE_VERSIONS)}"']
            key = hashlib.sha256(" ".join([self.version, *flags]).encode())
            for path, text in sorted(includes(source.resolve()).items()):
                key.update(str(path).encode() + b"\0" + text)
            plans.append((self.objects / f"{name}.{key.hexdigest()[:16]}.o", source, flags, name))
        missing = [plan for plan in plans if not plan[0].is_file()]
        if missing:
            self.say(f"compiling {len(missing)} of {len(plans)} units with {self.compiler} ({self.version})")
        # the slowest first, those of an instruction set: the last one to finish should be a short one
        missing.sort(key=lambda plan: (plan[1].suffix != ".inc", -len(includes(plan[1].resolve()))))
        with ThreadPoolExecutor(self.jobs) as pool:
            list(pool.map(self._compile_one, missing))
        return [plan[0] for plan in plans]

    def _compile_one(self, plan):
        target, source, flags, name = plan
        temporary = target.with_suffix(".tmp.o")
        self._run([self.compiler, "-c", *flags, "-x", "c++", str(source), "-o", str(temporary)])
        for old in self.objects.glob(f"{name}.*.o"):
            if old != temporary:
                old.unlink()
        temporary.rename(target)

    def _link(self, objects, target, flags):
        """Link `objects` into `target`, unless they are what it was linked from.

        The order is from the baseline up: of a template function that several units hold the linker keeps the first,
        and that must be one which every processor that may call it can run.
        """
        stamp = self.objects / f"{target.name}-{hashlib.sha256(str(target.resolve()).encode()).hexdigest()[:8]}.from"
        command = [self.compiler, "-pthread", *SANITIZERS[self.sanitize], *map(str, objects), *flags]
        made_from = hashlib.sha256("\n".join([self.version, *command]).encode()).hexdigest()
        if target.is_file() and stamp.is_file() and stamp.read_text() == made_from:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            self._run([*command, "-o", str(temporary)])
            os.replace(temporary, target)
            stamp.write_text(made_from)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def _run(command):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BuildError(f"{' '.join(command)}\nfailed with code {done.returncode}:\n{done.stdout}{done.stderr}")
        if done.stderr.strip():
            print(done.stderr, file=sys.stderr)
        return done.stdout


def main(argv=None):
    """Build as the arguments say; returns the exit code: 0, or 1 with the compiler's words on stderr."""
    parser = argparse.ArgumentParser(prog="python -m mindformers.kernels.build", description=__doc__.split("\n")[0])
    parser.add_argument("--out", metavar="DIR", help="folder of the library (or of the test programs)")
    parser.add_argument("--sanitize", choices=[name for name in SANITIZERS if name], default="",
                        help="instrument the code; into lib/<machine>-<name>/")
    parser.add_argument("--target", choices=list(ISAS), default="", help="cross-compile; into lib/<target>/")
    parser.add_argument("--tests", nargs="?", const="test_*", metavar="PATTERN",
                        help="build programs of csrc/tests in place of the library. Default pattern: test_*")
    parser.add_argument("--isa", default="", help="of the tests: sanitize the code of this instruction set only; run "
                        "them with MF_ISA=ISA. Default: of all")
    parser.add_argument("--jobs", type=int, help="compilers at a time. Default: the cores of this process")
    args = parser.parse_args(argv)
    try:
        builder = Builder(args.target, args.sanitize, args.jobs, say=lambda text: print(text, file=sys.stderr))
        for path in builder.tests(args.out, args.tests, args.isa) if args.tests else [builder.library(args.out)]:
            print(path)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
