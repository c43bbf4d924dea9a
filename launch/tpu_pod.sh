#!/usr/bin/env bash
# Trains on a slice of Cloud TPU VMs, and resumes after each preemption.
#
# Edit the lines below (or set them in the environment), then:
#   launch/tpu_pod.sh run      create, install, start, follow; repeats when preempted
# or one step at a time: create | install | start | logs | status | delete
#
# Spot slices receive SIGTERM before they are preempted: every host then writes its part
# of a checkpoint and exits with code 75, and `run` resumes on a new slice.
set -euo pipefail

NAME=${NAME:-maskjax}                       # of the slice
ZONE=${ZONE:-europe-west4-b}
ACCELERATOR=${ACCELERATOR:-v5litepod-16}    # plan it first: maskjax plan --topology
RUNTIME=${RUNTIME:-v2-alpha-tpuv5-lite}     # the TPU VM image
SOURCE=${SOURCE:-.}                         # a checkout, or a requirement for pip
TRAIN=${TRAIN:---config configs/image/mae.py:imagenet --workdir gs://my-bucket/mae_l}

SPOT=${SPOT:---spot}                        # empty for a slice that is not preempted
PAUSE=${PAUSE:-30}                          # seconds between checks of the slice
STARTS=${STARTS:-20}                        # the most times to start

tpu() { gcloud compute tpus tpu-vm "$1" "$NAME" --zone="$ZONE" "${@:2}"; }

on_all() { tpu ssh --worker=all --command="$1"; }

create() {
  # shellcheck disable=SC2086  # an empty SPOT is no argument
  tpu create --accelerator-type="$ACCELERATOR" --version="$RUNTIME" $SPOT
}

install() {
  local what=$SOURCE
  if [[ -d $SOURCE ]]; then
    git -C "$SOURCE" archive --format=tar.gz --output=/tmp/maskjax.tar.gz HEAD
    gcloud compute tpus tpu-vm scp /tmp/maskjax.tar.gz "$NAME": --zone="$ZONE" --worker=all
    on_all 'rm -rf maskjax && mkdir maskjax && tar -xzf maskjax.tar.gz -C maskjax'
    what=./maskjax
  fi
  on_all "pip install '$what[tpu,gcs]'"
}

# Continues after the connection ends, and writes its exit code to a file.
start() {
  on_all "rm -f maskjax.exit; nohup bash -c 'maskjax train --distributed $TRAIN; \
echo \$? > maskjax.exit' > maskjax.log 2>&1 < /dev/null &"
}

logs() { tpu ssh --worker=0 --command='tail -n +1 -F maskjax.log'; }

state() { tpu describe --format='value(state)' 2> /dev/null || echo GONE; }

# The exit code of the first host's process; empty while it runs.
exit_code() { tpu ssh --worker=0 --command='cat maskjax.exit 2> /dev/null' || true; }

status() { echo "slice: $(state), exit code: $(exit_code)"; }

delete() { tpu delete --quiet; }

run() {
  local begun code following
  for ((begun = 1; begun <= STARTS; begun++)); do
    [[ $(state) == READY ]] || { delete || true; until create; do sleep "$PAUSE"; done; }
    install
    start
    logs & following=$!
    code=
    while [[ $(state) == READY && -z $code ]]; do sleep "$PAUSE"; code=$(exit_code); done
    kill "$following" 2> /dev/null || true
    case $code in
      0) echo "done; the slice $NAME still exists: launch/tpu_pod.sh delete"; return 0 ;;
      2) echo "an error in the command, see the log above" >&2; return 2 ;;
      *) echo "start $begun of $STARTS ended with ${code:-the slice}" >&2; delete || true ;;
    esac
  done
  return 1
}

case ${1:-} in
  create | install | start | logs | status | delete | run) "$1" ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
