"""Finds the native CPU library, decides whether it may be used here, and offers it to MindSpore.

Nothing here imports MindSpore unless the plugin is tried. The library is refused, with the reason in words, when it
was built for another MindSpore version or for another state of this package, or when it computes a known case wrong.
"""
import ctypes
import functools
import importlib
import os
import sys
from typing import NamedTuple

import numpy as np

from mindformers.kernels.build import ABI, CSRC, LIB, NAME, source_digest
from mindformers.tools.env import get_env, set_env
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.tools.logger import logger

PATH = LIB / NAME
BUILD = "python -m mindformers.kernels.build"

# entry -> (dtypes, limits); the entries are ops.Custom functions "PATH:entry"
ENTRIES = {
    "mf_linear": ("x float32; weight float32, float16, bfloat16, int8; out float32",
                  "int8: symmetric, a scale per row or per group of 32 or more columns"),
    "mf_qkv": ("as mf_linear", "three products of one input, joined"),
    "mf_gate_up": ("as mf_linear", "silu(gate) * up"),
    "mf_gate_up_packed": ("as mf_linear", "one weight, rows of gate before rows of up"),
    "mf_rope_table": ("positions int32; out float32", "cosines, then sines"),
    "mf_decoder_layers": ("x float32; weights float32, float16, bfloat16, int8; cache float32, float16, bfloat16",
                          "all layers of a step: pre-norm attention and SwiGLU, of one layout"),
    "mf_paged_attention": ("qkv float32; cache float32, float16, bfloat16; indices int32; out float32",
                           "rope, cache write and causal attention; window optional"),
    "mf_copy_rows": ("cache float32, float16, bfloat16; indices int32", "in place; rows of the cache"),
    "mf_embedding": ("ids int32; weight float32, float16, bfloat16; out float32", "ids below the number of rows"),
    "mf_rms_norm": ("x float32; weight float32, float16, bfloat16; out float32", "over the last axis"),
    "mf_cross_entropy": ("logits float32, float16, bfloat16; labels int32; out float32",
                         "loss and log-sum-exp of each row"),
    "mf_cross_entropy_grad": ("as mf_cross_entropy", "gradient of the logits"),
    "mf_rms_norm_grad": ("as mf_rms_norm; gradients float32", "gradients of x and weight"),
    "mf_swiglu": ("float32", "silu(gate) * up"),
    "mf_swiglu_grad": ("float32", "gradients of gate and up"),
    "mf_attention": ("float32; keep int32", "a whole pass without a cache; padding on either side"),
    "mf_flash_forward": ("float32", "attention that trains; additive mask of 0, or -10000 and less"),
    "mf_flash_backward": ("float32", "gradients of q, k and v"),
}


class Verdict(NamedTuple):
    """Whether something may be used, and if not why not and what to do."""

    usable: bool
    reason: str = ""


class Facts(NamedTuple):
    """What the library says of itself."""

    abi: int
    mindspore_versions: tuple
    sources: str  # hash of the sources it was made from
    isa: str
    threads: int


def path():
    """Return the path of the library (string), there or not; ``"PATH:entry"`` names an ops.Custom function."""
    return str(PATH)


@functools.cache
def load():
    """Return the library as a ctypes.CDLL.

    Raises:
        UnsupportedError: it is not built, or cannot be loaded, or is not one of ours.
    """
    if not PATH.is_file():
        raise UnsupportedError(f"the native library is not built; `{BUILD}` builds it (it takes g++ or clang++)")
    try:
        library = ctypes.CDLL(str(PATH))
        for name in ("mf_mindspore_versions", "mf_sources", "mf_isa", "mf_last_error", "mf_plugin_limits"):
            getattr(library, name).restype = ctypes.c_char_p
        library.mf_plugin_limits.argtypes = [ctypes.c_char_p]
        library.GetAllRegisteredOps.restype = ctypes.POINTER(ctypes.c_char_p)
        for name in ("mf_abi_version", "mf_num_threads", "mf_rms_norm", "GetRegisteredOpCount"):
            getattr(library, name).restype = ctypes.c_int
    except (OSError, AttributeError) as error:
        raise UnsupportedError(f"the native library cannot be used: {error}; `{BUILD}` makes it anew") from error
    return library


