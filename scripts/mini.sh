#!/usr/bin/env bash
# Both stages of the mini model's pre-training, on whatever JAX finds: CPU, a GPU or a TPU.
#
#   scripts/mini.sh DATA_DIR RUNS [--gin.NAME=VALUE ...]
#
# DATA_DIR holds the files that its SHA256SUMS names (gin_configs/mini_pretrain.gin); RUNS/adapt/model is the model made.
# SIGTERM to the process group ends it with status 75 once the step is saved; the same command resumes it.
set -euo pipefail
if (($# < 2)); then
    echo "usage: $0 DATA_DIR RUNS [--gin.NAME=VALUE ...]" >&2
    exit 2
fi
data=$1 runs=$2
shift 2
trap : TERM # the stage's own status decides
t5x pretrain --gin_file=gin_configs/mini_pretrain.gin --gin.DATA_DIR="$data" --gin.MODEL_DIR="$runs/pretrain" "$@"
t5x pretrain --gin_file=gin_configs/mini_adapt.gin --gin.DATA_DIR="$data" --gin.MODEL_DIR="$runs/adapt" \
    --gin.INITIAL_CHECKPOINT_PATH="$runs/pretrain/model" "$@"
