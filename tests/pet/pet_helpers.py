"""Small models of both families, with adapters whose B is not zero."""
import mindspore as ms
import numpy as np
from mindspore import Tensor

from mindformers.models.glm2.glm2 import ChatGLM2ForConditionalGeneration
from mindformers.models.glm2.glm2_config import ChatGLM2Config
from mindformers.models.llama.llama import LlamaForCausalLM
from mindformers.models.llama.llama_config import LlamaConfig
from mindformers.pet import LoraConfig, get_pet_model

LLAMA_TARGETS = ".*wq|.*wk|.*wv|.*wo|.*w1|.*w2|.*w3|lm_head"
PACKED_TARGETS = ".*w_qkv|.*w_gate_hidden|.*w2"
GLM_TARGETS = ".*query_key_value|.*dense|.*dense_h_to_4h|.*dense_4h_to_h|.*output_layer"
TOKENS = np.array([[5, 6, 7, 8, 9, 3, 11, 12]], np.int32)


def llama(**settings):
    """A Llama of two layers with its own head."""
    ms.set_seed(3)
    return LlamaForCausalLM(LlamaConfig(**{
        "vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_heads": 4, "n_kv_heads": 2, "intermediate_size": 48,
        "seq_length": 32, "param_init_type": "float32", "pad_token_id": 0, **settings}))


def glm(**settings):
    """A ChatGLM of two layers."""
    ms.set_seed(3)
    return ChatGLM2ForConditionalGeneration(ChatGLM2Config(**{
        "padded_vocab_size": 64, "hidden_size": 32, "num_layers": 2, "num_attention_heads": 4, "kv_channels": 8,
        "multi_query_group_num": 2, "ffn_hidden_size": 48, "seq_length": 32, "param_init_type": "float32", **settings}))


FAMILIES = {"llama": (lambda: llama(num_layers=1), LLAMA_TARGETS), "glm": (lambda: glm(num_layers=1), GLM_TARGETS),
            "packed": (lambda: llama(num_layers=1, qkv_concat=True), PACKED_TARGETS)}


def adapted(build, targets, fill=True, **settings):
    """A model with adapters, whose B is random (seeded) unless `fill` is False."""
    model = get_pet_model(build(), LoraConfig(**{"target_modules": targets, "lora_rank": 4, "lora_alpha": 6,
                                                 "lora_dropout": 0.0, **settings}))
    if fill:
        fill_adapters(model)
    return model


def fill_adapters(model, seed=1):
    """Give A and B random values, the same for the same names and shapes."""
    generator = np.random.default_rng(seed)
    for _, parameter in sorted(model.adapter_parameters().items()):
        value = generator.normal(0, 0.3, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(value).astype(parameter.dtype))


def logits(model, tokens=TOKENS):
    """Logits [B, T, V] without a cache."""
    return model(tokens).logits.asnumpy()


def cached_logits(model, tokens=TOKENS, prompt=5):
    """Logits [T - prompt + 1, V] of one row on the cache: behind the prompt, then token by token."""
    rows = []
    with model.make_cache(1, 32) as cache:
        rows.append(model.forward_step(tokens[:, :prompt], np.array([prompt]), cache)[0])
        for place in range(prompt, tokens.shape[1]):
            rows.append(model.forward_step(tokens[:, place:place + 1], np.array([1]), cache)[0])
    return np.stack(rows)


def same_on_the_cache(model, tolerance):
    """Check that a model answers the same with and without the cache; returns the logits [T, V] without."""
    whole = logits(model)[0]
    np.testing.assert_allclose(cached_logits(model), whole[4:], atol=tolerance)
    return whole
