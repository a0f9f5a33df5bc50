"""Cells of users' own: steps on the cache compute what the model computes without a cache, or refuse."""
import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor, nn, ops

from mindformers.models.llama.llama import LlamaBackbone, LlamaConfig, LlamaDecoderLayer, LlamaForCausalLM
from mindformers.modules.attention import SelfAttention
from mindformers.modules.feed_forward import FeedForward
from mindformers.modules.layers import Linear, RMSNorm, VocabEmbedding
from mindformers.modules.rope import RotaryEmbedding
from mindformers.tools.errors import UnsupportedError

IDS = np.random.default_rng(1).integers(3, 50, (2, 8)).astype(np.int32)


@pytest.fixture(params=["native", "portable"])
def form(request, monkeypatch):
    monkeypatch.setenv("MF_KERNELS", "portable" if request.param == "portable" else "")


@pytest.fixture(autouse=True)
def eager(request):
    """PYNATIVE spares compiling; the test with "graph" in its name runs as a graph."""
    ms.set_context(mode=ms.GRAPH_MODE if "graph" in request.node.name else ms.PYNATIVE_MODE)
    yield
    ms.set_context(mode=ms.GRAPH_MODE)


class Doubled(Linear):
    def construct(self, x):
        return 2.0 * self.linear(x, self.weight, self.bias, self.weight_scale)


class Capped(LlamaForCausalLM):
    def row_logits(self, rows):
        return ops.tanh(super().row_logits(rows))


class Relu(FeedForward):
    def construct(self, x):
        return self.w2(ops.relu(self.w1(x)) * self.w3(x))


class ReluLayer(LlamaDecoderLayer):
    feed_forward_class = Relu


class Scaled(LlamaBackbone):
    def embed(self, tokens):
        return 3.0 * self.embedding_cell()(tokens)


class OneMore(RMSNorm):
    def construct(self, x):
        return self.rms_norm(x, self.weight + 1.0, self.eps)


class OtherTable(VocabEmbedding):
    def construct(self, input_ids):
        return -self.embedding(input_ids, self.embedding_weight)


class Faster(RotaryEmbedding):
    def frequencies(self, positions):
        return 2.0 * self.inv_freq


class Backbone(LlamaBackbone):
    """With one cell after the other replaced."""

    change = None

    def __init__(self, config):
        super().__init__(config)
        type(self).change(self)


def with_backbone(kind):
    class Model(LlamaForCausalLM):
        backbone_class = kind
    return Model


def changed(change):
    return with_backbone(type("Changed", (Backbone,), {"change": staticmethod(change)}))


def output_product(backbone):
    attention = backbone.layers[1].attention
    attention.wo = Doubled(32, 32, False)


def one_block(backbone):
    backbone.layers[0].feed_forward = Relu(32, 48)



