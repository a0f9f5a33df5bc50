#!/usr/bin/env bash
# Builds and runs the unit tests of the native kernels in several ways, each for every instruction set that this
# machine has. Needs g++ (or clang++) and no MindSpore; aarch64 also takes a cross-compiler and qemu
# (Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static).
# Usage: bash scripts/check_kernels.sh [plain|memory|thread|aarch64 ...]; without arguments all of them.
# memory: AddressSanitizer and UndefinedBehaviorSanitizer; thread: ThreadSanitizer.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
if [ $# -eq 0 ]; then
    set -- plain memory thread aarch64
fi

# run_all LABEL COMMAND... : builds the tests with the build options in $options, and runs each behind COMMAND
run_all() {
    local label="$1" programs program
    shift
    programs="$("$python" -m mindformers.kernels.build --tests "${options[@]}")"
    for program in $programs; do
        echo "== $label: $(basename "$program")"
        "$@" "$program"
    done
}

for kind in "$@"; do
    case "$kind" in
        plain | memory)
            options=()
            [ "$kind" = plain ] || options=(--sanitize "$kind")
            run_all "$kind" env ;;
        thread)  # without address randomisation, which older ThreadSanitizers do not take; a test forks with threads
            options=(--sanitize thread)
            run_all "$kind" env TSAN_OPTIONS="die_after_fork=0 ${TSAN_OPTIONS:-}" setarch "$(uname -m)" -R ;;
        aarch64)
            options=(--target aarch64)
            run_all "$kind" "$(command -v qemu-aarch64-static || command -v qemu-aarch64 || echo qemu-aarch64)" ;;
        *)
            echo "error: unknown kind '$kind'; there are plain, memory, thread, aarch64" >&2
            exit 2 ;;
    esac
done
echo "== all passed: $*"
