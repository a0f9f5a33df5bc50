"""Which form of each op a cell gets.

There is one form today, `portable`: plain MindSpore ops, which every backend runs. ``MF_KERNELS`` names the form to
use; one that cannot run is an error that says why.
"""
from mindformers.tools.env import get_env
from mindformers.tools.errors import UnsupportedError, did_you_mean

OPS = {
    "linear": "x [M, I] @ weight [O, I]^T + bias",
    "embedding": "rows of a table by token id",
    "rms_norm": "root mean square norm (arXiv:1910.07467)",
    "rope_plan": "what rope needs of a step's positions, made once for all layers",
    "rope": "rotary position embedding, half-rotate layout (arXiv:2104.09864)",
    "swiglu": "silu(gate) * up (arXiv:2002.05202)",
    "attention": "softmax(q k^T * scale + mask) v with grouped kv heads",
    "attention_probs": "the probabilities of `attention`, for output_attentions",
    "cache_plan": "rows of the paged cache that a step writes and reads",
    "cache_write": "keys and values into the paged cache, in place",
    "cache_read": "keys or values of each sequence out of the paged cache",
}
FORMS = ("portable",)


def form():
    """Return the name of the form in force: ``"portable"``.

    Raises:
        UnsupportedError: ``MF_KERNELS`` names a form that cannot run here.
    """
    wanted = get_env("MF_KERNELS") or "portable"
    if wanted not in FORMS:
        why = "it needs kernels that this build does not have" if wanted == "fused" else "there is no such form"
        raise UnsupportedError(f"MF_KERNELS={wanted!r}: {why}; use MF_KERNELS=portable or leave it unset."
                               f"{did_you_mean(wanted, FORMS)}")
    return wanted


def get(op):
    """Return the function that runs `op` on this backend, to be called inside a cell's construct."""
    if op not in OPS:
        raise KeyError(f"unknown kernel {op!r}.{did_you_mean(op, OPS)}")
    form()
    from mindformers.kernels import portable
    return getattr(portable, op)


def compute_dtype(requested):
    """Return the dtype (string) that products really run in when a config asks for `requested`.

    The portable form computes in float32: MindSpore has no bfloat16 MatMul on CPU, and its float16 one is about
    15 times slower than float32. Weights keep the dtype they are stored in.
    """
    form()
    return "float32" if requested in ("float16", "bfloat16", "float32") else requested


def describe():
    """Return ``{op: (form, what it computes)}`` for every op, as `mindformers check --kernels` prints it."""
    return {op: (form(), what) for op, what in OPS.items()}
