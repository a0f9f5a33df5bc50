"""`mindformers ls`: model names of configs/, names of the registry, tasks."""
from mindformers.cli.console import Parser, add_debug, guarded, print_table
from mindformers.tools.errors import ConfigError, did_you_mean
from mindformers.tools.register.catalog import CATALOG
from mindformers.tools.register.register import MindFormerRegister
from mindformers.tools.register.sections import RUN_MODES
from mindformers.tools.utils import configs_dir

KINDS = ("models", "configs", "registry", "tasks")


def build_parser():
    """Return the parser of this verb."""
    parser = Parser(prog="mindformers ls", description="List what is known.",
                    epilog="Examples:\n  mindformers ls\n  mindformers ls models\n  mindformers ls optimizer")
    parser.add_argument("what", nargs="?", metavar="WHAT",
                        help=f"{', '.join(KINDS)}, or a registry shelf: {', '.join(CATALOG)}; default everything")
    add_debug(parser)
    return parser


def main(argv):
    """Run the verb; returns the exit code."""
    return guarded(lambda: _list(build_parser().parse_args(argv).what), "--debug" in argv)


def _list(what):
    shelves = [shelf for shelf in CATALOG if MindFormerRegister.names(shelf)]
    known = (*KINDS, *CATALOG)
    if what is not None and what not in known:
        raise ConfigError(f"{what!r} is not a list.{did_you_mean(what, known)} Lists: {', '.join(known)}")
    if what in (None, "models"):
        print_table("models (AutoConfig, AutoModel, mindformers run)",
                    ("name", "parameters", "repository", "configuration"),
                    list(_models()))
    if what in (None, "configs"):
        print_table("configurations", ("file",), [(_short(file),) for file in sorted(configs_dir().rglob("*.yaml"))])
    if what in (None, "tasks"):
        print_table("tasks", ("task",), [(name,) for name in (*MindFormerRegister.names("pipeline"), *RUN_MODES)])
    for shelf in shelves if what in (None, "registry") else [what] if what in CATALOG else []:
        print_table(f"{shelf} (type: in a YAML)", ("name",), [(name,) for name in MindFormerRegister.names(shelf)])


def _models():
    """Rows of the known names: size, where the weights live on either hub, the YAML."""
    from mindformers.models.auto.configuration_auto import config_class_of
    from mindformers.models.config_sources import find_yaml, known_names, model_config_dict
    from mindformers.models.model_counts import parameter_count
    from mindformers.tools.register.config import MindFormerConfig
    for name in known_names():
        path = find_yaml(name)
        yaml = MindFormerConfig(path)
        fields = model_config_dict(yaml, path)
        repositories = [repository for repository in (yaml.get("hub") or {}).values() if repository]
        yield (name, short_count(parameter_count(config_class_of(fields, path).from_dict(fields))),
               ", ".join(repositories) or "-", _short(path))


def short_count(count):
    """Return a number as text of three digits: ``"6.74 B"``, ``"8.66 M"``."""
    size, unit = (count / 1e9, "B") if count >= 1e9 else (count / 1e6, "M")
    return f"{size:.3g} {unit}"


def _short(path):
    text, root = str(path), str(configs_dir().parent)
    return text.removeprefix(root).lstrip("/")
