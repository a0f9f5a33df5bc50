#!/usr/bin/env bash
# Start a job of several processes with msrun.
#
#   bash scripts/msrun_launcher.sh "run_mindformer.py --config CONFIG --run_mode train --use_parallel True" 2
#
# The command is split into words as a shell would split it, and is never evaluated.
set -u

usage() {
  cat >&2 <<'TEXT'
Usage: bash scripts/msrun_launcher.sh COMMAND [WORKER_NUM]
       bash scripts/msrun_launcher.sh COMMAND WORKER_NUM MASTER_PORT LOG_DIR JOIN CLUSTER_TIME_OUT
       bash scripts/msrun_launcher.sh COMMAND WORKER_NUM LOCAL_WORKER MASTER_ADDR MASTER_PORT NODE_RANK LOG_DIR \
                                      JOIN CLUSTER_TIME_OUT
  COMMAND           the script and its arguments, in one string
  WORKER_NUM        processes in all (default 8)           LOCAL_WORKER      those on this machine (default WORKER_NUM)
  MASTER_ADDR       default 127.0.0.1                      MASTER_PORT       default a free one
  NODE_RANK         number of this machine (default 0)     LOG_DIR           default output/msrun_log
  JOIN              True waits for the job (default)       CLUSTER_TIME_OUT  seconds until all must be up (default 7200)
Environment: PYTHON (interpreter), MF_LOG_SUFFIX (appended to LOG_DIR),
  PLOG_REDIRECT_TO_OUTPUT=True (Ascend's own logs go to output/plog)
TEXT
  exit 1
}

case $# in
  1|2) set -- "$1" "${2-8}" "${2-8}" 127.0.0.1 auto 0 output/msrun_log True 7200 ;;
  6)   set -- "$1" "$2" "$2" 127.0.0.1 "$3" 0 "$4" "$5" "$6" ;;
  9)   ;;
  *)   echo "msrun_launcher.sh: takes 1, 2, 6 or 9 arguments, got $#" >&2; usage ;;
esac
COMMAND=$1 WORKER_NUM=$2 LOCAL_WORKER=$3 MASTER_ADDR=$4 MASTER_PORT=$5 NODE_RANK=$6 LOG_DIR=$7 JOIN=$8 TIME_OUT=$9

number() {  # number NAME VALUE MINIMUM
  if ! [[ $2 =~ ^[0-9]+$ ]] || (( 10#$2 < $3 )); then
    echo "msrun_launcher.sh: $1 must be an integer >= $3, got '$2'" >&2
    usage
  fi
}
number WORKER_NUM "$WORKER_NUM" 1
number LOCAL_WORKER "$LOCAL_WORKER" 1
[ "$MASTER_PORT" = auto ] || number MASTER_PORT "$MASTER_PORT" 1
number NODE_RANK "$NODE_RANK" 0
number CLUSTER_TIME_OUT "$TIME_OUT" 1
case ${JOIN,,} in true|false) ;; *) echo "msrun_launcher.sh: JOIN must be True or False, got '$JOIN'" >&2; usage ;; esac

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHON=${PYTHON:-python}
if ! BIN=$("$PYTHON" -c 'import os, sys; print(os.path.dirname(sys.executable))') || [ -z "$BIN" ]; then
  echo "msrun_launcher.sh: no Python interpreter '$PYTHON'; activate the environment or set PYTHON=/path/to/python" >&2
  exit 1
fi
exec "$BIN/python" "$SCRIPT_DIR/msrun_job.py" "$COMMAND" "$WORKER_NUM" "$LOCAL_WORKER" "$MASTER_ADDR" "$MASTER_PORT" \
  "$NODE_RANK" "$LOG_DIR${MF_LOG_SUFFIX:-}" "${JOIN,,}" "$TIME_OUT"
