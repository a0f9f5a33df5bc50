"""Blocks that every decoder is made of, and the paged cache."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "Linear": "mindformers.modules.layers:Linear",
    "RMSNorm": "mindformers.modules.layers:RMSNorm",
    "VocabEmbedding": "mindformers.modules.layers:VocabEmbedding",
    "RotaryEmbedding": "mindformers.modules.rope:RotaryEmbedding",
    "CausalMask": "mindformers.modules.masks:CausalMask",
    "SelfAttention": "mindformers.modules.attention:SelfAttention",
    "FeedForward": "mindformers.modules.feed_forward:FeedForward",
    "PagedCache": "mindformers.modules.kv_cache:PagedCache",
    "CachePool": "mindformers.modules.kv_cache:CachePool",
    "OpParallelConfig": "mindformers.modules.transformer.op_parallel_config:OpParallelConfig",
    "TransformerOpParallelConfig": "mindformers.modules.transformer.op_parallel_config:TransformerOpParallelConfig",
    "TransformerRecomputeConfig": "mindformers.modules.transformer.op_parallel_config:TransformerRecomputeConfig",
    "EmbeddingOpParallelConfig": "mindformers.modules.transformer.op_parallel_config:EmbeddingOpParallelConfig",
    "MoEConfig": "mindformers.modules.transformer.op_parallel_config:MoEConfig",
})
