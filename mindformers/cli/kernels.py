"""`mindformers kernels`: where the native library is, and what it computes. MindSpore is not imported."""
from mindformers.cli.console import Parser, add_debug, guarded, print_table


def build_parser():
    """Return the parser of this verb."""
    parser = Parser(prog="mindformers kernels", description="The native CPU kernels.",
                    epilog="Examples:\n  mindformers kernels --list\n"
                           "  MS_OP_PLUGIN_PATH=$(mindformers kernels --path) python any_mindspore_script.py")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--path", action="store_true", help="print the library's path, for MS_OP_PLUGIN_PATH")
    what.add_argument("--list", action="store_true", help="list its operations with dtypes and limits")
    add_debug(parser)
    return parser


def main(argv):
    """Run the verb; returns the exit code."""
    return guarded(lambda: _show(build_parser().parse_args(argv)), "--debug" in argv)


def _show(args):
    from mindformers.kernels import library
    if args.list:
        print_table("primitives of MindSpore (op plugin)", ("primitive", "dtypes and limits"),
                    sorted(library.plugin_ops().items()))
        print_table("custom operations (ops.Custom)", ("entry", "dtypes", "limits"),
                    [(name, *texts) for name, texts in library.ENTRIES.items()])
        return
    usable, reason = library.verdict()
    if not usable:
        raise ValueError(reason)
    print(library.path())
