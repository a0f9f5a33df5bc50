"""LoRA (arXiv:2106.09685): the formula, its gradients, what trains, both ways of running a model, merging."""
import numpy as np
import pytest
from mindspore import ParameterTuple, Tensor, nn, ops
from pet_helpers import FAMILIES, TOKENS, adapted, cached_logits, fill_adapters, llama, logits, same_on_the_cache

from mindformers.core.optim import AdamW
from mindformers.kernels import library
from mindformers.modules.layers import Linear
from mindformers.pet import LoraAdapter, LoraConfig, LoraModel, PetAdapter, get_pet_model, is_supported_pet_type
from mindformers.pet.tuners.lora_linear import LoraLinear
from mindformers.tools.errors import ConfigError, UnsupportedError
from mindformers.wrapper.gradients import LossAndGradients
from mindformers.wrapper.train_step import TrainStep
from tests.graph_mode import eagerly, without_graphs  # noqa: F401

TOLERANCE = 1e-5
ON_LAYERS = ".*w[qkvo]|.*w[123]"
BATCH = np.array([[5, 6, 7, 8, 9, 3, 11, 12, 13], [21, 22, 23, 24, 25, 26, 27, 28, 29]], np.int32)


ONE_FAST = ["llama", *(pytest.param(name, marks=pytest.mark.slow) for name in ("glm", "packed"))]


@pytest.fixture(params=ONE_FAST)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(params=ONE_FAST)
def family_once_in_graphs(request):
    """Graphs for the first family alone."""
    if request.param != "llama":
        request.getfixturevalue("without_graphs")
    return FAMILIES[request.param]


def dense_update(cell):
    low, high = cell.mindpet_delta_lora_a.asnumpy(), cell.mindpet_delta_lora_b.asnumpy()
    return (6 / 4) * high @ low


# the formula ----------------------------------------------------------------------------------------------------------


def test_a_new_adapter_changes_nothing(family_once_in_graphs):
    build, targets = family_once_in_graphs
    base = logits(build())
    model = adapted(build, targets, fill=False)
    np.testing.assert_array_equal(logits(model), base)
    assert any(parameter.asnumpy().any() for name, parameter in model.adapter_parameters().items()
               if name.endswith("_a")), "A is random"


def test_the_answer_is_that_of_the_updated_weights(family_once_in_graphs):
    build, targets = family_once_in_graphs
    model, dense = adapted(build, targets), build()
    cells = {cell.weight.name: cell for _, cell in model.cells_and_names() if isinstance(cell, LoraLinear)}
    with eagerly():
        base = logits(dense)
        for parameter in dense.get_parameters():
            if parameter.name in cells:
                parameter.set_data(Tensor(parameter.asnumpy() + dense_update(cells[parameter.name])))
        expected = logits(dense)
    found = logits(model)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert np.abs(expected - base).max() > 100 * TOLERANCE, "the updates count"


def gradients(model, weights):
    model.set_train()
    _, _, values = LossAndGradients(model, ParameterTuple(weights))(Tensor(np.float32(1)), Tensor(BATCH))
    return {weight.name: value.asnumpy() for weight, value in zip(weights, values)}


def test_gradients_are_those_of_the_formula(family_once_in_graphs):
    build, targets = family_once_in_graphs
    model, dense = adapted(build, targets), build()
    cells = {cell.weight.name: cell for _, cell in model.cells_and_names() if isinstance(cell, LoraLinear)}
    for parameter in dense.get_parameters():
        if parameter.name in cells:
            parameter.set_data(Tensor(parameter.asnumpy() + dense_update(cells[parameter.name])))
    own = gradients(model, model.trainable_params())
    with eagerly():
        whole = gradients(dense, [parameter for parameter in dense.trainable_params() if parameter.name in cells])
    for name, gradient in whole.items():  # W' = W + s B A: dA = s B^T dW', dB = s dW' A^T
        cell = cells[name]
        low, high = cell.mindpet_delta_lora_a, cell.mindpet_delta_lora_b
        for parameter, expected in ((low, 1.5 * high.asnumpy().T @ gradient), (high, 1.5 * gradient @ low.asnumpy().T)):
            bound = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(own[parameter.name], expected, atol=bound)
            assert np.abs(own[parameter.name] - expected / 1.5).max() > 10 * bound, "without the scale it would differ"
    assert len(own) == 2 * len(whole)


