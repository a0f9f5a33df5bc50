"""Write the golden files of the tokenizers: what Hugging Face transformers makes of two tiny vocabularies.

    python tests/reference/make_tokenizer_goldens.py       # needs transformers, sentencepiece; the tests do not need it

Run it once with transformers 4 (it has the SentencePiece tokenizer) and once with 5; each writes its own file. The
vocabularies are trained when they are not there, else kept.

tests/reference/tokenizers/llama2/tokenizer.model   SentencePiece BPE with byte fallback, as Llama 1 and 2
tests/reference/tokenizers/llama3/                  byte-level BPE, Llama 3's split and special tokens, as 5 saves it
tests/reference/tokenizers/{llama2,llama3}.jinja    chat templates in the styles of both
tests/reference/tokenizers/goldens_{4,5}.json       {"version", "texts", tokenizer name -> rows, "chats", "calls"}
"""
import io
import json
import random
import shutil
import tempfile
from pathlib import Path

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
ROOT = HERE / "tokenizers"
MAJOR = int(transformers.__version__.split(".")[0])
PIECES = ["Hello", " world", "  ", "   ", "\n", "\n\n", "\t", "<s>", "</s>", "<unk>", "<|mark|>", "<added>", "é", "ß",
          "中文", "漢字", "😀", "👩‍👩‍👧", "🇩🇪", "\u200b", "\u00a0", "▁", "'s", " don't", "1234567", " 3.14",
          "def f(x):\n    return x", "Ünïcödé", "\r\n", "\u0301", "ﬁ", "A", "b", " c", "<", ">", "<|", "عربى", "हिन्दी",
          "\x00", "…", " <s> ", "a</s>b", "\ufffd", "𝔘", "<|begin_of_text|>", "<|eot_id|>", " <|eot_id|> "]
CHATS = {
    "one": [{"role": "user", "content": "Hi, what is 1 + 1?"}],
    "system": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " Hi <there> & 'you' "},
               {"role": "assistant", "content": "Hello\n"}, {"role": "user", "content": "再见 😀"}],
}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Add <two> numbers & more",
                                           "parameters": {"type": "object", "properties": {"a": {"type": "int"}}}}}]


def texts():
    """Fixed texts, then random ones of a fixed seed."""
    rng = random.Random(11)
    fixed = ["", " ", "  ", "Hello world", " Hello world", "Hello  world ", "\n", "<s>", "<s>Hello</s>", "<s> Hello",
             "a<added>b", "a <added> b", "a<|mark|>b", "a <|mark|> b", "x▁y"]
    return fixed + ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 8))) for _ in range(70)]


def train_llama2(path):
    """A SentencePiece model with Llama's settings, trained on some of the standard library's source."""
    import sentencepiece
    corpus = [line for module in (json, random, tempfile)
              for line in Path(module.__file__).read_text(encoding="utf-8").splitlines() if line.strip()]
    model = io.BytesIO()  # a file name would be written into the model
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=900, model_type="bpe", byte_fallback=True,
        character_coverage=0.9995, normalization_rule_name="identity", remove_extra_whitespaces=False,
        split_digits=True, allow_whitespace_only_pieces=True, num_threads=1, unk_id=0, bos_id=1, eos_id=2, pad_id=-1,
        minloglevel=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.getvalue())


def train_llama3(folder):
    """A byte-level BPE with Llama 3's pattern, post-processor and special tokens, saved by transformers."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    pattern = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
               r"|\s+(?!\S)|\s+")
    backend = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator([Path(random.__file__).read_text(encoding="utf-8")], trainers.BpeTrainer(
        vocab_size=500, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    bos = backend.token_to_id(special[0])
    template = processors.TemplateProcessing(single=f"{special[0]} $A", pair=f"{special[0]} $A {special[0]}:1 $B:1",
                                             special_tokens=[(special[0], bos)])
    backend.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=special[0], eos_token=special[4],
                                        model_input_names=["input_ids", "attention_mask"], model_max_length=64)
    tokenizer.chat_template = (ROOT / "llama3.jinja").read_text(encoding="utf-8")
    tokenizer.save_pretrained(folder)


def with_added(tokenizer):
    """Add one plain and one special token."""
    tokenizer.add_tokens(["<added>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|mark|>"]})
    return tokenizer


def llama2(legacy, fast):
    """Transformers' tokenizer on the SentencePiece model."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copyfile(ROOT / "llama2" / "tokenizer.model", f"{folder}/tokenizer.model")
        Path(f"{folder}/tokenizer_config.json").write_text(json.dumps({
            "tokenizer_class": "LlamaTokenizer", "legacy": legacy, "bos_token": "<s>", "eos_token": "</s>",
            "unk_token": "<unk>", "add_bos_token": True, "add_eos_token": False}))
        return with_added(AutoTokenizer.from_pretrained(folder, use_fast=fast))


