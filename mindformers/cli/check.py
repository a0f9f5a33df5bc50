"""`mindformers check`: is a YAML or a model folder right? No weights are loaded, MindSpore is not imported."""
import contextlib
import math
import os

from mindformers.cli.arguments import add_register_path, add_variant, use_register_path
from mindformers.cli.console import InputError, Parser, add_debug, guarded, print_table
from mindformers.cli.model_folder import check_folder, human_size
from mindformers.hub import HubNotFoundError, HubOfflineError, describe, resolve
from mindformers.models.hub_sources import is_remote
from mindformers.tools.register.config import ActionDict


def build_parser():
    """Return the parser of this verb."""
    parser = Parser(prog="mindformers check", description="Check a YAML or a model folder without loading weights.",
                    epilog="Examples:\n  mindformers check configs/tiny/predict_llama_tiny.yaml\n"
                           "  mindformers check ./Llama-2-7b-hf\n  mindformers check --kernels")
    parser.add_argument("path", nargs="?", help="YAML, name of a known model, model folder, or owner/name on a hub")
    parser.add_argument("--options", nargs="+", action=ActionDict, metavar="KEY=VALUE",
                        help="dotted keys that win over the YAML")
    add_variant(parser)
    parser.add_argument("--parameters", action="store_true",
                        help="list names and shapes of the model's parameters, as the configuration gives them")
    parser.add_argument("--kernels", action="store_true", help="show which form of each operation runs here")
    add_register_path(parser)
    add_debug(parser)
    return parser


def main(argv):
    """Run the verb; returns the exit code."""
    return guarded(lambda: _check(build_parser().parse_args(argv)), "--debug" in argv)


def _check(args):
    use_register_path(args.register_path)
    if args.path is None and not args.kernels:
        raise InputError("give a YAML or a model folder to check, or --kernels")
    if args.kernels:
        _check_kernels()
    if args.path is None:
        return
    remote = is_remote(args.path)
    if args.variant and (args.parameters or not remote and not os.path.isdir(args.path)):
        raise InputError(f"--variant {args.variant} chooses the weights of a model folder; leave it out here")
    if args.parameters:
        _list_parameters(resolve(args.path, kind="config") if remote else args.path, args.path)
        return
    if not remote and not os.path.isdir(args.path):
        from mindformers.cli.check_yaml import check_yaml  # slow to import, and a folder is to be checked fast
        check_yaml(args.path, args.options)
        return
    if args.options:
        raise InputError("--options changes a YAML; a folder is checked as it is")
    check = _check_repository if remote else check_folder
    for line in check(args.path, variant=args.variant):
        print(line)


def _list_parameters(path, name):
    """Print name, shape and size of each parameter of the model of a folder, YAML or known name."""
    from mindformers.models.auto.configuration_auto import AutoConfig
    from mindformers.models.model_counts import parameter_count, parameter_shapes
    config = AutoConfig.from_pretrained(path)
    rows = [(parameter, "x".join(map(str, shape)), f"{math.prod(shape):,}")
            for parameter, shape in parameter_shapes(config).items()]
    print_table(f"{name}: {parameter_count(config):,} parameters, {config.param_init_type}",
                ("name", "shape", "numbers"), rows)


def _check_repository(name, variant):
    """Lines on a repository of a hub; weights that are not in the cache are not fetched for it."""
    try:
        folder = resolve(name, kind="model", variant=variant, local_files_only=True)
        return check_folder(folder, name=name, variant=variant)
    except HubOfflineError:
        folder = resolve(name, kind="config")
    files = describe(name, variant=variant)
    with contextlib.suppress(HubNotFoundError):  # a repository of weights alone
        resolve(name, kind="tokenizer", revision=os.path.basename(folder))
    size = human_size(sum(size or 0 for size in files.values()))
    names = f"{', '.join(list(files)[:4])}{', ...' if len(files) > 4 else ''}"
    plural = "s" if len(files) > 1 else ""
    names = ", ".join(list(files)[:4]) + (", ..." if len(files) > 4 else "")
    return check_folder(folder, name,
                        f"weights: not fetched yet; {len(files)} file{plural} on the hub, {size}: {names}")


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