class OtherHead(LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        self.lm_head = Doubled(32, 50, False)


FOLLOWED = {
    "logits of its own": Capped, "a product of its own": changed(output_product), "a head of its own": OtherHead,
    "blocks of its own": with_backbone(type("Blocks", (LlamaBackbone,), {"layer_class": ReluLayer})),
    "one block of its own": changed(one_block), "embedding of its own": with_backbone(Scaled),
    "a table of its own": changed(lambda backbone: setattr(backbone, "tok_embeddings", OtherTable(50, 32))),
    "a final norm of its own": changed(lambda backbone: setattr(backbone, "norm_out", OneMore(32))),
    "a final norm of another kind": changed(lambda backbone: setattr(backbone, "norm_out", nn.LayerNorm((32,)))),
    "frequencies of its own": changed(lambda backbone: setattr(backbone, "rope", Faster(8))),
}


def build(kind, **fields):
    config = LlamaConfig(**{"hidden_size": 32, "num_layers": 2, "num_heads": 4, "n_kv_heads": 2, "vocab_size": 50,
                            "intermediate_size": 48, "seq_length": 32, "param_init_type": "float32", **fields})
    model, rng = kind(config).set_train(False), np.random.default_rng(3)
    for parameter in sorted(model.get_parameters(), key=lambda parameter: parameter.name):
        value = 0.2 * rng.standard_normal(parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(value + ("norm" in parameter.name), parameter.dtype))
    return model


def steps(model):
    with model.make_cache(2, 12) as cache:
        rows = [model.forward_step(IDS[:, :5], [5, 5], cache)]
        rows += [model.forward_step(IDS[:, i:i + 1], [1, 1], cache) for i in range(5, 8)]
    return np.stack(rows, 1)


@pytest.mark.parametrize("name", FOLLOWED)
def test_steps_follow(name, form):
    model = build(FOLLOWED[name])
    found, whole = steps(model), model(IDS).logits.asnumpy()
    np.testing.assert_allclose(found, whole[:, 4:], atol=2e-5)
    assert model._steps.whole is None
    plain = build(LlamaForCausalLM)
    assert np.abs(steps(plain) - found).max() > 1e-2, "the change counts"
    assert plain._steps.whole is not None


@pytest.mark.parametrize("name", ["logits of its own", "one block of its own", "a final norm of its own",
                                  "a final norm of another kind"])
def test_steps_follow_as_a_graph(name):
    model = build(FOLLOWED[name])
    np.testing.assert_allclose(steps(model), model(IDS).logits.asnumpy()[:, 4:], atol=2e-5)


class Twice(SelfAttention):
    def construct(self, x, b, t, rotation, mask, return_probs=False, past=None):
        out, probs = super().construct(x, b, t, rotation, mask, return_probs, past)
        return 2.0 * out, probs


class TwiceInSteps(Twice):
    def cached(self, x, *others):
        return 2.0 * super().cached(x, *others) - x


class Parallel(LlamaDecoderLayer):
    def construct(self, x, b, t, rotation, mask, return_probs=False, past=None):
        out, probs = self.attention(self.attention_norm(x), b, t, rotation, mask, return_probs, past)
        return x + out + self.feed_forward(self.ffn_norm(x)), probs


class Foreign(nn.Cell):
    """A block that is no SwiGLU."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Dense(32, 32)

    def construct(self, x):
        return self.dense(x)


class Shifted(LlamaBackbone):
    def construct(self, embeds, positions, mask, return_all=False, return_probs=False):
        return super().construct(embeds + 1.0, positions, mask, return_all, return_probs)


class Halved(LlamaForCausalLM):
    def head(self, rows, b):
        return 0.5 * super().head(rows, b)


def layers_of(**classes):
    layer = type("Layer", (LlamaDecoderLayer,), classes)
    return with_backbone(type("Layers", (LlamaBackbone,), {"layer_class": layer}))


REFUSED = {
    "layer 0: Twice has a `construct` of its own.*give it a `cached` that computes the same": layers_of(
        attention_class=Twice),
    "layer 0: Parallel has.*give it a `cached`": with_backbone(type("P", (LlamaBackbone,), {"layer_class": Parallel})),
    "layer 0: OneMore has.*give LlamaDecoderLayer a `cached` that calls it": changed(
        lambda backbone: setattr(backbone.layers[0], "ffn_norm", OneMore(32))),
    "layer 1: Foreign has.*derive it from SwiGLU": changed(
        lambda backbone: setattr(backbone.layers[1], "feed_forward", Foreign())),
    "^Shifted has a `construct` of its own": with_backbone(Shifted),
    "^Halved has a `head` of its own.*override `row_logits`": Halved,
}


@pytest.mark.parametrize("words", REFUSED)
def test_steps_that_would_forget_are_refused(words):
    model = build(REFUSED[words])
    assert np.isfinite(model(IDS).logits.asnumpy()).all()
    with pytest.raises(UnsupportedError, match=words + ".*generate with use_cache=False"):
        model.generate(IDS[:1], max_new_tokens=2)
    (row,) = model.generate(IDS[:1], max_new_tokens=2, do_sample=False, use_cache=False)
    assert len(row) in (9, 10)


def test_a_twin_in_steps_is_taken():
    model = build(layers_of(attention_class=TwiceInSteps))
    np.testing.assert_allclose(steps(model), model(IDS).logits.asnumpy()[:, 4:], atol=2e-5)


def test_checkpointing_refuses_what_its_parts_do_not_call():
    with pytest.raises(UnsupportedError, match="gradient checkpointing: Shifted has a `construct` of its own"):
        build(with_backbone(Shifted)).training_segments()


def test_layers_that_only_a_setting_tells_apart_share_no_graph():
    def one_scale(backbone):
        backbone.layers[1].attention.scale *= 2
    alike, different = (build(kind).training_segments() for kind in (LlamaForCausalLM, changed(one_scale)))
    assert alike[1].cell is alike[2].cell and different[1].cell is not different[2].cell


def test_parameters_stay_those_of_the_replaced_cells():
    other = Doubled(4, 3, False)
    assert not other.is_plain and Linear(4, 3).is_plain and isinstance(other.weight, Parameter)
