"""`mindformers <verb>`: run, chat, convert, check, ls, kernels; each verb's module is imported when it is called."""
import importlib
import sys

from mindformers.cli.console import EXIT_BAD_INPUT, EXIT_OK
from mindformers.tools.errors import did_you_mean

VERBS = {
    "run": ("mindformers.cli.run", "train, finetune, evaluate or predict as a YAML says"),
    "chat": ("mindformers.cli.chat", "talk with a model in the terminal"),
    "convert": ("mindformers.cli.convert", "convert weights between Hugging Face and MindFormers"),
    "check": ("mindformers.cli.check", "check a YAML or a model folder without loading weights"),
    "ls": ("mindformers.cli.ls", "list known models, registered names and tasks"),
    "kernels": ("mindformers.cli.kernels", "path and operations of the native CPU kernels"),
}


def main(argv=None):
    """Run a verb; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    verb = argv[0] if argv else "--help"
    if verb in ("-h", "--help", "help"):
        print(_usage())
        return EXIT_OK
    if verb in ("-V", "--version"):
        from mindformers.version_control import __version__
        print(f"mindformers {__version__}")
        return EXIT_OK
    if verb not in VERBS:
        print(f"mindformers: error: unknown verb {verb!r}.{did_you_mean(verb, VERBS)} See mindformers --help",
              file=sys.stderr)
        return EXIT_BAD_INPUT
    module = importlib.import_module(VERBS[verb][0])
    if verb == "run":
        return module.main(argv[1:], prog="mindformers run", positional_config=True)
    return module.main(argv[1:])


def _usage():
    lines = ["usage: mindformers <verb> [arguments]", "", "verbs:"]
    lines += [f"  {name:<9}{text}" for name, (_, text) in VERBS.items()]
    return "\n".join([*lines, "", "mindformers <verb> --help shows the arguments of a verb; --version the version."])


if __name__ == "__main__":
    sys.exit(main())
