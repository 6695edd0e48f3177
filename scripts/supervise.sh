#!/usr/bin/env bash
# Starts a command again as long as it ends with code 75: its machine was about to go away, and what it had is saved.
# Any other code ends this script with it. SIGTERM and SIGINT are passed on, and nothing is started after them.
#
#   bash scripts/supervise.sh sdar train ... sdar.spot.imds=true sdar.checkpoints.s3=s3://BUCKET/RUN
#
# SUPERVISE_WAIT: seconds before the next start (10). SUPERVISE_LIMIT: most starts (1000).
set -u
[ "$#" -gt 0 ] || { echo "usage: supervise.sh COMMAND [ARGUMENTS]" >&2; exit 2; }

child="" stopped=""
pass_on() {
    stopped=1
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null
}
trap 'pass_on TERM' TERM
trap 'pass_on INT' INT

code=75
for start in $(seq 1 "${SUPERVISE_LIMIT:-1000}"); do
    if [ "$start" -gt 1 ]; then
        echo "supervise: start $start in ${SUPERVISE_WAIT:-10} s" >&2
        sleep "${SUPERVISE_WAIT:-10}" &
        child=$!
        wait "$child"
    fi
    [ -z "$stopped" ] || break
    "$@" &
    child=$!
    wait "$child"
    code=$?
    while kill -0 "$child" 2>/dev/null; do # a signal ended the wait, not the command
        wait "$child"
        code=$?
    done
    child=""
    [ "$code" -eq 75 ] && [ -z "$stopped" ] || break
done
exit "$code"
