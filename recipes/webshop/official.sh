#!/usr/bin/env bash
# The published WebShop setting (2 GPUs, 16 tasks x 8 episodes, 150 steps), shared by the recipes beside this file.
# Catalogue: WEBSHOP_DATA=<folder with items_shuffle_1000.json, items_ins_v2_1000.json and nouns.json>, or
# env.webshop.data_root=<that folder>. The published runs used verl-agent's goals: add env.webshop.split=verl_agent.
# The KL term (0.01, low_var_kl) is the default and the method's to change. The entropy bonus stands here for all methods:
# add actor_rollout_ref.actor.entropy_coeff=0 for those that learn from the teacher alone.
# By the planner these fit GPUs of 80 GB; `sdar plan <recipe> --instance <type>` says what to change for others.
# Any further argument is a Hydra override and wins, e.g. method=grpo for the baseline without teacher and skills, or any
# other method of sdar_verl/config/method/.
set -euo pipefail

# Rows of a mini-batch are ppo_mini_batch_size x rollout.n = 64. Micro-batches are cut by tokens: they change memory
# and speed, never the gradient. Rows are shuffled so that those which only pad the batch spread over all mini-batches.
exec "${PYTHON:-python}" -m sdar_verl.train \
    env=webshop \
    env.webshop.max_steps=15 \
    env.webshop.history_length=2 \
    env.webshop.success_reward=10.0 \
    env.invalid_action_penalty=0.1 \
    sdar.rows=step \
    sdar.panel.size=128 \
    sdar.teacher.max_prompt_length=6144 \
    data.train_batch_size=16 \
    data.max_prompt_length=4096 \
    data.max_response_length=512 \
    algorithm.adv_estimator=grpo \
    algorithm.use_kl_in_reward=false \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.ppo_mini_batch_size=8 \
    actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.actor.shuffle=true \
    actor_rollout_ref.actor.clip_ratio_low=0.2 \
    actor_rollout_ref.actor.clip_ratio_high=0.2 \
    actor_rollout_ref.actor.entropy_coeff=0.001 \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=2 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.6 \
    actor_rollout_ref.rollout.val_kwargs.do_sample=true \
    actor_rollout_ref.rollout.val_kwargs.temperature=0.4 \
    trainer.nnodes=1 \
    trainer.n_gpus_per_node=2 \
    trainer.total_training_steps=150 \
    trainer.total_epochs=150 \
    trainer.test_freq=5 \
    trainer.save_freq=10 \
    "$@"
