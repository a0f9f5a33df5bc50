#!/usr/bin/env bash
# Builds and runs the unit tests of the native kernels in several ways, each for every instruction set that this
# machine has. Needs g++ (or clang++) and no MindSpore; aarch64 also takes a cross-compiler and qemu
# (Debian: apt-get install g++-aarch64-linux-gnu qemu-user-static).
# Usage: bash scripts/check_kernels.sh [plain|memory|thread|aarch64|quick ...]; without arguments the first four.
# memory: AddressSanitizer and UndefinedBehaviorSanitizer; thread: ThreadSanitizer; quick: as memory, for the best
# instruction set only and with a quarter of the random cases. A sanitizer must also find the error in planted.cpp.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
python="${PYTHON:-python3}"
if [ $# -eq 0 ]; then
    set -- plain memory thread aarch64
fi

# run_all COMMAND... : builds the tests with the build options in $options, and runs them behind COMMAND, as many at a
# time as there are cores
run_all() {
    local programs
    programs="$("$python" -m mindformers.kernels.build --tests "${options[@]}")"
    printf '%s\n' "$programs" | xargs -P "$(nproc)" -n 1 "$@"
}

# find_planted NAME COMMAND... : the sanitizer must end planted.cpp, built with $options, and say why
find_planted() {
    local name="$1" program said
    shift
    program="$("$python" -m mindformers.kernels.build --tests planted "${options[@]}")"
    if said="$("$@" "$program" "$name" 2>&1)" || ! grep -q "Sanitizer" <<<"$said"; then
        printf 'error: the planted error (%s) was not found:\n%s\n' "$name" "$said" >&2
        exit 1
    fi
    echo "planted error ($name) found: $(grep -m 1 -o "[A-Za-z]*Sanitizer: [a-z -]*" <<<"$said")"
}

for kind in "$@"; do
    echo "== $kind"
    case "$kind" in
        plain)
            options=()
            run_all env ;;
        memory)
            options=(--sanitize memory)
            run_all env
            find_planted memory env ;;
        quick)
            isa="$("$python" -c "from mindformers.kernels import build; print(build.best_isa())")"
            options=(--sanitize memory --isa "$isa")
            run_all env MF_TEST_QUICK=1 MF_ISA="$isa"
            find_planted memory env MF_ISA="$isa" ;;
        thread)  # without address randomisation, which older ThreadSanitizers do not take; a test forks with threads
            options=(--sanitize thread)
            command=(env "TSAN_OPTIONS=die_after_fork=0 ${TSAN_OPTIONS:-}" setarch "$(uname -m)" -R)
            run_all "${command[@]}"
            find_planted thread "${command[@]}" ;;
        aarch64)
            options=(--target aarch64)
            run_all "$(command -v qemu-aarch64-static || command -v qemu-aarch64 || echo qemu-aarch64)" ;;
        *)
            echo "error: unknown kind '$kind'; there are plain, memory, thread, aarch64, quick" >&2
            exit 2 ;;
    esac
done
echo "== all passed: $*"
