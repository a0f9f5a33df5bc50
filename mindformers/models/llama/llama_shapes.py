"""Names and shapes of Llama's parameters, counted from the configuration alone: no cell is built."""


def parameter_shapes(config, architecture="LlamaForCausalLM"):
    """Return ``{our parameter name: shape}`` of a model.

    Args:
        config (LlamaConfig): the configuration.
        architecture (str): LlamaForCausalLM, LlamaModel or LlamaForSequenceClassification. Default: LlamaForCausalLM.
    """
    hidden, vocab = config.hidden_size, config.vocab_size
    shapes = {"model.tok_embeddings.embedding_weight": (vocab, hidden)}
    for index in range(config.num_layers):
        shapes.update({f"model.layers.{index}.{name}": shape for name, shape in _layer(config).items()})
    shapes["model.norm_out.weight"] = (hidden,)
    if architecture == "LlamaForSequenceClassification":
        shapes["score.weight"] = (config.num_labels, hidden)
    elif architecture != "LlamaModel" and not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def _layer(config):
    hidden, inner = config.hidden_size, config.ffn_size
    q, kv = config.num_heads * config.head_size, config.kv_heads * config.head_size
    linears = [("attention.wo", hidden, q, config.attn_proj_has_bias),
               ("feed_forward.w2", hidden, inner, config.mlp_has_bias)]
    if config.qkv_concat:
        linears += [("attention.w_qkv", q + 2 * kv, hidden, config.qkv_has_bias),
                    ("feed_forward.w_gate_hidden", 2 * inner, hidden, config.mlp_has_bias)]
    else:
        linears += [("attention.wq", q, hidden, config.qkv_has_bias), ("attention.wk", kv, hidden, config.qkv_has_bias),
                    ("attention.wv", kv, hidden, config.qkv_has_bias),
                    ("feed_forward.w1", inner, hidden, config.mlp_has_bias),
                    ("feed_forward.w3", inner, hidden, config.mlp_has_bias)]
    shapes = {"attention_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
    for name, rows, columns, bias in linears:
        shapes[f"{name}.weight"] = (rows, columns)
        if bias:
            shapes[f"{name}.bias"] = (rows,)
    return shapes
