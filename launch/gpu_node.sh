#!/usr/bin/env bash
# Trains on all GPUs of this node in one process, and starts it again when it ends early.
#
#   launch/gpu_node.sh --config=configs/beta_vae.py --workdir=runs/a
#
# CUDA_VISIBLE_DEVICES selects some of the GPUs. One process drives them all, as JAX prefers within
# a node. For several nodes pass each the same --coordinator and --num_processes, and its own
# --process_id (flags of pipeline.train).
set -euo pipefail

if ! command -v nvidia-smi > /dev/null; then
    echo "error: nvidia-smi is not on PATH: install the driver, or use launch/local.py on CPUs" >&2
    exit 2
fi
# exec: a signal to this script then reaches the launcher, which forwards it, waits for the save and
# leaves with 75 (Ctrl-C: 130).
exec "${PYTHON:-python}" "$(dirname "$0")/local.py" --platform=cuda -- "$@"
