#!/usr/bin/env bash
# Starts a command again as long as it ends with code 75 or 69; see supervise.py, which does it: bash 5.2 loses the code
# of a command that ends while a signal is handled, and lets what it starts in the background ignore Ctrl-C.
#
#   bash scripts/supervise.sh sdar train ... sdar.spot.imds=true sdar.checkpoints.s3=s3://BUCKET/RUN
exec python3 "$(dirname "${BASH_SOURCE[0]}")/supervise.py" "$@"
