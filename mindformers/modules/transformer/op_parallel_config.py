"""MindFormers' place of these names."""
from mindformers.core.parallel_config import ContextParallelAlgo, MoEParallelConfig, OpParallelConfig

__all__ = ["ContextParallelAlgo", "MoEParallelConfig", "OpParallelConfig"]
