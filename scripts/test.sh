#!/usr/bin/env bash
# Installs what is missing and runs every test, the slow ones too. Arguments go to pytest: bash scripts/test.sh -m "not slow"
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash scripts/setup.sh
source .venv/bin/activate

status=0
ruff check . || status=$?
python -m pytest -q "$@" || status=$?
if [[ $status == 0 ]]; then
    echo "test: everything passed"
else
    echo "test: FAILED (status $status; see above)"
fi
exit $status
