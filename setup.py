"""Packaging: metadata, dependencies, and the shipped configurations as mindformers/_configs."""
import ast
import os
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithConfigs(build_py):
    """Copies configs/ into the built package, where `mindformers.tools.utils.configs_dir` looks first."""

    def run(self):
        super().run()
        if not getattr(self, "editable_mode", False):
            target = os.path.join(self.build_lib, "mindformers", "_configs")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(ROOT / "configs", target, ignore=shutil.ignore_patterns("__pycache__", "*.tmp*"))


def version():
    """Return __version__ of the package, read without importing it."""
    tree = ast.parse((ROOT / "mindformers" / "version_control.py").read_text(encoding="utf-8"))
    return next(node.value.value for node in tree.body
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__version__")


def requirements():
    """Return the lines of requirements.txt."""
    return [line for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines() if line.strip()]


TRAIN = ["matplotlib>=3.7"]
README = ROOT / "README.md"

setup(
    name="mindformers",
    version=version(),
    description="A MindSpore-native suite for large language models",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    python_requires=">=3.11,<3.12",
    packages=find_packages(include=["mindformers", "mindformers.*"]),
    install_requires=requirements(),
    extras_require={
        "train": TRAIN,
        "hub": ["huggingface_hub>=0.23", "openmind_hub>=0.9"],
        "dev": ["pytest>=8", "hypothesis>=6", "mistral-common>=1.13,<2", *TRAIN],
    },
    entry_points={"console_scripts": ["mindformers=mindformers.cli.main:main"]},
    cmdclass={"build_py": BuildWithConfigs},
)
