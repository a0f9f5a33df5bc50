"""Adapters in a run: what a checkpoint need not hold, where they start from, and their folder at the end."""
import os
import re

from mindformers.checkpoint.formats import open_weights
from mindformers.pet.tuners.pet_adapter import ADAPTER_MARK
from mindformers.tools.errors import UnsupportedError
from mindformers.tools.logger import logger
from mindformers.tools.utils import resolve_path

FOLDER = "adapter"  # below the output folder


def missing_in(network, path):
    """Return patterns of parameters that the weights at `path` need not hold: the adapters, when it has none at all."""
    if any(ADAPTER_MARK in name for name in open_weights(path).names()):
        return ()
    return [re.escape(name) for name in network.adapter_parameters()]


def start(network, config):
    """Load ``pet_config.adapter_path`` of the run's configuration into the network, when there is one."""
    pet = ((config.get("model") or {}).get("model_config") or {}).get("pet_config") or {}
    if pet.get("adapter_path"):
        network.load_adapter(str(resolve_path(pet["adapter_path"], config.get("config_dir"))))
        logger.info("adapters loaded from %s", pet["adapter_path"])


def save(network, output_dir, rank):
    """Write the adapters of a trained network to ``<output_dir>/adapter`` (rank 0).

    As PEFT reads them, or under MindFormers' names when Hugging Face's model has no such modules.
    """
    if rank != 0 or not getattr(network, "has_adapter", False):
        return
    folder = os.path.join(output_dir, FOLDER)
    try:
        network.save_adapter(folder)
    except UnsupportedError as reason:
        logger.warning("%s", reason)
        network.save_adapter(folder, names="mindformers")
    logger.info("adapters saved to %s", folder)
