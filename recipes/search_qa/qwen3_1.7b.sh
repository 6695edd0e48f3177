#!/usr/bin/env bash
# SDAR on Search-QA with Qwen3-1.7B, 4 GPUs. The template's own thinking block is off; the prompt still asks for <think>.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/official.sh" \
    actor_rollout_ref.model.path=Qwen/Qwen3-1.7B \
    +data.apply_chat_template_kwargs.enable_thinking=false \
    'trainer.experiment_name=${sdar.method}-${env.name}-qwen3_1.7b' \
    "$@"
