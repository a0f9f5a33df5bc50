"""`mindformers chat`: talk with a model in the terminal; a model without a chat template continues the text."""
import argparse
import sys

from mindformers.cli.arguments import add_register_path, use_register_path
from mindformers.cli.console import InputError, Parser, add_debug, guarded, not_empty, not_negative, positive

_HELP = "/clear forgets the conversation, /help shows this, /exit (or Ctrl-D) ends; Ctrl-C stops an answer"


def build_parser():
    """Return the parser of this verb."""
    parser = Parser(prog="mindformers chat", description="Talk with a model. " + _HELP + ".",
                    epilog="Examples:\n  mindformers chat ./Llama-3.2-1B-Instruct\n"
                           "  mindformers chat meta-llama/Llama-3.2-1B-Instruct\n"
                           "  echo 'def read_json(path):' | mindformers chat configs/tiny/llama_tiny")
    parser.add_argument("model", help="model folder, known name, or owner/name on a hub")
    parser.add_argument("--system", default="", help="system prompt")
    parser.add_argument("--max_new_tokens", type=positive, default=512, help="longest answer; default 512")
    parser.add_argument("--temperature", type=_temperature, default=0.7, help="0 takes the likeliest; default 0.7")
    parser.add_argument("--top_k", type=not_negative, default=50, help="0 for all tokens; default 50")
    parser.add_argument("--top_p", type=_fraction, default=0.95, help="default 0.95")
    parser.add_argument("--seed", type=not_negative, help="makes sampling repeat")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"),
                        help="of the weights; default the model's")
    parser.add_argument("--quantization",
                        help="int8, or int8:64 for a scale per 64 inputs: less memory, faster answers")
    parser.add_argument("--adapter", help="folder of LoRA adapters for the model, as training or PEFT writes it")
    parser.add_argument("--message", type=not_empty, help="say this, print the answer, end")
    add_register_path(parser)
    add_debug(parser)
    return parser


def main(argv):
    """Run the verb; returns the exit code."""
    return guarded(lambda: _chat(build_parser().parse_args(argv)), "--debug" in argv)


def _temperature(text):
    return _number(text, 0.0, float("inf"))


def _fraction(text):
    return _number(text, 0.0, 1.0)


def _number(text, low, high):
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high or value == float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number from {low:g} to {high:g}, but got {text!r}")
    return value


def _chat(args):
    use_register_path(args.register_path)
    from mindformers.models.config_sources import find_config
    from mindformers.models.hub_sources import local
    try:
        find_config(local(args.model, "config"))
    except (OSError, ValueError) as error:
        raise InputError(str(error)) from error
    try:
        model, tokenizer = _load(args)
    except ValueError as error:  # what is wrong with a file or a setting; other kinds say it themselves
        raise InputError(str(error)) from error
    talk = Talk(model, tokenizer, args)
    if args.message is not None:
        talk.interruptible_answer(args.message, interactive=False)
        return
    interactive = sys.stdin.isatty()
    if interactive:
        print(f"{args.model}: {_HELP}" + ("" if talk.has_template else "\n(no chat template: your text is continued)"))
    for text in _lines(interactive):
        if text in ("/exit", "/quit"):
            return
        if text == "/clear":
            talk.history = []
        elif text == "/help":
            print(_HELP)
        elif text.strip():
            talk.interruptible_answer(text, interactive)


def _load(args):
    from mindformers.models.auto import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=args.dtype, quantization=args.quantization)
    if args.adapter:
        model.load_adapter(args.adapter)
        if not args.quantization:
            model.merge_adapter()  # as fast as without
    return model, tokenizer


def _lines(interactive):
    """Yield the lines of stdin, with a prompt on a terminal."""
    while True:
        try:
            yield input("> " if interactive else "")
        except EOFError:
            return


class Talk:
    """One conversation.

    Args:
        model: has `generate` and `chat`.
        tokenizer: has `decode` and perhaps a chat template.
        args: namespace with system, max_new_tokens, temperature, top_k, top_p, seed.
    """

    def __init__(self, model, tokenizer, args):
        self.model = model
        self.tokenizer = tokenizer
        self.system = args.system
        self.history = []
        self.has_template = getattr(tokenizer, "chat_template", None) is not None
        sample = args.temperature > 0
        self.settings = {"do_sample": sample, "max_new_tokens": args.max_new_tokens, "seed": args.seed}
        if sample:
            self.settings.update(temperature=args.temperature, top_k=args.top_k, top_p=args.top_p)

    def answer(self, text):
        """Print the answer as it is made, and keep it in the history; without a template text and continuation."""
        from mindformers.generation import TextStreamer
        if self.has_template:
            streamer = TextStreamer(self.tokenizer, skip_prompt=True)
            _, self.history = self.model.chat(self.tokenizer, text, history=self.history, instruction=self.system,
                                              streamer=streamer, **self.settings)
        else:
            self.model.generate(self.tokenizer(text)["input_ids"], streamer=TextStreamer(self.tokenizer),
                                **self.settings)

    def interruptible_answer(self, text, interactive):
        """Like `answer`; on a terminal Ctrl-C, or a conversation too long for the model, ends this answer only."""
        try:
            self.answer(text)
        except KeyboardInterrupt:
            if not interactive:
                raise
            print("\n(stopped)")
        except ValueError as error:
            if not interactive:
                raise InputError(str(error)) from error
            print(f"error: {error} (/clear forgets the conversation)")
