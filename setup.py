"""Packaging: metadata, dependencies, the shipped configurations as mindformers/_configs, and the native kernels."""
import ast
import os
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))  # the command that builds the kernels is part of the package

from mindformers.kernels import build as kernels  # noqa: E402  pylint: disable=wrong-import-position


class BuildWithConfigs(build_py):
    """Copies configs/ into the built package, where `mindformers.tools.utils.configs_dir` looks first, and builds the
    native kernels; without a compiler the package is complete but for them, and runs the portable ones."""

    def run(self):
        super().run()
        if getattr(self, "editable_mode", False):
            build_kernels(kernels.LIB)
            return
        target = os.path.join(self.build_lib, "mindformers", "_configs")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / "configs", target, ignore=shutil.ignore_patterns("__pycache__", "*.tmp*"))
        folder = library_folder(self.build_lib)
        shutil.rmtree(folder, ignore_errors=True)
        build_kernels(folder)


class PlatformWheel(bdist_wheel):
    """A wheel with the native library is for one platform, but for every Python: the library knows nothing of it."""

    def run(self):
        self.run_command("build")
        if self.has_library():
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True
        super().run()

    def get_tag(self):
        _, _, platform = super().get_tag()
        return "py3", "none", platform

    def has_library(self):
        """Return whether the build made the native library."""
        return (library_folder(self.get_finalized_command("build_py").build_lib) / kernels.NAME).is_file()


def library_folder(build_lib):
    """Return the folder of the native library below `build_lib`."""
    return Path(build_lib) / kernels.LIB.relative_to(ROOT)


def build_kernels(folder):
    """Build the native kernels into `folder`, or say why not; an installation never fails for them."""
    try:
        kernels.Builder().library(folder)
    except kernels.BuildError as error:
        print(f"WARNING: the native kernels were not built, mindformers will run its portable ones, which are "
              f"slower. `python -m mindformers.kernels.build` builds them later. The reason: {error}", file=sys.stderr)


def version():
    """Return __version__ of the package, read without importing it."""
    tree = ast.parse((ROOT / "mindformers" / "version_control.py").read_text(encoding="utf-8"))
    return next(node.value.value for node in tree.body
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__")


def requirements():
    """Return the lines of requirements.txt."""
    return [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line.strip()]


TRAIN = ["matplotlib>=3.7"]
HUB = ["huggingface_hub>=1.0,<3", "openmind_hub>=1.3,<2"]  # either will do
README = ROOT / "README.md"

setup(
    name="mindformers",
    version=version(),
    description="A MindSpore-native suite for large language models",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["mindformers", "mindformers.*"]),
    package_data={"mindformers.kernels": ["csrc/*.*", "csrc/*/*.*"]},
    install_requires=requirements(),
    extras_require={
        "train": TRAIN,
        "hub": HUB,
        "dev": ["pytest>=8", "pytest-xdist>=3.6,<4", "hypothesis>=6", "mistral-common>=1.13,<2", "trustme>=1.1,<2",
                *TRAIN, *HUB],
    },
    entry_points={"console_scripts": ["mindformers=mindformers.cli.main:main"]},
    cmdclass={"build_py": BuildWithConfigs, "bdist_wheel": PlatformWheel},
)
