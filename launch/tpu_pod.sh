#!/usr/bin/env bash
# Trains on all hosts of a TPU VM or of a queued resource; runs on any machine with gcloud.
#
#   ZONE=us-east5-b TPU=my-tpu launch/tpu_pod.sh --config=configs/beta_vae.py --workdir=/shared/runs/a
#   ZONE=us-east5-b QUEUED_RESOURCE=my-qr launch/tpu_pod.sh …      # all slices of the resource
#
# FOLDER (default ~/vae-pipeline) is the repository on every host, with its .venv. --workdir must be
# on storage that all hosts share. On exit code 75 the command runs again while the TPU exists. If
# the TPU is gone, this script leaves with 75: create the TPU again and give the same command.
set -euo pipefail

if [[ -z ${ZONE:-} || -z ${TPU:-}${QUEUED_RESOURCE:-} ]]; then
    echo "error: say which TPU, and where: ZONE=us-east5-b TPU=my-tpu (or QUEUED_RESOURCE=my-qr)" >&2
    exit 2
fi
if [[ -n ${QUEUED_RESOURCE:-} ]]; then
    tpu=(gcloud compute tpus queued-resources)
    name=$QUEUED_RESOURCE every=(--worker=all --node=all) state='value(state.state)' there=ACTIVE
else
    tpu=(gcloud compute tpus tpu-vm)
    name=$TPU every=(--worker=all) state='value(state)' there=READY
fi

on_all_hosts() { "${tpu[@]}" ssh "$name" --zone="$ZONE" "${every[@]}" --command="$1"; }

# flock: a host must not train twice if this script lost its connection and is run again.
# --no-fork keeps the process id that the file holds, so that signals reach the training itself.
printf -v arguments ' %q' "$@"
training="cd ${FOLDER:-\$HOME/vae-pipeline} && echo \$\$ > ~/.vae-pipeline.pid &&
    JAX_PLATFORMS=tpu PYTHONUNBUFFERED=1 exec flock --no-fork --timeout 120 ~/.vae-pipeline.lock \
    .venv/bin/python -m pipeline.train$arguments"

asked=
# shellcheck disable=SC2317  # only the traps call it
forward() {
    asked=${asked:-$2}
    on_all_hosts "kill -$1 \$(cat ~/.vae-pipeline.pid)" || true
}
trap 'forward TERM 75' TERM
trap 'forward USR1 75' USR1
trap 'forward HUP 75' HUP
trap 'forward QUIT 75' QUIT
trap 'forward INT 130' INT

while [[ -z $asked ]]; do
    # In the background, so that traps run meanwhile, and Ctrl-C does not cut the connection.
    on_all_hosts "$training" &
    child=$! code=0
    wait "$child" || code=$?
    while kill -0 "$child" 2> /dev/null; do # a signal ended only the wait
        code=0
        wait "$child" || code=$?
    done
    if [[ $code -eq 0 || $code -eq 2 ]]; then exit "$code"; fi
    if [[ -n $asked ]]; then break; fi
    found=$("${tpu[@]}" describe "$name" --zone="$ZONE" --format="$state" || true)
    if [[ $found != "$there" ]]; then
        echo "The TPU is ${found:-gone}: create it again and give the same command." >&2
        exit 75
    fi
    if [[ $code -ne 75 ]]; then exit "$code"; fi
    echo "exit code 75: starting again on $name" >&2
done
exit "$asked"
