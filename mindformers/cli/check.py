"""`mindformers check`: is a YAML or a model folder right? No weights are loaded, MindSpore is not imported."""
import contextlib
import os

from mindformers.cli.console import InputError, Parser, add_debug, guarded, print_table
from mindformers.cli.model_folder import BYTES, check_folder, human_size, weight_tables
from mindformers.cli.run import by_reason, load_checked
from mindformers.pet.pet_config import as_pet_config
from mindformers.pet.utils import is_target
from mindformers.hub import HubNotFoundError, HubOfflineError, describe, resolve
from mindformers.models.hub_sources import is_remote
from mindformers.tools.register.config import ActionDict
from mindformers.tools.register.readiness import missing_inputs
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.register.schema_engine import dotted


def build_parser():
    """Return the parser of this verb."""
    parser = Parser(prog="mindformers check", description="Check a YAML or a model folder without loading weights.",
                    epilog="Examples:\n  mindformers check configs/tiny/predict_llama_tiny.yaml\n"
                           "  mindformers check ./Llama-2-7b-hf\n  mindformers check --kernels")
    parser.add_argument("path", nargs="?", help="YAML, name of a known model, model folder, or owner/name on a hub")
    parser.add_argument("--options", nargs="+", action=ActionDict, metavar="KEY=VALUE",
                        help="dotted keys that win over the YAML")
    parser.add_argument("--kernels", action="store_true", help="show which form of each operation runs here")
    add_debug(parser)
    return parser


def main(argv):
    """Run the verb; returns the exit code."""
    return guarded(lambda: _check(build_parser().parse_args(argv)), "--debug" in argv)


def _check(args):
    if args.path is None and not args.kernels:
        raise InputError("give a YAML or a model folder to check, or --kernels")
    if args.kernels:
        _check_kernels()
    if args.path is None:
        return
    remote = is_remote(args.path)
    if not remote and not os.path.isdir(args.path):
        _check_yaml(args.path, args.options)
        return
    if args.options:
        raise InputError("--options changes a YAML; a folder is checked as it is")
    for line in _check_repository(args.path) if remote else check_folder(args.path):
        print(line)


def _check_repository(name):
    """Lines on a repository of a hub; weights that are not in the cache are not fetched for it."""
    try:
        return check_folder(resolve(name, kind="model", local_files_only=True), name=name)
    except HubOfflineError:
        folder = resolve(name, kind="config")
    files = describe(name)
    with contextlib.suppress(HubNotFoundError):  # a repository of weights alone
        resolve(name, kind="tokenizer", revision=os.path.basename(folder))
    size = human_size(sum(size or 0 for size in files.values()))
    return check_folder(folder, name, f"weights: not fetched yet; {len(files)} file{'s' if len(files) > 1 else ''} on the hub, {size}: "
                        f"{', '.join(list(files)[:4])}{', ...' if len(files) > 4 else ''}")


def _check_kernels():
    """Print who runs each op, and what there is to know of the native library; MindSpore is not imported."""
    from mindformers import kernels
    from mindformers.kernels import library
    form = kernels.form()
    usable, reason = library.verdict()
    rows = [("form", form), ("MindSpore", library.mindspore_version() or "not installed"),
            ("native library", library.path() if usable else f"not in use: {reason}")]
    if usable:
        facts = library.facts()
        rows += [("built for MindSpore", ", ".join(facts.mindspore_versions)), ("instruction set", facts.isa),
                 ("threads", facts.threads), ("op plugin", library.plugin_offer())]
    print_table("native kernels", ("what", "value"), rows)
    print_table("kernels", ("operation", "form", "run by", "what it computes"),
                [(name, *info) for name, info in kernels.describe().items()])


def _check_yaml(path, options):
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
