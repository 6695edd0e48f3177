#!/usr/bin/env bash
# SDAR on ALFWorld with Qwen2.5-7B-Instruct on one p4de.24xlarge: 8 A100 of 80 GB.
# There is room for micro-batches twice as large as the shared setting's: fewer passes, the same gradient.
# A checkpoint every 3 steps costs least on spot with one interruption a day, as planned with rates that were not measured
# on this instance. Not run by the project yet. The table is `sdar plan <this file> --instance p4de --ascii --only memory`:
#
#   GiB on one GPU     rollout  hand-over    score   update
#   actor weights          3.5        3.5      3.5      3.5
#   gradients                .          .        .      3.5
#   optimizer              7.1        7.1      7.1      7.1
#   rollout weights        7.1        7.1        .        .
#   rollout workspace      1.5        1.5        .        .
#   KV cache              39.4          .        .        .
#   activations              .          .      5.7     11.3
#   logits                   .          .      9.3     27.8
#   gathered weights         .        6.0      1.9      4.2
#   reserve                1.5        1.5      3.0      3.0
#   reference             host       host     host     host
#   teacher            no copy    no copy  no copy  no copy
#   sum                   60.1       26.8     30.5     60.6
#
#   rollout    #################################...........   60.1 of 80.0 GiB,  75 %
#   hand-over  ###############.............................   26.8 of 80.0 GiB,  33 %
#   score      #################...........................   30.5 of 80.0 GiB,  38 %
#   update     #################################...........   60.6 of 80.0 GiB,  76 %
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/qwen2.5_7b.sh" \
    'trainer.experiment_name=${sdar.method}-${env.name}-qwen2.5_7b-p4de' \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=32768 \
    trainer.save_freq=3 \
    "$@"
