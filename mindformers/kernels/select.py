"""Which form of each op a cell gets.

Two forms: `portable`, plain MindSpore ops that every backend runs (on CPU numpy for whole steps of generation), and
`fused`: on CPU our native library, as custom ops (`native`) or, where it is asked for, as the kernels of MindSpore's
fused primitives (`fused`); on Ascend those primitives themselves.
An op that the fused form lacks runs in the portable one. ``MF_KERNELS`` forces a form; one that cannot run is an error
that says why.
"""
import ast
import functools
import importlib
import sys
from pathlib import Path
from typing import NamedTuple

from mindformers.kernels import library
from mindformers.tools.env import get_env
from mindformers.tools.errors import UnsupportedError, did_you_mean

OPS = {
    "linear": "x [M, I] @ weight [O, I]^T + bias",
    "embedding": "rows of a table by token id",
    "rms_norm": "root mean square norm (arXiv:1910.07467)",
    "rope_plan": "what rope needs of a step's positions, made once for all layers",
    "rope": "rotary position embedding, half-rotate or interleaved pairs (arXiv:2104.09864)",
    "swiglu": "silu(gate) * up (arXiv:2002.05202)",
    "attention": "softmax(q k^T * scale + mask) v with grouped kv heads",
    "attention_probs": "the probabilities of `attention`, for output_attentions",
    "norm_linear": "linear of rms_norm: the head of a step",
    "linear_add": "linear with a residual: output and down projections of a step",
    "norm_qkv": "queries, keys and values of rms_norm(x), in what form paged_attention takes them",
    "pack_qkv": "rows [q; k; v] made otherwise, in what form paged_attention takes them",
    "norm_gate_up": "swiglu of the two products of rms_norm(x)",
    "step_rotation": "what paged_attention needs of a step's positions to rotate, made once for all layers",
    "cache_plan": "what paged_attention needs of a step to find its cache, made once for all layers",
    "paged_attention": "rope, cache write in place, and attention over the paged cache (arXiv:2309.06180)",
    "token_loss": "cross entropy of each row of logits; rows of weight 0 are not looked at",
    "decoder_step": "a step from token ids to logits without a graph; None where memory cannot be read",
    "cache_shape": "shape of the keys or of the values of a paged cache",
    "copy_rows": "rows of the paged cache onto other rows, in place",
}
FORMS = ("portable", "fused")
ASCEND_DRIVER = Path("/dev/davinci_manager")
# module of this package -> who runs its ops
RUNNERS = {"native": "native", "fused": "primitive", "portable": "portable"}


class OpInfo(NamedTuple):
    """One row of `describe`."""

    form: str  # one of FORMS
    runner: str  # "native" (custom op of our library), "primitive" (MindSpore's fused one) or "portable"
    what: str  # what the op computes


def backend():
    """Return MindSpore's device, ``"CPU"`` or ``"Ascend"``; it is imported only where there is a choice."""
    if "mindspore" not in sys.modules and not ASCEND_DRIVER.exists():
        return "CPU"
    from mindspore import context
    return context.get_context("device_target")


def form():
    """Return the name of the form in force: ``"fused"`` or ``"portable"``.

    Raises:
        UnsupportedError: ``MF_KERNELS`` names a form that cannot run here.
    """
    wanted = get_env("MF_KERNELS")
    if wanted and wanted not in FORMS:
        raise UnsupportedError(f"MF_KERNELS={wanted!r}: there is no such form; use portable or fused, or leave it "
                               f"unset.{did_you_mean(wanted, FORMS)}")
    if wanted == "portable":
        return wanted
    if backend() != "CPU":
        return "fused"
    usable, reason = library.verdict()
    if usable:
        return "fused"
    if wanted == "fused":
        raise UnsupportedError(f"MF_KERNELS=fused cannot run: {reason}. MF_KERNELS=portable needs no library.")
    library.warn_once(f"the portable kernels run, which are slower: {reason}")
    return "portable"


def get(op):
    """Return the function that runs `op` on this backend, to be called inside a cell's construct.

    Raises:
        KeyError: there is no such op. UnsupportedError: as `form`.
    """
    if op not in OPS:
        raise KeyError(f"unknown kernel {op!r}.{did_you_mean(op, OPS)}")
    module = _module_of(op)
    if module != "portable" and backend() == "CPU":
        library.offer_plugin()
        if module == "fused" and not _primitives_run():
            module = "portable"
    return getattr(importlib.import_module(f"mindformers.kernels.{module}"), op)


def _primitives_run():
    """Whether MindSpore's fused primitives run our kernels; if not, one warning, or an error where fused is forced."""
    usable, reason = library.plugin_verdict()
    if not usable and get_env("MF_KERNELS") == "fused":
        raise UnsupportedError(f"MF_KERNELS=fused cannot run MindSpore's fused primitives: {reason}. "
                               "MF_KERNELS=portable needs no plugin; unset, what cannot run fused runs portable.")
    if not usable:
        library.warn_once(f"MindSpore's fused primitives cannot run here, plain ops do: {reason}")
    return usable


def compute_dtype(requested):
    """Return the dtype (string) that products really run in when a config asks for `requested`.

    The portable form computes in float32: MindSpore has no bfloat16 MatMul on CPU, and its float16 one is about
    15 times slower than float32. The fused form multiplies in the dtype of the weights and adds up in float32.
    Weights keep the dtype they are stored in.
    """
    half = requested in ("float16", "bfloat16")
    return "float32" if half and form() == "portable" else requested


def cache_dtype(stored):
    """Return the dtype (string) of the KV cache of a model whose weights are stored as `stored`.

    Ascend's paged attention takes 16-bit caches only.
    """
    if form() == "portable":
        return "float32"
    return "bfloat16" if stored == "float32" and backend() != "CPU" else stored


def copies_shared_parameters():
    """Whether MindSpore copies a parameter that is read on both sides of a cache write: it does when it knows of the
    write, as in the portable form."""
    return form() == "portable" or backend() != "CPU"


def reads_whole_tables():
    """Whether a step reads all blocks of its block table and masks what lies behind a row's end, as the portable form
    does; the others stop at the row's length."""
    return form() == "portable"


def explain(error):
    """Return the RuntimeError of a graph with the words of our library, when it was a kernel of ours that refused."""
    return RuntimeError(library.last_error()) if library.NAME in str(error) else error


def describe():
    """Return ``{op: OpInfo}`` for every op, as `mindformers check --kernels` prints it."""
    table = {}
    for op, what in OPS.items():
        module = _module_of(op)
        table[op] = OpInfo("portable" if module == "portable" else "fused", RUNNERS[module], what)
    return table


def _module_of(op):
    """Name of the module of this package that runs `op`."""
    if form() == "portable":
        return "portable"
    modules = ("fused",)
    if backend() == "CPU":
        modules = ("native", "fused") if library.plugin_wanted() else ("native",)
    return next((module for module in modules if op in _names_of(module)), "portable")


@functools.cache
def _names_of(module):
    """Names that `module` defines, read from its text: importing it would import MindSpore."""
    path = Path(__file__).with_name(f"{module}.py")
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else ():
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


# as early as can be, and only in a process that computes: `mindformers check --kernels` does not
if "mindspore" in sys.modules and backend() == "CPU":
    library.offer_plugin()
