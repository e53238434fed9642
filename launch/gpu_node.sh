#!/usr/bin/env bash
# Trains on all GPUs of this node in one process, and starts it again when it ends early.
#
#   launch/gpu_node.sh --config=configs/beta_vae.py --workdir=runs/a
#
# CUDA_VISIBLE_DEVICES chooses fewer GPUs. One process drives them all, as JAX prefers within a
# node. For several nodes give each the same --coordinator and --num_processes (pipeline.train).
set -euo pipefail

if ! command -v nvidia-smi > /dev/null; then
    echo "error: nvidia-smi is not on PATH: install the driver, or use launch/local.py on CPUs" >&2
    exit 2
fi
# exec: a signal to this script is one to the launcher, which saves and leaves with 75 (Ctrl-C: 130).
exec "${PYTHON:-python}" "$(dirname "$0")/local.py" --platform=cuda -- "$@"