def test_dropout_drops_only_in_training_and_keeps_the_mean():
    linear = Linear(64, 8, False)
    settings = LoraConfig(target_modules="x", lora_rank=2, lora_alpha=2, lora_dropout=0.5, lora_b_init="ones")
    cell, quiet = LoraLinear(linear, settings), LoraLinear(linear, settings)
    quiet.mindpet_delta_lora_a.set_data(cell.mindpet_delta_lora_a)
    x = Tensor(np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32))
    still = quiet.set_train(False)(x).asnumpy()
    np.testing.assert_array_equal(quiet(x).asnumpy(), still)
    cell.set_train()  # before its first call: a graph keeps the mode that it was compiled in
    drawn = np.stack([cell(x).asnumpy() for _ in range(400)])
    assert np.abs(drawn[0] - drawn[1]).max() > 1e-3
    spread = drawn.std(0).max() / np.sqrt(len(drawn))
    np.testing.assert_allclose(drawn.mean(0), still, atol=5 * spread)


# what trains ----------------------------------------------------------------------------------------------------------


def test_only_the_adapters_train(family):
    build, targets = family
    model = adapted(build, targets, fill=False)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}
    optimizer = AdamW(model.trainable_params(), learning_rate=0.05)
    state = sum(parameter.size for parameter in optimizer.get_parameters())
    trained = sum(parameter.size for parameter in model.trainable_params())
    assert state < 3 * trained + 100 < sum(value.size for value in before.values()), "two moments of the adapters"
    model.set_train()
    step = TrainStep(model, optimizer)
    losses = [step(BATCH).loss for _ in range(12)]
    assert losses[-1] < losses[0] - 0.05
    changed = {parameter.name for parameter in model.get_parameters()
               if parameter.asnumpy().tobytes() != before[parameter.name].tobytes()}
    assert changed == set(model.adapter_parameters())


@pytest.fixture(scope="module")
def exact_gradients():
    """Of the model in float32 with adapters on all products of its layers."""
    model = adapted(lambda: llama(num_layers=1), ON_LAYERS)
    with eagerly():
        return gradients(model, model.trainable_params())


@pytest.mark.slow
@pytest.mark.parametrize("dtype, bound", [("bfloat16", 0.1), ("float16", 0.01), ("int8", 0.03)])
def test_adapters_train_on_weights_of_lower_precision(dtype, bound, exact_gradients):
    def build():
        model = llama(num_layers=1, param_init_type="float32" if dtype == "int8" else dtype)
        return model.quantize("int8") if dtype == "int8" else model
    model = adapted(build, ON_LAYERS)
    found = gradients(model, model.trainable_params())
    for name, gradient in exact_gradients.items():
        assert np.abs(found[name] - gradient).max() < bound * np.abs(gradient).max(), name
    frozen = {parameter.name: parameter.asnumpy().tobytes() for parameter in model.get_parameters()
              if not parameter.requires_grad}
    step = TrainStep(model, AdamW(model.trainable_params(), learning_rate=0.02))
    losses = [step(BATCH).loss for _ in range(5)]
    assert losses[-1] < losses[0] - 0.05
    assert all(parameter.asnumpy().tobytes() == frozen[parameter.name] for parameter in model.get_parameters()
               if not parameter.requires_grad)


def test_parameters_can_be_frozen_and_kept_by_pattern():
    model = get_pet_model(llama(), LoraConfig(target_modules=".*wq", freeze_include="*layers.0*lora*",
                                              freeze_exclude=["*norm_out*"]))
    names = {parameter.name for parameter in model.trainable_params()}
    assert names == {"model.layers.1.attention.wq.mindpet_delta_lora_a",
                     "model.layers.1.attention.wq.mindpet_delta_lora_b", "model.norm_out.weight"}
    with pytest.raises(ConfigError, match=r"freeze pattern '\*wte\*' fits no parameter"):
        get_pet_model(llama(), LoraConfig(target_modules=".*wq", freeze_exclude=["*wte*"]))


# generation -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_the_cached_path_sees_the_adapters(name):
    build, targets = FAMILIES[name]
    model = adapted(build, targets, fill=False)
    base = logits(model)[0]  # B is still zero
    fill_adapters(model)
    whole = same_on_the_cache(model, TOLERANCE)
    assert np.abs(base - whole).max() > 100 * TOLERANCE, "a path that forgets them is found out"


