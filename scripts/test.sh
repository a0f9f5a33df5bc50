#!/usr/bin/env bash
# Makes the same environment as quickstart.sh, with the test tools, and runs the tests, a file at a time on each core.
# Usage: bash scripts/test.sh [pytest arguments]; without arguments everything that is not marked slow.
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh" "dev"

if [ $# -eq 0 ]; then
    set -- -m "not slow"
fi
echo "== pytest $*"
exec python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
