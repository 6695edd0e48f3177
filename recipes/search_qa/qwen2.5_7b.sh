#!/usr/bin/env bash
# SDAR on Search-QA with Qwen2.5-7B-Instruct, 4 GPUs.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/official.sh" \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct \
    'trainer.experiment_name=${sdar.method}-${env.name}-qwen2.5_7b' \
    "$@"