@pytest.mark.slow
@pytest.mark.skipif(not library.verdict().usable, reason=f"no native library: {library.verdict().reason}")
def test_native_and_portable_kernels_agree_with_adapters(family_once_in_graphs, monkeypatch):
    build, targets = family_once_in_graphs
    native = cached_logits(adapted(build, targets))
    monkeypatch.setenv("MF_KERNELS", "portable")
    np.testing.assert_allclose(cached_logits(adapted(build, targets)), native, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("targets", [".*wq", ".*wv", ".*wo", ".*w1", ".*w2", "lm_head"])
def test_each_product_alone_is_seen_by_the_cached_path(targets, without_graphs):  # noqa: F811
    whole = same_on_the_cache(adapted(llama, targets), TOLERANCE)
    assert np.abs(logits(llama())[0] - whole).max() > 20 * TOLERANCE


@pytest.mark.slow
def test_generation_with_and_without_a_cache_and_merged(family):
    build, targets = family
    model = adapted(build, targets)
    answers = [model.generate(TOKENS, max_new_tokens=12, do_sample=False, use_cache=cache)[0].tolist()
               for cache in (True, False)]
    answers.append(model.merge_adapter().generate(TOKENS, max_new_tokens=12, do_sample=False)[0].tolist())
    assert answers[0] == answers[1] == answers[2]
    assert build().generate(TOKENS, max_new_tokens=12, do_sample=False)[0].tolist() != answers[0]


def test_adapters_on_int8_weights():
    base = llama(num_layers=1).quantize("int8")
    before = logits(base)[0]
    on_int8 = adapted(lambda: base, ".*wq|.*w2")
    whole = same_on_the_cache(on_int8, TOLERANCE)
    assert np.abs(before - whole).max() > 1e-3
    with pytest.raises(ConfigError, match="is int8: merge the adapters first"):
        on_int8.merge_adapter()


# merging --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", *(pytest.param(name, marks=pytest.mark.slow)
                                                 for name in ("float32", "float16"))])
def test_merging_is_undone_bit_for_bit(dtype, request):
    if dtype != "bfloat16":
        request.getfixturevalue("without_graphs")
    model = adapted(lambda: llama(num_layers=1, param_init_type=dtype), ".*wq|.*w2")
    before = {parameter.name: parameter.asnumpy().tobytes() for parameter in model.get_parameters()}
    apart = logits(model)
    model.merge_adapter()
    wq = "model.layers.0.attention.wq.weight"
    assert {parameter.name: parameter.asnumpy().tobytes() for parameter in model.get_parameters()}[wq] != before[wq]
    together = logits(model)
    np.testing.assert_allclose(together, apart, atol={"float32": TOLERANCE, "bfloat16": 2e-2, "float16": 2e-3}[dtype])
    assert not model.trainable_params(), "merged adapters do not train"
    model.merge_adapter().unmerge_adapter()
    assert {parameter.name: parameter.asnumpy().tobytes() for parameter in model.get_parameters()} == before
    np.testing.assert_array_equal(logits(model), apart)
    assert len(model.trainable_params()) == len(model.adapter_parameters())


def test_merged_for_good(family_once_in_graphs, tmp_path):
    build, targets = family_once_in_graphs
    model = adapted(build, targets)
    apart, plain = logits(model), build()
    assert model.merge_and_unload() is model and not model.has_adapter
    assert {parameter.name for parameter in model.get_parameters()} == {p.name for p in plain.get_parameters()}
    assert {p.name for p in model.trainable_params()} == {p.name for p in plain.trainable_params()}
    assert not any(isinstance(cell, LoraLinear) for _, cell in model.cells_and_names())
    np.testing.assert_allclose(logits(model), apart, atol=TOLERANCE)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(str(tmp_path))
    for name, parameter in again.parameters_dict().items():
        np.testing.assert_array_equal(parameter.asnumpy(), model.parameters_dict()[name].asnumpy())
    with pytest.raises(ConfigError, match="the model has no adapters"):
        model.merge_adapter()


@pytest.mark.slow
def test_adapters_can_be_left_out_for_a_while():
    one_layer = lambda: llama(num_layers=1)  # noqa: E731
    model, base = adapted(one_layer, ".*wq"), logits(one_layer())
    apart = logits(model)
    with model.disable_adapter():
        np.testing.assert_array_equal(logits(model), base)
        assert np.abs(cached_logits(model) - base[0, 4:]).max() < TOLERANCE
    np.testing.assert_array_equal(logits(model), apart)
    model.delete_adapter()
    np.testing.assert_array_equal(logits(model), base)
    fill_adapters(get_pet_model(model, LoraConfig(target_modules=".*wq", lora_rank=2)))
    assert np.abs(logits(model) - base).max() > 1e-3


# settings -------------------------------------------------------------------------------------------------------------


def chosen(**settings):
    model = get_pet_model(llama(), LoraConfig(**settings))
    return {path for path, cell in model.cells_and_names() if isinstance(cell, LoraLinear)}


