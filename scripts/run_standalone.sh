#!/usr/bin/env bash
# Run one task on one device:  bash scripts/run_standalone.sh CONFIG_PATH DEVICE_ID RUN_STATUS
set -eu

if [ $# -ne 3 ]; then
  echo "Usage: bash scripts/run_standalone.sh CONFIG_PATH DEVICE_ID RUN_STATUS(train|finetune|eval|predict)" >&2
  exit 1
fi
CONFIG=$1 DEVICE=$2 STATUS=$3
if [ ! -f "$CONFIG" ]; then
  echo "run_standalone.sh: no such configuration file: $CONFIG" >&2
  exit 1
fi
if ! [[ $DEVICE =~ ^[0-9]+$ ]]; then
  echo "run_standalone.sh: DEVICE_ID must be an integer >= 0, got '$DEVICE'" >&2
  exit 1
fi
case $STATUS in
  train|finetune|eval|predict) ;;
  *) echo "run_standalone.sh: RUN_STATUS must be train, finetune, eval or predict, got '$STATUS'" >&2; exit 1 ;;
esac
REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CONFIG=$(cd "$(dirname "$CONFIG")" && pwd)/$(basename "$CONFIG")
export PYTHONPATH="$REPO${PYTHONPATH:+:$PYTHONPATH}" RANK_SIZE=1 RANK_ID=0
exec "${PYTHON:-python}" "$REPO/run_mindformer.py" --config "$CONFIG" --run_mode "$STATUS" --device_id "$DEVICE" \
  --use_parallel False
