#!/usr/bin/env bash
# Installs what is missing and runs every test, the slow ones too. Arguments go to pytest: bash scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
source .venv/bin/activate

status=0
ruff check . || status=$?
if [[ $# -gt 0 ]]; then
    python -m pytest -q "$@" || status=$?
else
    # Real runs wait for a dozen processes to start, one after the other: the other tests use the second core meanwhile.
    log=$(mktemp)
    python -m pytest -q --ignore tests/e2e > "$log" 2>&1 &
    others=$!
    trap 'kill "$others" 2> /dev/null || true; rm -f "$log"' EXIT
    echo "test: real runs (tests/e2e); all other tests beside them, shown when they have ended"
    python -m pytest -q tests/e2e || status=$?
    wait "$others" || status=$?
    cat "$log"
fi
if [[ $status == 0 ]]; then
    echo "test: everything passed"
else
    echo "test: FAILED (status $status; see above)"
fi
exit $status
