"""A step of a decoder from token ids to logits in one piece, where the kernels have one and all cells are ours."""
from mindformers.modules.attention import Attention
from mindformers.modules.decoder import Decoder, DecoderLayer
from mindformers.modules.feed_forward import SwiGLU
from mindformers.modules.layers import VocabEmbedding
from mindformers.modules.rope import RotaryEmbedding
from mindformers.tools.errors import UnsupportedError


def decoder_step(decoder, head, pool):
    """Return the `decoder_step` of `kernels` for a `Decoder` and its head, or None when a step must run cell by cell.

    Made when a model first generates, not with the model: a layer may be quantised or given an adapter in between.

    Args:
        decoder (Decoder): with plain products (`Linear.is_plain`) in layers that are all alike; what a subclass
            computes in its own way makes it None.
        head (tuple | None): weight, bias or None and scale or None of the head's product; None when it is more.
        pool (CachePool): cache that is written in place.
    """
    if decoder.decoder_step is None or head is None or not _is_ours(decoder):
        return None
    layers = _flatten(decoder.blocks(), pool.arrays)
    if layers is None:
        return None
    layout, parameters, eps, scale = layers
    final = decoder.final_norm()
    return decoder.decoder_step(decoder.embedding_cell().embedding_weight, layout, parameters, (final.weight, *head),
                                (eps, final.eps), decoder.rope, decoder.heads, scale, pool.block_size,
                                decoder.past_length)


def refuse_forgetful_steps(decoder):
    """Raise UnsupportedError for a cell whose class changed what runs over whole sequences, but not what runs in steps.

    Steps on the cache would compute something else than the model without a cache, and nothing would tell.
    """
    if type(decoder).construct is not Decoder.construct:
        raise _forgetful(decoder)
    for i, block in enumerate(decoder.blocks()):
        norm, attention, mlp_norm, mlp = block.parts()
        for cell in (block, attention):
            if _depth(cell, "construct") < _depth(cell, "cached"):
                raise _forgetful(cell, f"layer {i}: ", "give it a `cached` that computes the same, or ")
        if type(block).cached is not DecoderLayer.cached:
            continue
        if not hasattr(mlp, "cached"):
            raise _forgetful(mlp, f"layer {i}: ", "derive it from SwiGLU, or ")
        for cell in (norm, mlp_norm):
            if not getattr(cell, "is_plain", False):
                raise _forgetful(cell, f"layer {i}: ", f"give {type(block).__name__} a `cached` that calls it, or ")


def _forgetful(cell, place="", remedy=""):
    return UnsupportedError(f"{place}{type(cell).__name__} has a `construct` of its own, which steps on the cache do "
                            f"not call; {remedy}generate with use_cache=False")


def _depth(cell, method):
    """How far up the parents of the cell's class the method is defined; 0 is the class itself."""
    return next(i for i, kind in enumerate(type(cell).__mro__) if method in vars(kind))


def _is_ours(decoder):
    """Whether no cell of the decoder computes in its own way what a step in one piece does not call."""
    ours = _same(decoder, Decoder, "embed") and _same(decoder.embedding_cell(), VocabEmbedding, "construct")
    ours = ours and _same(decoder.rope, RotaryEmbedding, "construct", "step", "frequencies", "step_frequencies")
    ours = ours and getattr(decoder.final_norm(), "is_plain", False)
    for block in decoder.blocks() if ours else ():
        _, attention, _, mlp = block.parts()
        if not (_same(block, DecoderLayer, "cached") and _same(attention, Attention, "cached", "called_products")
                and _same(mlp, SwiGLU, "construct", "cached")):
            return False
    return ours


def _same(cell, kind, *methods):
    """Whether the cell is a `kind`, with these methods."""
    return isinstance(cell, kind) and all(getattr(type(cell), name) is getattr(kind, name) for name in methods)


def _flatten(blocks, caches):
    """Layout and Parameters of the layers as `decoder_step` takes them, eps of the norms, scale of the scores; None
    when they do not fit."""
    layouts, parameters = set(), []
    for i, block in enumerate(blocks):
        norm, attention, mlp_norm, mlp = block.parts()
        products = (attention.inputs(), (attention.output(),), mlp.inputs(), (mlp.output(),))
        linears = [linear for product in products for linear in product]
        if not all(linear.is_plain for linear in linears):
            return None
        scaled = {linear.weight_scale is not None for linear in linears}
        biases = [{linear.bias is not None for linear in product} for product in products[:2]]
        biases.append({linear.bias is not None for product in products[2:] for linear in product})
        if any(len(kinds) > 1 for kinds in (scaled, *biases)):
            return None
        layouts.add((len(blocks), len(products[0]), len(products[2]), *(int(kinds.pop()) for kinds in biases),
                     int(scaled.pop()), norm.eps, mlp_norm.eps, attention.scale))
        parameters += [norm.weight, *_values(*products[0], *products[1]), caches[2 * i], caches[2 * i + 1],
                       mlp_norm.weight, *_values(*products[2], *products[3])]
    if len(layouts) != 1:
        return None
    *layout, eps, mlp_eps, scale = layouts.pop()
    return (tuple(layout), parameters, eps, scale) if eps == mlp_eps else None


def _values(*linears):
    """Weight, bias if any, scale if any of each."""
    return [value for linear in linears for value in (linear.weight, linear.bias, linear.weight_scale)
            if value is not None]
