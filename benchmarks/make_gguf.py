"""GGUF files of a benchmark's random Llama, written by llama.cpp's own converter.

    python benchmarks/make_gguf.py FOLDER --convert llama.cpp/convert_hf_to_gguf.py --outtype bf16 --outfile model.gguf

The converter asks for a tokenizer, which random weights do not have: it gets a copy of the folder with a vocabulary of
made-up tokens. `--python` needs torch, transformers and sentencepiece, as the converter does.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path


def dummy_tokenizer(vocab_size):
    """tokenizer.json of a byte-fallback BPE without merges: 3 special tokens, 256 bytes, then made-up words."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    tokens += [f"word{i}" for i in range(vocab_size - len(tokens))]
    special = [{"id": i, "content": tokens[i], "single_word": False, "lstrip": False, "rstrip": False,
                "normalized": False, "special": True} for i in range(3)]
    return {"version": "1.0", "added_tokens": special, "normalizer": None, "pre_tokenizer": None,
            "post_processor": None, "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
            "model": {"type": "BPE", "unk_token": "<unk>", "byte_fallback": True, "merges": [],
                      "vocab": {token: i for i, token in enumerate(tokens[:vocab_size])}}}


def make_gguf(folder, outfile, outtype, convert, python):
    """Convert `folder` to `outfile` (outtype: f32, bf16, q8_0), unless it is there.

    Raises:
        SystemExit: the converter failed; its last lines are the message.
    """
    folder, outfile = Path(folder).resolve(), Path(outfile).resolve()
    if outfile.exists() and outfile.stat().st_mtime >= (folder / "config.json").stat().st_mtime:
        return
    vocab_size = json.loads((folder / "config.json").read_text())["vocab_size"]
    with tempfile.TemporaryDirectory() as stage:
        for name in ("config.json", "model.safetensors"):
            (Path(stage) / name).symlink_to(folder / name)
        (Path(stage) / "tokenizer.json").write_text(json.dumps(dummy_tokenizer(vocab_size)))
        (Path(stage) / "tokenizer_config.json").write_text(json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>", "bos_token": "<s>",
             "eos_token": "</s>"}))
        partial = outfile.with_name(outfile.name + ".partial")
        done = subprocess.run([python, convert, stage, "--outtype", outtype, "--outfile", str(partial)],
                              capture_output=True, text=True, check=False)
        if done.returncode or not partial.exists():
            raise SystemExit(f"{convert} failed on {folder}:\n{done.stdout[-1000:]}{done.stderr[-3000:]}")
        partial.replace(outfile)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--convert", required=True, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--outtype", choices=("f32", "bf16", "q8_0"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--outfile", required=True)
    parser.add_argument("--python", default=sys.executable, help="with torch, transformers, sentencepiece")
    args = parser.parse_args(argv)
    make_gguf(args.folder, args.outfile, args.outtype, args.convert, args.python)


if __name__ == "__main__":
    main()
