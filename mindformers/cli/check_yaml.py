"""The check of a YAML: is it valid, how large is its model, what has no effect, what must be given at launch?"""
from mindformers.cli.model_folder import BYTES, human_size, weight_tables
from mindformers.cli.run import by_reason, load_checked
from mindformers.pet.pet_config import as_pet_config
from mindformers.pet.utils import is_target
from mindformers.tools.register.readiness import missing_inputs
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.register.schema_engine import dotted


def check_yaml(path, options):
    """Check the YAML `path` (or known name) with `options` on top, and print what is found; no weights are read.

    Raises:
        ConfigError: every fault, in one message.
    """
    config, ignored = load_checked(path, options)
    print(f"{path}: valid, run_mode {config.run_mode}")
    for line in _model_lines(config):
        print(line)
    for reason, keys in by_reason(ignored):
        print(f"  no effect: {', '.join(keys)}: {reason}")
    for key, message in missing_inputs(config):
        print(f"  to give at launch: {dotted(key)}: {message}")


def _model_lines(config):
    """Size of the model of a checked configuration: parameters, and what they and the training state take."""
    section = config.model.model_config
    if not MindFormerRegister.is_exist("config", section.type):
        return
    values = section.to_dict()
    values.pop("type")
    model = MindFormerRegister.get_cls("config", section.type)(**values)
    if not hasattr(model, "num_parameters"):
        return
    count = model.num_parameters()
    memory = human_size(count * BYTES[model.param_init_type])
    line = f"  model: {section.type}, {count:,} parameters, {memory} as {model.param_init_type}"
    pet = section.get("pet_config")
    if config.run_mode in ("train", "finetune") and pet and pet.get("pet_type") == "lora":
        line += _adapter_words(model, config.model.arch.type, pet, count)
    elif config.run_mode in ("train", "finetune"):
        # gradients in the parameters' dtype, two moments in float32
        line += f"; {human_size(count * (2 * BYTES[model.param_init_type] + 8))} with gradients and AdamW state"
    yield line


def _adapter_words(model, architecture, pet, count):
    """What trains of a model with adapters: rank * (inputs + outputs) parameters of each product, in float32."""
    tables, settings = weight_tables(model), as_pet_config(pet)
    if tables is None:
        return "; only its LoRA adapters train"
    trained = sum(settings.lora_rank * sum(shape) for name, shape in tables[1](model, architecture).items()
                  if len(shape) == 2 and name.endswith(".weight")
                  and is_target(name.removesuffix(".weight"), settings))
    state = human_size(count * BYTES[model.param_init_type] + trained * 16)
    return f"; {trained:,} parameters of LoRA adapters train, {state} with their gradients and AdamW state"
