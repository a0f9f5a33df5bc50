#!/usr/bin/env bash
# Sourced by quickstart.sh and test.sh: makes the environment .venv once, and installs the project in it with the
# extras named in $1 ("" or "dev") when its requirements have changed since. Afterwards `python` is the environment's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extras="${1:-}"
venv="${MF_VENV:-.venv}"

find_python() {
    local candidate
    for candidate in python3.11 python3 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    echo "error: Python 3.11 is needed (MindSpore's wheels here are tested with it), and was not found in PATH" >&2
    exit 1
}

if [ ! -x "$venv/bin/python" ]; then
    python_found="$(find_python)"
    echo "== making the environment $venv with $("$python_found" --version)"
    "$python_found" -m venv "$venv"
fi
export PATH="$(cd "$venv/bin" && pwd):$PATH"

stamp="$venv/installed-${extras:-plain}"
wanted="$(cat requirements.txt setup.py pyproject.toml | cksum)"
if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "== installing the project${extras:+ with extras: $extras} (once; MindSpore is about 400 MB)"
    # compiling all modules now would take longer than compiling those that are used, when they are
    python -m pip install --quiet --disable-pip-version-check --no-compile -e ".${extras:+[$extras]}"
    echo "$wanted" > "$stamp"
else
    echo "== the environment $venv is up to date"
fi

# the native kernels: only what changed is compiled; without a compiler the portable ones run
python -m mindformers.kernels.build || echo "== the native kernels were not built: the portable ones run, slower"
