#!/usr/bin/env bash
# SDAR on ALFWorld with Qwen2.5-7B-Instruct on one p4d.24xlarge: 8 A100 of 40 GB (not of 80: that is p4de).
# 16,384 tokens a micro-batch, the shared setting, are 1 GiB too much in the update: the logits of 152,064 words take
# 13.9 GiB. Half of them fits; micro-batches change memory and speed, never the gradient.
# A checkpoint every 2 steps costs least on spot with one interruption a day, as planned with rates that were not measured
# on this instance. Not run by the project yet. The table is `sdar plan <this file> --instance p4d --ascii --only memory`:
#
#   GiB on one GPU     rollout  hand-over    score   update
#   actor weights          3.5        3.5      3.5      3.5
#   gradients                .          .        .      3.5
#   optimizer              7.1        7.1      7.1      7.1
#   rollout weights        7.1        7.1        .        .
#   rollout workspace      1.5        1.5        .        .
#   KV cache              15.4          .        .        .
#   activations              .          .      1.4      2.8
#   logits                   .          .      2.3      7.0
#   gathered weights         .        6.0      1.9      4.2
#   reserve                1.5        1.5      3.0      3.0
#   reference             host       host     host     host
#   teacher            no copy    no copy  no copy  no copy
#   sum                   36.1       26.8     19.3     31.2
#
#   rollout    ########################################....   36.1 of 40.0 GiB,  90 %
#   hand-over  #############################...............   26.8 of 40.0 GiB,  67 %
#   score      #####################.......................   19.3 of 40.0 GiB,  48 %
#   update     ##################################..........   31.2 of 40.0 GiB,  78 %
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/qwen2.5_7b.sh" \
    'trainer.experiment_name=${sdar.method}-${env.name}-qwen2.5_7b-p4d' \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192 \
    trainer.save_freq=2 \
    "$@"
