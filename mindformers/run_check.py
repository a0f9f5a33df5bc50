"""`run_check()`: does the suite work on this machine - versions, MindSpore, a tiny Llama that trains and generates."""
import tempfile

import numpy as np

from mindformers.tools.logger import logger
from mindformers.version_control import installed_version, version_faults


def run_check():
    """Check versions, MindSpore, one training step and one generation of a two-layer Llama on CPU; log each result.

    Raises:
        Exception: whatever a step raised, after it was logged by name.
    """
    for fault in version_faults():
        logger.warning("version: %s", fault)
    steps = (("MindSpore runs", _mindspore), ("a tiny Llama trains and generates", _llama))
    for what, step in steps:
        try:
            detail = step()
        except Exception as error:
            logger.error("check failed: %s: %s", what, error)
            raise
        logger.info("check passed: %s (%s)", what, detail)
    logger.info("All checks passed.")


def _mindspore():
    import mindspore as ms
    if ms.get_context("device_target") != "CPU":  # it cannot be set again once an op ran
        ms.set_device("CPU")
    total = (ms.Tensor(np.arange(4.0, dtype=np.float32)) * 2).asnumpy().sum()
    if total != 12.0:
        raise RuntimeError(f"MindSpore computed {total} instead of 12")
    return f"mindspore {installed_version('mindspore')}"


def _llama():
    import mindspore as ms
    from mindformers.models import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(num_layers=2, hidden_size=32, num_heads=2, intermediate_size=64, vocab_size=64, seq_length=16,
                         param_init_type="float32", compute_dtype="float32", do_sample=False)
    model = LlamaForCausalLM(config)
    tokens = np.random.default_rng(0).integers(3, 64, (2, 17)).astype(np.int32)
    model.set_train()
    optimizer = ms.nn.SGD(model.trainable_params(), learning_rate=0.1)
    step = ms.nn.TrainOneStepCell(model, optimizer)
    losses = [float(step(ms.Tensor(tokens)).asnumpy()) for _ in range(3)]
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"the loss did not fall over three steps: {losses}")
    model.set_train(False)
    generated = model.generate(tokens[:1, :4], max_new_tokens=4, do_sample=False)
    if len(generated[0]) < 5:
        raise RuntimeError(f"generate returned no new token: {generated}")
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
    return f"loss {losses[0]:.3f} -> {losses[-1]:.3f}"
