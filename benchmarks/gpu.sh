#!/bin/bash
# A day, or half an hour, on a machine with a GPU: bash benchmarks/gpu.sh check|train|rest
#
#   check  `seqjepa doctor`, every test that needs a GPU, a short run of benchmarks/train.py: under ten minutes
#   train  a training step: eager, compiled, the released code's way, beside measured ceilings; a small step; the stem; the loader
#   rest   augmentation, fixations, saliency, probes
#
# Each begins with the card: without one that torch can use nothing else is run. Every part ends within its limit, and
# adds JSON lines to $OUT/results.jsonl (gpu_part.py); what it said is in the log beside it. After a part that failed the
# next ones run, and the exit code is 1. Interrupted, it ends at once; run again, it adds to what is there. No network is
# needed:
#   WHEELS  folder of wheels that the machine lacks (default .whl): simplejpeg, pydantic, pydantic_core, annotated_types,
#           typing_inspection …; `python3 -m pip download --only-binary=:all: --python-version 3.12 -d .whl simplejpeg pydantic`
#   DEEPGAZE  a checkout of the repository of deepgaze_pytorch (default .whl/deepgaze), for saliency
#   PYTHON, OUT, WORK  the interpreter (python3), results (build/gpu) and data (build/gpu-data)
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
PYTHON=${PYTHON:-python3} OUT=${OUT:-build/gpu} WORK=${WORK:-build/gpu-data} WHEELS=${WHEELS:-.whl}
DEEPGAZE=${DEEPGAZE:-.whl/deepgaze} beside=/tmp/seqjepa-wheels
export PYTHONUNBUFFERED=1 TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/seqjepa-inductor}
case ${1:-} in
check | train | rest) ;;
*)
  echo "found '${1:-}', allowed are check, train and rest: bash benchmarks/gpu.sh check" >&2
  exit 2 ;;
esac
mkdir -p "$OUT" "$WORK" || exit 1

# What is missing is installed beside the interpreter's packages and found by a .pth file: processes that benchmarks and
# tests start find it too, whatever they make of PYTHONPATH.
wheels=$(compgen -G "$WHEELS/*.whl")
if [ -n "$wheels" ]; then
  "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target $beside "$WHEELS"/*.whl || exit 1
fi
if [ -n "$wheels" ] || [ -d "$DEEPGAZE" ]; then
  packages=$("$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || exit 1
  printf '%s\n' $beside "$PWD" "$(realpath -m "$DEEPGAZE")" > "$packages/seqjepa-gpu.pth" || exit 1
fi

failed=0
part() { # NAME SECONDS COMMAND…
  local name=$1 limit=$2 code
  shift 2
  "$PYTHON" benchmarks/gpu_part.py "$name" "$limit" "$OUT/results.jsonl" "$@" && return
  code=$?
  case $code in 129 | 130 | 143) exit $code ;; esac
  failed=1
  echo "$name failed: see $OUT/results.jsonl.log" >&2
  return 1
}
bench() { # SCRIPT NAME SECONDS OPTIONS…
  local script=$1 name=$2 limit=$3
  shift 3
  part "$name" "$limit" "$PYTHON" "benchmarks/$script.py" "$@"
}

part card 60 "$PYTHON" -c 'import torch; print(torch.zeros(1, device="cuda").device, torch.cuda.get_device_properties(0))' || {
  echo "$PYTHON finds no GPU that torch can use, so nothing else is run" >&2
  exit 1
}
case $1 in
check)
  part doctor 40 "$PYTHON" -m seqjepa doctor
  part tests 360 "$PYTHON" -m pytest -o addopts= -m gpu -W default -v --durations=10 tests
  bench train train-short 200 --rounds 1 --steps 10 --work "$WORK/train" ;;
train)
  bench train train 450 --rounds 3 --steps 30 --work "$WORK/train"
  bench train train-small 200 --small --rounds 3 --steps 100 --work "$WORK/train-small"
  bench stem stem 60 --device cuda --rounds 5
  bench loader loader 200 --only --rounds 1 --seconds 2 --work "$WORK/loader" ;;
rest)
  bench augment augment 180 --device cuda --rounds 2 --seconds 2 --work "$WORK/augment"
  bench fixations fixations 180 --device cuda --rounds 2 --seconds 2 --work "$WORK/fixations"
  bench saliency saliency-tf32 120 --device cuda --batch 32 --precision tf32 --rounds 5
  bench saliency saliency-fp16 90 --device cuda --batch 32 --precision fp16 --rounds 5
  bench saliency_precision saliency-precision 60 --device cuda --precisions tf32 fp16 bf16
  bench probes probes 150 --device cuda --peer-epochs 1 --work "$WORK/probes"
  bench probes_full_size probes-full-size 90 --device cuda ;;
esac
exit $failed
