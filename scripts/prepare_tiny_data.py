#!/usr/bin/env python
"""Prepare the data of configs/tiny: tokens of the Python standard library and a tokenizer trained on them.

    python scripts/prepare_tiny_data.py [--output ./output/tiny_data] [--vocab_size 8192]

Training does the same by itself when the folder is absent.
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from mindformers.dataset.dataloader.python_source import prepare_python_source  # noqa: E402


def main():
    """Parse the arguments, prepare, print the manifest."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", default="./output/tiny_data", help="folder to write. Default: ./output/tiny_data")
    parser.add_argument("--vocab_size", type=int, default=8192, help="tokens of the tokenizer. Default: 8192")
    arguments = parser.parse_args()
    facts = prepare_python_source(arguments.output, arguments.vocab_size)
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    main()
