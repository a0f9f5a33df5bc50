#!/usr/bin/env bash
# From nothing to generated text: makes an environment, installs the project, and completes Python code with the small
# Llama that is shipped with it. Running it again only generates. Usage: bash scripts/quickstart.sh ["a prompt"]
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" ""

prompt="${1:-def read_json(path):}"
echo "== completing: $prompt"
python run_mindformer.py --config configs/tiny/predict_llama_tiny.yaml --predict_data "$prompt"
echo
echo "== next: mindformers chat, mindformers ls, README.md; in a new shell first: source ${MF_VENV:-.venv}/bin/activate"
