"""MindFormers' names for parallel configuration."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    name: f"mindformers.core.parallel_config:{name}"
    for name in ("EmbeddingOpParallelConfig", "MoEConfig", "MoEParallelConfig", "OpParallelConfig",
                 "TransformerOpParallelConfig", "TransformerRecomputeConfig")
})