def test_which_products_get_an_adapter():
    both = {f"model.layers.{layer}.attention.wq" for layer in (0, 1)}
    assert chosen(target_modules=".*wq") == chosen(target_modules="wq") == chosen(target_modules=["wq"]) == both
    assert chosen(target_modules=r"model\.layers\.0\..*wq") == {"model.layers.0.attention.wq"}
    assert chosen(target_modules=".*wq", exclude_layers=[r".*layers\.1"]) == {"model.layers.0.attention.wq"}
    assert len(chosen(target_modules=".*")) == 2 * 7 + 1
    for settings, message in (({"target_modules": None}, "No target modules for lora layer"),
                              ({"target_modules": "q_proj"}, "fits no product of LlamaForCausalLM.* w1, w2"),
                              ({"target_modules": ".*wq", "exclude_layers": ".*"}, "without exclude_layers")):
        with pytest.raises(ConfigError, match=message):
            chosen(**settings)


@pytest.mark.parametrize("settings, message", [
    ({"lora_rank": 0}, "lora_rank must be an int of at least 1, but is 0"),
    ({"lora_rank": 2.5}, "lora_rank must be an int"), ({"lora_alpha": 0}, "lora_alpha must be a number above 0"),
    ({"lora_dropout": 1.0}, r"lora_dropout must be in \[0, 1\), but is 1.0"),
    ({"param_init_type": "float61"}, "param_init_type must be one of"),
    ({"target_modules": "*wq"}, "'\\*wq' is no regular expression"),
    ({"target_modules": 3}, "target_modules must be a regular expression or a list"),
    ({"lora_rnk": 8}, "no field 'lora_rnk'.*lora_rank"),
])
def test_faulty_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoraConfig(**{"target_modules": ".*wq", **settings})


def test_kinds_of_tuning():
    assert is_supported_pet_type("lora") and not is_supported_pet_type("slora")
    for kind, hint in (("ptuning2", "ChatGLM2WithPtuning2"), ("prefixtuning", "pet_type: lora"), ("slora", "merge")):
        with pytest.raises(UnsupportedError, match=f"pet_type '{kind}' is not carried; .*{hint}"):
            get_pet_model(llama(), {"pet_type": kind})
    with pytest.raises(ConfigError, match="pet_type must be one of .* but is 'lara'.*lora"):
        get_pet_model(llama(), {"pet_type": "lara"})
    with pytest.raises(ConfigError, match="has LoRA adapters already"):
        get_pet_model(adapted(llama, ".*wq"), LoraConfig(target_modules=".*wk"))


def test_surgery_is_refused_where_adapters_would_not_follow():
    model = adapted(llama, ".*wq|lm_head")
    with pytest.raises(ConfigError, match="pruning of a model with adapters"):
        model.prune_heads({0: [1]})
    with pytest.raises(ConfigError, match="another vocabulary of a model with adapters"):
        model.resize_token_embeddings(70)
    adapted(llama, ".*wq").resize_token_embeddings(70)


def test_the_names_of_mindformers():
    settings = LoraConfig(target_modules=".*wq", lora_rank=2)
    for make in (lambda: LoraModel(settings, llama()), lambda: LoraAdapter.get_pet_model(llama(), settings),
                 lambda: PetAdapter.get_pet_model(llama(), {"pet_type": "lora", "target_modules": ".*wq"})):
        model = make()
        assert {parameter.name for parameter in model.trainable_params()} == {
            f"model.layers.{layer}.attention.wq.mindpet_delta_lora_{part}" for layer in (0, 1) for part in "ab"}
    assert settings.pet_type == "lora" and settings.scaling == 8.0 and settings.lora_dropout == 0.01


@pytest.mark.slow
def test_parameters_of_another_dtype():
    model = adapted(lambda: llama(num_layers=1), ".*wq", param_init_type="bfloat16")
    assert {str(parameter.dtype) for parameter in model.adapter_parameters().values()} == {"BFloat16"}
    same_on_the_cache(model, 1e-3)


def test_cells_of_a_users_own_can_be_adapted():
    class Small(nn.Cell):
        def __init__(self):
            super().__init__()
            self.first, self.second = Linear(6, 5), Linear(5, 3)

        def construct(self, x):
            return self.second(ops.relu(self.first(x)))

    cell = get_pet_model(Small(), LoraConfig(target_modules="first", lora_rank=2, lora_dropout=0.0))
    assert {parameter.name for parameter in cell.trainable_params()} == {"first.mindpet_delta_lora_a",
                                                                          "first.mindpet_delta_lora_b"}
    assert cell(Tensor(np.ones((2, 6), np.float32))).shape == (2, 3)
