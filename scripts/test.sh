#!/usr/bin/env bash
# Installs what is missing and runs every test, the slow ones too. Arguments go to pytest: bash scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
source .venv/bin/activate

status=0
ruff check . || status=$?
# Two at a time: a real run is a dozen processes that start one after the other (about one core and 5 GB).
# A file stays together, as do its fixtures; tests/conftest.py puts the longest first.
python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 30 "$@" || status=$?
if [[ $status == 0 ]]; then
    echo "test: everything passed"
else
    echo "test: FAILED (status $status; see above)"
fi
exit $status
