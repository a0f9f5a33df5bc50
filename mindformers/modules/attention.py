"""Self attention of a decoder layer, on token-major rows, with and without the paged cache."""
import math

from mindspore import nn, ops

from mindformers import kernels
from mindformers.kernels.portable import group_queries, split_qkv, ungroup
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
        self.heads = (num_heads, n_kv_heads, head_dim)
        self.scale = 1.0 / math.sqrt(head_dim)
        self.qkv_concat = qkv_concat
        q_size, kv_size = num_heads * head_dim, n_kv_heads * head_dim
        if qkv_concat:
            self.w_qkv = Linear(hidden_size, q_size + 2 * kv_size, qkv_has_bias, param_init_type)
        else:
            self.wq = Linear(hidden_size, q_size, qkv_has_bias, param_init_type)
            self.wk = Linear(hidden_size, kv_size, qkv_has_bias, param_init_type)
            self.wv = Linear(hidden_size, kv_size, qkv_has_bias, param_init_type)
        self.wo = Linear(q_size, hidden_size, out_has_bias, param_init_type)
        for op in ("rope", "attention", "attention_probs", "norm_qkv", "paged_attention", "linear_add"):
            setattr(self, op, kernels.get(op))

    def construct(self, x, b, t, rotation, mask, return_probs=False):
        """Attention without a cache.

        Args:
            x: rows [B*T, D]. mask: additive, broadcast to [B, K, G*T, T].

        Returns:
            [B*T, D]; probabilities [B, N, T, T], or None without `return_probs`.
        """
        n, k, h = self.heads
        qkv = (self.w_qkv(x),) if self.qkv_concat else (self.wq(x), self.wk(x), self.wv(x))
        q, keys, values = split_qkv(qkv, self.heads)
        q = group_queries(self.rope(q, rotation), self.heads, b, t)
        keys = ops.transpose(ops.reshape(self.rope(keys, rotation), (b, t, k, h)), (0, 2, 1, 3))
        values = ops.transpose(ops.reshape(values, (b, t, k, h)), (0, 2, 1, 3))
        probs = None
        if return_probs:
            probs = ops.reshape(self.attention_probs(q, keys, mask, self.scale), (b, n, t, -1))
        return self.wo(ungroup(self.attention(q, keys, values, mask, self.scale), self.heads, b, t)), probs

    def cached(self, x, norm, eps, rotation, plan, key_cache, value_cache, block_size):
        """``x + attention(rms_norm(x))`` on the paged cache; this step's keys and values are stored first.

        Args:
            x: rows [M, D]. norm: weight of the norm [D]. rotation, plan: of the step, from `kernels`.
            key_cache, value_cache: Parameters [slots*K, H].
        """
        if self.qkv_concat:
            qkv = self.norm_qkv(x, norm, eps, (self.w_qkv.weight,), (self.w_qkv.bias,), (self.w_qkv.weight_scale,))
        else:
            qkv = self.norm_qkv(x, norm, eps, (self.wq.weight, self.wk.weight, self.wv.weight),
                                (self.wq.bias, self.wk.bias, self.wv.bias),
                                (self.wq.weight_scale, self.wk.weight_scale, self.wv.weight_scale))
        out = self.paged_attention(qkv, rotation, plan, key_cache, value_cache, self.heads, block_size, self.scale)
        return self.linear_add(out, self.wo.weight, self.wo.bias, self.wo.weight_scale, x)
