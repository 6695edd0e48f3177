#!/usr/bin/env bash
# SDAR on WebShop with Qwen2.5-7B-Instruct, 8 GPUs: two do not hold its training state. The gradient is the same.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/official.sh" \
    actor_rollout_ref.model.path=Qwen/Qwen2.5-7B-Instruct \
    trainer.n_gpus_per_node=8 \
    'trainer.experiment_name=${sdar.method}-${env.name}-qwen2.5_7b' \
    "$@"