def last_error():
    """Return the text of the last failure of the library in this process, ``""`` when there was none."""
    return load().mf_last_error().decode()


@functools.cache
def facts():
    """Return the `Facts` of the library.

    Raises:
        UnsupportedError: as `load`. ConfigError: a bad MF_ISA or MF_NUM_THREADS.
    """
    library = load()
    threads, isa = library.mf_num_threads(), library.mf_isa().decode()  # 0 and "": a variable that is wrong
    if not threads or not isa:
        raise ConfigError(f"environment variable {last_error()}")
    return Facts(library.mf_abi_version(), tuple(library.mf_mindspore_versions().decode().split()),
                 library.mf_sources().decode(), isa, threads)


def is_stale():
    """Return whether the sources changed since the library was built; they are read only when one is newer."""
    made = PATH.stat().st_mtime
    newer = any(source.stat().st_mtime > made for source in CSRC.rglob("*.*"))
    return newer and facts().sources != source_digest()


def mindspore_version():
    """Return the version of MindSpore, without importing it; ``""`` when there is none."""
    if "mindspore" in sys.modules:
        return sys.modules["mindspore"].__version__
    from importlib import metadata  # slow to import, and not needed in a process that computes
    try:
        return metadata.version("mindspore")
    except metadata.PackageNotFoundError:
        return ""


@functools.cache
def verdict():
    """Return whether the library may be used with this MindSpore: version, ABI, and a case computed right.

    Costs a few milliseconds, once per process.
    """
    try:
        found = facts()
    except UnsupportedError as error:
        return Verdict(False, str(error))
    if found.abi != ABI:
        return Verdict(False, f"the native library {PATH} was built for another version of mindformers (interface "
                              f"{found.abi}, wanted {ABI}); `{BUILD}` makes it anew")
    if mindspore_version() not in found.mindspore_versions:
        return Verdict(False, f"the native library was built for MindSpore {', '.join(found.mindspore_versions)}, and "
                              f"this is {mindspore_version() or 'none'}: the layout of the calls may differ")
    if is_stale():
        warn_once(f"the sources of the native library changed since it was built; `{BUILD}` brings it up to date")
    return _check_entry()


