#!/usr/bin/env bash
# What must be seen on a machine with a GPU, in one go: `make gpu`. Results go to $OUT (default: runs/gpu).
# TRAIN_SECONDS bounds the training at the end; the same command goes on with it.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
OUT=${OUT:-runs/gpu}
TRAIN_SECONDS=${TRAIN_SECONDS:-300}
export PYTHONUNBUFFERED=1
dreamfleet() { "$PYTHON" -m cluster.main "$@"; }
mkdir -p "$OUT"

failed=0
trap 'failed=1' ERR

echo "== doctor"; dreamfleet doctor --json | tee "$OUT/doctor.json"

echo "== eight EGL processes rendering at once"
timeout 120 "$PYTHON" -m tests.gpu.render_together --processes 8 | tee "$OUT/egl.json"

echo "== gpu tests"; "$PYTHON" -m pytest -q -m gpu tests/gpu | tee "$OUT/tests.log" | tail -n 3

echo "== learner, beside the plain update in float32"
# --compile none is launched operator by operator, default captured, max captured and compiled.
for compile in none default max; do
  for precision in float32 tf32 bf16; do
    dreamfleet benchmark learner --preset paper --compile "$compile" --precision "$precision" --json --updates 20 --rounds 3 \
      | tee "$OUT/learner_${compile}_$precision.json"
  done
done

echo "== system"
dreamfleet benchmark system --preset paper --compile default --precision bf16 --recorded-frames --actors 8 --seconds 60 --json | tee "$OUT/system.json"

dreamfleet benchmark system --preset paper --compile default --precision bf16 --recorded-frames --actors 8 --seconds 30 --replay-on-device off --json | tee "$OUT/system_replay_off.json"

echo "== replay, rows on the GPU and not"
dreamfleet benchmark replay --preset paper --environment.rendering fast --rounds 3 --json | tee "$OUT/replay.json"

echo "== training walker_walk"
timeout --signal=INT --kill-after=60 "$TRAIN_SECONDS" \
  "$PYTHON" -m cluster.main train --task walker_walk --preset paper --actors 10 --run-dir runs/walker_walk
dreamfleet plot runs/walker_walk --out "$OUT/walker_walk.png"
exit "$failed"
