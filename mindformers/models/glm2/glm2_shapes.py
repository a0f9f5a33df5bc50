"""Names and shapes of ChatGLM2's parameters, counted from the configuration alone: no cell is built."""


def parameter_shapes(config, architecture="ChatGLM2ForConditionalGeneration"):
    """Return ``{our parameter name: shape}`` of a model.

    Args:
        config (ChatGLM2Config): the configuration.
        architecture (str): class of the model; ChatGLM2Model and GlmModel have no head.
            Default: ChatGLM2ForConditionalGeneration.
    """
    hidden, vocab = config.hidden_size, config.vocab_size
    shapes = {"transformer.embedding.embedding_weight": (vocab, hidden)}
    for index in range(config.num_layers):
        shapes.update({f"transformer.encoder.layers.{index}.{name}": shape for name, shape in _layer(config).items()})
    shapes["transformer.encoder.final_layernorm.weight"] = (hidden,)
    if architecture not in ("ChatGLM2Model", "GlmModel") and not config.tie_word_embeddings:
        shapes["transformer.output_layer.weight"] = (vocab, hidden)
    shapes.update({f"transformer.prefix_encoder.{name}": shape for name, shape in _prefix(config).items()})
    return shapes


def _layer(config):
    hidden, inner = config.hidden_size, config.ffn_hidden_size
    q, kv = config.num_attention_heads * config.head_size, config.kv_heads * config.head_size
    bias, qkv_bias = config.add_bias_linear, config.qkv_has_bias
    linears = [("self_attention.dense", hidden, q, bias), ("mlp.dense_4h_to_h", hidden, inner, bias)]
    if config.qkv_concat:
        linears.append(("self_attention.query_key_value", q + 2 * kv, hidden, qkv_bias))
    else:
        linears += [(f"self_attention.{name}", rows, hidden, qkv_bias)
                    for name, rows in (("wq", q), ("wk", kv), ("wv", kv))]
    if config.mlp_concat:
        linears.append(("mlp.dense_h_to_4h", 2 * inner, hidden, bias))
    else:
        linears += [(f"mlp.{name}", inner, hidden, bias) for name in ("dense_left", "dense_right")]
    shapes = {"input_layernorm.weight": (hidden,), "post_attention_layernorm.weight": (hidden,)}
    for name, rows, columns, has_bias in linears:
        shapes[f"{name}.weight"] = (rows, columns)
        if has_bias:
            shapes[f"{name}.bias"] = (rows,)
    return shapes


def _prefix(config):
    if not config.pre_seq_len:
        return {}
    width, hidden = config.prefix_width, config.hidden_size
    shapes = {"embedding.embedding_weight": (config.pre_seq_len, width)}
    if config.prefix_projection:
        shapes.update({"trans.0.weight": (hidden, width), "trans.0.bias": (hidden,),
                       "trans.2.weight": (width, hidden), "trans.2.bias": (width,)})
    return shapes