def _check_entry():
    """Call mf_rms_norm as ops.Custom does and compare with numpy."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((3, 37), np.float32), rng.standard_normal(37, np.float32)
    meta, out = np.array([0.25] + 7 * [0], np.float32), np.zeros_like(x)
    try:
        Call("mf_rms_norm", x, weight, meta, out)()
    except RuntimeError as error:
        return Verdict(False, f"the native library {PATH} failed its check: {error}")
    return _compare("the native library", out, _rms_norm(x, weight, 0.25))


class Operand(NamedTuple):
    """An array that numpy does not know."""

    address: int
    dtype: str
    shape: tuple


class Call:
    """An ops.Custom entry with its operands, outputs last; it can be called again and again.

    Args:
        entry (str): a name in ENTRIES.
        operands: C-contiguous numpy arrays, which stay alive with the call, or `Operand`s, which must.
    """

    def __init__(self, entry, *operands):
        self._function, self._operands, count = getattr(load(), entry), list(operands), len(operands)
        whole = [Operand(x.ctypes.data, str(x.dtype), x.shape) if isinstance(x, np.ndarray) else x for x in operands]
        self._shapes = [(ctypes.c_int64 * max(len(x.shape), 1))(*x.shape) for x in whole]
        self._places = (ctypes.c_void_p * count)(*(x.address for x in whole))
        self._arguments = (
            ctypes.c_int(count), self._places, (ctypes.c_int * count)(*(len(x.shape) for x in whole)),
            (ctypes.c_void_p * count)(*map(ctypes.addressof, self._shapes)),
            (ctypes.c_char_p * count)(*(x.dtype.encode() for x in whole)), None, None)

    def place(self, index, array):
        """Put an array of the same shape and dtype in the place of operand `index`."""
        self._operands[index] = array
        self._places[index] = array.ctypes.data

    def __call__(self):
        """Run it.

        Raises:
            RuntimeError: the entry refused; its text.
        """
        if self._function(*self._arguments):
            raise RuntimeError(last_error())


def _rms_norm(x, weight, eps):
    return x / np.sqrt(np.mean(np.square(x, dtype=np.float64), -1, keepdims=True) + eps) * weight


def _compare(who, got, expected):
    error = float(np.abs(got - expected).max())
    if error <= 1e-5:  # NaN is not
        return Verdict(True)
    return Verdict(False, f"{who} computed a known case wrong (rms_norm is off by {error:.3g})")


def plugin_wanted():
    """Return whether the user asks for the op plugin: by ``MF_KERNELS=fused``, or by naming it to MindSpore.

    It is not offered unasked: any op plugin changes how MindSpore's own CPU kernels see strided views, which ours has
    to mend in memory (csrc/plugin/views.cpp), and custom ops serve our models without it.
    """
    return get_env("MF_KERNELS") == "fused" or (get_env("MF_KERNELS") != "portable" and plugin_is_ours())


def offer_plugin():
    """Name the library to MindSpore as its op plugin where it is wanted, unless the user named another one.

    MindSpore reads the variable when its first op runs, and must be loaded before the plugin is made ready (see
    csrc/plugin/views.cpp); so this imports MindSpore. Called when `kernels.select` is imported, and before a primitive
    is given out; a second call costs nothing.
    """
    if not plugin_wanted() or not verdict().usable:
        return
    if not get_env("MS_OP_PLUGIN_PATH"):
        set_env("MS_OP_PLUGIN_PATH", PATH)
    if plugin_is_ours():
        _prepare_plugin()
    else:
        warn_once(f"MS_OP_PLUGIN_PATH={get_env('MS_OP_PLUGIN_PATH')} is kept: MindSpore's fused primitives run that "
                  "library, mindformers its own custom ops")


@functools.cache
def _prepare_plugin():
    """Let the library make itself ready in MindSpore; slow enough (milliseconds) to be done once."""
    importlib.import_module("mindspore")
    load().GetRegisteredOpCount()


def plugin_offer():
    """Return in words which op plugin MindSpore takes."""
    named = get_env("MS_OP_PLUGIN_PATH")
    if not named:
        return ("this library, when the first op is asked for" if plugin_wanted()
                else "none (MF_KERNELS=fused takes ours)")
    return "this library" if plugin_is_ours() else f"{named} (named by MS_OP_PLUGIN_PATH)"


def plugin_is_ours():
    """Return whether MS_OP_PLUGIN_PATH names this library."""
    named = get_env("MS_OP_PLUGIN_PATH")
    return bool(named) and os.path.realpath(named) == os.path.realpath(PATH)


@functools.cache
def plugin_verdict():
    """Return whether MindSpore's fused primitives run our kernels, tried once with RmsNorm and an eps that is not the
    default: a library called with another layout of arguments gives wrong numbers without an error."""
    if not verdict().usable:
        return verdict()
    if not plugin_is_ours():
        return Verdict(False, f"MindSpore's op plugin is {plugin_offer()}")
    from mindspore import Tensor, ops
    rng = np.random.default_rng(1)
    x, weight = rng.standard_normal((2, 16), np.float32), rng.standard_normal(16, np.float32)
    try:
        out = ops.rms_norm(Tensor(x), Tensor(weight), 0.25)[0].asnumpy()
    except (RuntimeError, TypeError, ValueError) as error:
        return Verdict(False, "MindSpore did not take the op plugin (an op ran before mindformers was imported, or "
                              f"the variable was set later): {str(error).strip().splitlines()[0]}")
    return _compare("MindSpore's op plugin", out, _rms_norm(x, weight, 0.25))


def plugin_ops():
    """Return ``{primitive: dtypes and limits}`` of the op plugin.

    Raises:
        UnsupportedError: the library may not be used here, see `verdict`.
    """
    usable, reason = verdict()
    if not usable:
        raise UnsupportedError(reason)
    library = load()
    names = library.GetAllRegisteredOps()[:library.GetRegisteredOpCount()]
    return {name.decode(): (library.mf_plugin_limits(name) or b"").decode() for name in names}


@functools.cache
def warn_once(text):
    """Log a warning, once per process."""
    logger.warning(text)