def rows(tokenizer):
    """[ids, decoded, decoded without special tokens] of every text."""
    found = []
    for text in texts():
        ids = tokenizer.encode(text)
        found.append([ids, tokenizer.decode(ids), tokenizer.decode(ids, skip_special_tokens=True)])
    return found


def calls(tokenizer):
    """Results of calls with options: [arguments, result]."""
    batch = ["Hello world", "x", "a longer text that is cut somewhere"]
    options = [
        {"text": batch, "padding": True}, {"text": batch, "padding": "longest", "pad_to_multiple_of": 8},
        {"text": batch, "padding": "max_length", "max_length": 20},
        {"text": batch, "padding": True, "padding_side": "left"},
        {"text": batch, "truncation": True, "max_length": 6}, {"text": batch[2], "truncation": True, "max_length": 6},
        {"text": batch, "padding": True, "truncation": True, "max_length": 6, "return_special_tokens_mask": True},
        {"text": batch[0], "text_pair": batch[2]},
        {"text": batch[0], "text_pair": batch[2], "return_token_type_ids": True},
        {"text": batch[2], "text_pair": batch[0], "truncation": "only_first", "max_length": 18},
        {"text": batch[0], "text_pair": batch[2], "truncation": "only_second", "max_length": 18},
        {"text": batch[0], "text_pair": batch[2], "truncation": True, "max_length": 13},
        {"text": batch[0], "add_special_tokens": False}, {"text": batch, "return_length": True},
        {"text": batch[0], "return_attention_mask": False}, {"text": batch[0].split(), "is_split_into_words": True},
    ]
    if tokenizer.is_fast:
        options += [{"text": batch, "return_offsets_mapping": True},
                    {"text": batch[2], "truncation": True, "max_length": 7, "stride": 2,
                     "return_overflowing_tokens": True, "return_offsets_mapping": True}]
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return [[option, dict(tokenizer(**option))] for option in options]


def chats(tokenizer):
    """Rendered and encoded conversations of both templates."""
    found = []
    for style in ("llama2", "llama3"):
        template = (ROOT / f"{style}.jinja").read_text(encoding="utf-8")
        for name, messages in CHATS.items():
            for more in ({}, {"add_generation_prompt": True}, {"tools": TOOLS, "date_string": "1 Jan 2025"},
                         {"continue_final_message": True}):
                text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **more)
                encoded = tokenizer.apply_chat_template(messages, chat_template=template, return_dict=True, **more)
                found.append([style, name, more, text, encoded["input_ids"]])
    return found


def main():
    """Train what is missing and write the golden file of this version of transformers."""
    if not (ROOT / "llama2" / "tokenizer.model").is_file():
        train_llama2(ROOT / "llama2" / "tokenizer.model")
    if not (ROOT / "llama3" / "tokenizer.json").is_file():
        train_llama3(ROOT / "llama3")
    third = with_added(PreTrainedTokenizerFast.from_pretrained(ROOT / "llama3"))
    golden = {"version": transformers.__version__, "texts": texts(), "messages": CHATS, "llama3_fast": rows(third),
              "chats": chats(third), "calls": {"llama3_fast": calls(third)}}
    if MAJOR == 4:
        for legacy in (True, False):
            kind = "legacy" if legacy else "plain"
            golden[f"llama2_slow_{kind}"] = rows(llama2(legacy, False))
            golden[f"llama2_fast_{kind}"] = rows(llama2(legacy, True))
        golden["calls"]["llama2_slow_legacy"] = calls(llama2(True, False))
    (ROOT / f"goldens_{MAJOR}.json").write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
