"""Self attention of a decoder layer, on token-major rows, with and without the paged cache."""
import math

from mindspore import nn, ops

from mindformers import kernels
from mindformers.modules.layers import Linear


class SelfAttention(nn.Cell):
    """Rotary self attention with grouped kv heads.

    Args:
        hidden_size (int): width D.
        num_heads (int): query heads N.
        n_kv_heads (int): kv heads K; divides N.
        head_dim (int): width H of a head.
        qkv_has_bias, out_has_bias (bool): biases. Default: False.
        qkv_concat (bool): one packed product (`w_qkv`, rows [q; k; v]). Default: False.
        param_init_type (str): dtype of the parameters. Default: "float32".
    """

    def __init__(self, hidden_size, num_heads, n_kv_heads, head_dim, qkv_has_bias=False, out_has_bias=False,
                 qkv_concat=False, param_init_type="float32"):
        super().__init__()
        self.num_heads, self.n_kv_heads, self.head_dim = num_heads, n_kv_heads, head_dim
        self.q_size, self.kv_size = num_heads * head_dim, n_kv_heads * head_dim
        self.scale = 1.0 / math.sqrt(head_dim)
        self.qkv_concat = qkv_concat
        if qkv_concat:
            self.w_qkv = Linear(hidden_size, self.q_size + 2 * self.kv_size, qkv_has_bias, param_init_type)
        else:
            self.wq = Linear(hidden_size, self.q_size, qkv_has_bias, param_init_type)
            self.wk = Linear(hidden_size, self.kv_size, qkv_has_bias, param_init_type)
            self.wv = Linear(hidden_size, self.kv_size, qkv_has_bias, param_init_type)
        self.wo = Linear(self.q_size, hidden_size, out_has_bias, param_init_type)
        for op in ("rope", "attention", "attention_probs", "cache_write", "cache_read"):
            setattr(self, op, kernels.get(op))

    def project(self, x, rotation):
        """x [M, D] -> rotated q [M, N, H], rotated k [M, K, H], v [M, K, H]."""
        if self.qkv_concat:
            packed = self.w_qkv(x)
            q = packed[:, :self.q_size]
            k = packed[:, self.q_size:self.q_size + self.kv_size]
            v = packed[:, self.q_size + self.kv_size:]
        else:
            q, k, v = self.wq(x), self.wk(x), self.wv(x)
        q = self.rope(ops.reshape(q, (-1, self.num_heads, self.head_dim)), rotation)
        k = self.rope(ops.reshape(k, (-1, self.n_kv_heads, self.head_dim)), rotation)
        return q, k, ops.reshape(v, (-1, self.n_kv_heads, self.head_dim))

    def group_queries(self, q, b, t):
        """q [M, N, H] -> [B, K, G*T, H]: the queries that share a kv head lie together."""
        groups = self.num_heads // self.n_kv_heads
        if t is None:
            return ops.reshape(q, (-1, self.n_kv_heads, groups, self.head_dim))
        q = ops.transpose(ops.reshape(q, (b, t, self.num_heads, self.head_dim)), (0, 2, 1, 3))
        return q if groups == 1 else ops.reshape(q, (b, self.n_kv_heads, -1, self.head_dim))

    def group_keys(self, k, b, t):
        """k or v [M, K, H] -> [B, K, T, H]."""
        return ops.transpose(ops.reshape(k, (b, t, self.n_kv_heads, self.head_dim)), (0, 2, 1, 3))

    def merge(self, out, b, t):
        """[B, K, G*T, H] -> rows [M, N*H]."""
        if t is None:
            return ops.reshape(out, (-1, self.q_size))
        if self.num_heads != self.n_kv_heads:
            out = ops.reshape(out, (b, self.num_heads, t, self.head_dim))
        return ops.reshape(ops.transpose(out, (0, 2, 1, 3)), (-1, self.q_size))

    def construct(self, x, b, t, rotation, mask, return_probs=False):
        """Attention without a cache.

        Args:
            x: rows [B*T, D]. mask: additive, broadcast to [B, K, G*T, T].

        Returns:
            [B*T, D]; probabilities [B, N, T, T], or None without `return_probs`.
        """
        q, k, v = self.project(x, rotation)
        q, k, v = self.group_queries(q, b, t), self.group_keys(k, b, t), self.group_keys(v, b, t)
        probs = None
        if return_probs:
            probs = ops.reshape(self.attention_probs(q, k, mask, self.scale), (b, self.num_heads, t, -1))
        return self.wo(self.merge(self.attention(q, k, v, mask, self.scale), b, t)), probs

    def cached(self, x, b, t, rotation, mask, write_rows, read_rows, key_cache, value_cache):
        """Attention on the paged cache: writes this step's keys and values, then attends over each sequence.

        Args:
            x: rows [B*T, D]. t: tokens per row; None for steps of one token, whose layout needs no transposition.
            mask: additive, [B, 1, G*T or 1, S]. write_rows: int32 [B*T*K].
            read_rows: int32 [B, K, S]. key_cache, value_cache: Parameters [slots*K, H].
        """
        q, k, v = self.project(x, rotation)
        key_cache = self.cache_write(key_cache, write_rows, ops.reshape(k, (-1, self.head_dim)))
        value_cache = self.cache_write(value_cache, write_rows, ops.reshape(v, (-1, self.head_dim)))
        keys, values = self.cache_read(key_cache, read_rows), self.cache_read(value_cache, read_rows)
        out = self.attention(self.group_queries(q, b, t), keys, values, mask, self.scale)
        return self.wo(self.merge(out, b, t))
