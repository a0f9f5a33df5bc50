"""The op plugin is taken when a process runs its first op: these tests have a process of their own, which
tests/kernels/test_with_plugin.py starts with MF_KERNELS=fused."""
import os

if os.environ.get("MF_KERNELS") != "fused":
    collect_ignore_glob = ["test_*.py"]
