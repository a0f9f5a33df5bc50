"""Self attention of a decoder layer, on token-major rows, with and without the paged cache."""
import math

from mindspore import nn, ops

from mindformers import kernels
from mindformers.kernels.portable import group_queries, split_qkv, ungroup
from mindformers.modules.layers import Linear


class Attention(nn.Cell):
    """Rotary self attention with grouped kv heads, whatever its products are called.

    A subclass answers `inputs()`, the Linear cells of queries, keys and values or the one whose rows are [q; k; v],
    and `output()`, the Linear behind.

    Args:
        num_heads (int): query heads N.
        n_kv_heads (int): kv heads K; divides N.
        head_dim (int): width H of a head.
    """

    def __init__(self, num_heads, n_kv_heads, head_dim):
        super().__init__()
        self.heads = (num_heads, n_kv_heads, head_dim)
        self.scale = 1.0 / math.sqrt(head_dim)
        for op in ("rope", "attention", "attention_probs", "norm_qkv", "paged_attention", "linear_add", "rms_norm",
                   "pack_qkv"):
            setattr(self, op, kernels.get(op))

    def construct(self, x, b, t, rotation, mask, return_probs=False, past=None):
        """Attention without a cache.

        Args:
            x: rows [B*T, D]. mask: additive, broadcast to [B, K, G*T, S].
            past: keys and values [B, K, P, H] in front of this call's, not rotated; then S is P + T. Default: None.

        Returns:
            [B*T, D]; probabilities [B, N, T, S], or None without `return_probs`.
        """
        n, k, h = self.heads
        qkv = ()
        for linear in self.inputs():
            qkv = qkv + (linear(x),)
        q, keys, values = split_qkv(qkv, self.heads)
        q = group_queries(self.rope(q, rotation), self.heads, b, t)
        keys = ops.transpose(ops.reshape(self.rope(keys, rotation), (b, t, k, h)), (0, 2, 1, 3))
        values = ops.transpose(ops.reshape(values, (b, t, k, h)), (0, 2, 1, 3))
        if past is not None:
            keys, values = ops.concat((past[0], keys), 2), ops.concat((past[1], values), 2)
        probs = None
        if return_probs:
            probs = ops.reshape(self.attention_probs(q, keys, mask, self.scale), (b, n, t, -1))
        out = ungroup(self.attention(q, keys, values, mask, self.scale), self.heads, b, t)
        return self.output()(out), probs

    def cached(self, x, norm, eps, rotation, plan, key_cache, value_cache, block_size):
        """``x + attention(rms_norm(x))`` on the paged cache; this step's keys and values are stored first.

        Args:
            x: rows [M, D]. norm: weight of the norm [D]. rotation, plan: of the step, from `kernels`.
            key_cache, value_cache: Parameters [slots*K, H].
        """
        weights, biases, scales, plain = (), (), (), True
        for linear in self.inputs():
            weights, biases = weights + (linear.weight,), biases + (linear.bias,)
            scales, plain = scales + (linear.weight_scale,), plain and linear.is_plain
        if plain:
            qkv = self.norm_qkv(x, norm, eps, weights, biases, scales)
        else:
            qkv = self.called_products(self.rms_norm(x, norm, eps))
        out = self.paged_attention(qkv, rotation, plan, key_cache, value_cache, self.heads, block_size, self.scale)
        output = self.output()
        if not output.is_plain:
            return x + output(out)
        return self.linear_add(out, output.weight, output.bias, output.weight_scale, x)

    def called_products(self, x):
        """What `norm_qkv` gives, for cells that are more than their weight (adapters); x: normed rows [M, D]."""
        rows = ()
        for linear in self.inputs():
            rows = rows + (linear(x),)
        return self.pack_qkv(rows[0] if len(rows) == 1 else ops.concat(rows, -1))


class SelfAttention(Attention):
    """Attention with Llama's parameter names: wq, wk, wv or the packed w_qkv, and wo.

    Args:
        hidden_size (int): width D.
        num_heads, n_kv_heads, head_dim (int): see `Attention`.
        qkv_has_bias, out_has_bias (bool): biases. Default: False.
        qkv_concat (bool): one packed product (`w_qkv`, rows [q; k; v]). Default: False.
        param_init_type (str): dtype of the parameters. Default: "float32".
    """

    def __init__(self, hidden_size, num_heads, n_kv_heads, head_dim, qkv_has_bias=False, out_has_bias=False,
                 qkv_concat=False, param_init_type="float32"):
        super().__init__(num_heads, n_kv_heads, head_dim)
        self.qkv_concat = qkv_concat
        q_size, kv_size = num_heads * head_dim, n_kv_heads * head_dim
        if qkv_concat:
            self.w_qkv = Linear(hidden_size, q_size + 2 * kv_size, qkv_has_bias, param_init_type)
        else:
            self.wq = Linear(hidden_size, q_size, qkv_has_bias, param_init_type)
            self.wk = Linear(hidden_size, kv_size, qkv_has_bias, param_init_type)
            self.wv = Linear(hidden_size, kv_size, qkv_has_bias, param_init_type)
        self.wo = Linear(q_size, hidden_size, out_has_bias, param_init_type)

    def inputs(self):
        """The Linear cells of q, k and v, or the packed one."""
        return (self.w_qkv,) if self.qkv_concat else (self.wq, self.wk, self.wv)

    def output(self):
        """The Linear behind the heads."""
        return self.wo
