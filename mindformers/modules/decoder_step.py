"""A step of a decoder from token ids to logits in one piece, where the kernels in force have one."""
from mindformers.modules.layers import VocabEmbedding


def decoder_step(decoder, head, pool):
    """Return the `decoder_step` of `kernels` for a `Decoder` and its head, or None when a step must run cell by cell.

    Made when a model first generates, not with the model: a layer may be quantised or given an adapter in between.

    Args:
        decoder (Decoder): with plain products (`Linear.is_plain`) in layers that are all alike.
        head (tuple | None): weight, bias or None and scale or None of the head's product; None when it is more.
        pool (CachePool): cache that is written in place.
    """
    if decoder.decoder_step is None or head is None or not isinstance(decoder.embedding_cell(), VocabEmbedding):
        return None
    layers = _flatten(decoder.blocks(), pool.arrays)
    if layers is None:
        return None
    layout, parameters, eps, scale = layers
    final = decoder.final_norm()
    return decoder.decoder_step(decoder.embedding_cell().embedding_weight, layout, parameters, (final.weight, *head),
                                (eps, final.eps), decoder.rope, decoder.heads, scale, pool.block_size,
                                decoder.past_length)


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
