#!/usr/bin/env bash
# Trains on all hosts of a TPU VM or of a queued resource, from any machine with gcloud.
#
#   ZONE=us-east5-b TPU=my-tpu launch/tpu_pod.sh --config=configs/beta_vae.py --workdir=/shared/runs/a
#   ZONE=us-east5-b QUEUED_RESOURCE=my-qr launch/tpu_pod.sh …      # all slices of the resource
#
# FOLDER (default ~/vae-pipeline) is the repository on every host, with its .venv; --workdir is on
# storage that all hosts share. The command runs again on exit code 75 while the TPU is there; where
# it was taken away the exit code is 75: create it anew and give the same command.
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

# flock: a host never trains twice, also where this script lost its connection and is run again.
# --no-fork keeps the process id that is noted, so that signals reach the training itself.
printf -v arguments ' %q' "$@"
training="cd ${FOLDER:-\$HOME/vae-pipeline} && echo \$\$ > ~/.vae-pipeline.pid &&
    JAX_PLATFORMS=tpu PYTHONUNBUFFERED=1 exec flock --no-fork --timeout 120 ~/.vae-pipeline.lock \
    .venv/bin/python -m pipeline.train$arguments"

asked=
# shellcheck disable=SC2317  # the traps call it
forward() {
    asked=${asked:-$2}
    on_all_hosts "kill -$1 \$(cat ~/.vae-pipeline.pid)" || true
}
trap 'forward TERM 75' TERM
trap 'forward USR1 75' USR1
trap 'forward INT 130' INT

while [[ -z $asked ]]; do
    # In the background: signals are forwarded meanwhile, and Ctrl-C doesn't cut the connection.
    on_all_hosts "$training" &
    child=$! code=0
    wait "$child" || code=$?
    while kill -0 "$child" 2> /dev/null; do # a signal ended the wait, not the training
        code=0
        wait "$child" || code=$?
    done
    if [[ $code -eq 0 || $code -eq 2 ]]; then exit "$code"; fi
    if [[ -n $asked ]]; then break; fi
    found=$("${tpu[@]}" describe "$name" --zone="$ZONE" --format="$state" || true)
    if [[ $found != "$there" ]]; then
        echo "The TPU is ${found:-gone}: create it anew and give the same command." >&2
        exit 75
    fi
    if [[ $code -ne 75 ]]; then exit "$code"; fi
    echo "exit code 75: starting again on $name" >&2
done
exit "$asked"
