"""Blocks that every decoder is made of, and the paged cache."""
from mindformers.tools.utils import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, {
    "Linear": "mindformers.modules.layers:Linear",
    "RMSNorm": "mindformers.modules.layers:RMSNorm",
    "VocabEmbedding": "mindformers.modules.layers:VocabEmbedding",
    "RotaryEmbedding": "mindformers.modules.rope:RotaryEmbedding",
    "CausalMask": "mindformers.modules.masks:CausalMask",
    "Attention": "mindformers.modules.attention:Attention",
    "SelfAttention": "mindformers.modules.attention:SelfAttention",
    "SwiGLU": "mindformers.modules.feed_forward:SwiGLU",
    "FeedForward": "mindformers.modules.feed_forward:FeedForward",
    "Decoder": "mindformers.modules.decoder:Decoder",
    "DecoderLayer": "mindformers.modules.decoder:DecoderLayer",
    "PagedCache": "mindformers.modules.kv_cache:PagedCache",
    "CachePool": "mindformers.modules.kv_cache:CachePool",
    "OpParallelConfig": "mindformers.modules.transformer.op_parallel_config:OpParallelConfig",
    "TransformerOpParallelConfig": "mindformers.core.parallel_config:TransformerOpParallelConfig",
    "TransformerRecomputeConfig": "mindformers.core.parallel_config:TransformerRecomputeConfig",
    "EmbeddingOpParallelConfig": "mindformers.core.parallel_config:EmbeddingOpParallelConfig",
    "MoEConfig": "mindformers.core.parallel_config:MoEConfig",
})
