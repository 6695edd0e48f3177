#!/usr/bin/env bash
# The published Search-QA setting (4 GPUs, 128 questions x 8 episodes, 150 steps), shared by the recipes beside this file.
# Questions: SEARCH_QA_DATA=<folder with train.parquet and test.parquet>. Search: start a server beforehand
# (sdar-retriever serve, or Search-R1's own) and name it with env.search_qa.retriever.url=http://<host>:8000/retrieve;
# docs/environments/search_qa.md says how to get both.
# The KL coefficient (0.001) stands in the environment's configuration and is the method's to change. The entropy bonus
# stands here for all methods: add actor_rollout_ref.actor.entropy_coeff=0 for those that learn from the teacher alone.
# By the planner these fit GPUs of 80 GB; `sdar plan <recipe> --instance <type>` says what to change for others.
# Any further argument is a Hydra override and wins, e.g. method=grpo for the baseline without teacher and skills.
set -euo pipefail

# Rows of a mini-batch are ppo_mini_batch_size x rollout.n = 256. Micro-batches are cut by tokens: they change memory
# and speed, never the gradient. A teacher prompt is the student's (up to 4096 tokens) with 1.2 k tokens of skills.
exec "${PYTHON:-python}" -m sdar_verl.train \
    env=search_qa \
    env.search_qa.max_steps=4 \
    env.search_qa.history_length=4 \
    env.search_qa.topk=3 \
    env.search_qa.success_reward=1.0 \
    env.invalid_action_penalty=0.01 \
    sdar.rows=step \
    sdar.panel.size=512 \
    sdar.teacher.max_prompt_length=6144 \
    data.train_batch_size=128 \
    data.max_prompt_length=4096 \
    data.max_response_length=512 \
    algorithm.adv_estimator=grpo \
    algorithm.use_kl_in_reward=false \
    actor_rollout_ref.actor.optim.lr=1e-6 \
    actor_rollout_ref.actor.optim.lr_warmup_steps_ratio=0.1 \
    actor_rollout_ref.actor.ppo_mini_batch_size=32 \
    actor_rollout_ref.actor.use_dynamic_bsz=true \
    actor_rollout_ref.actor.ppo_max_token_len_per_gpu=16384 \
    actor_rollout_ref.actor.shuffle=true \
    actor_rollout_ref.actor.clip_ratio_low=0.2 \
    actor_rollout_ref.actor.clip_ratio_high=0.2 \
    actor_rollout_ref.actor.entropy_coeff=0.001 \
    actor_rollout_ref.rollout.n=8 \
    actor_rollout_ref.rollout.temperature=1.0 \
    actor_rollout_ref.rollout.tensor_model_parallel_size=1 \
    actor_rollout_ref.rollout.gpu_memory_utilization=0.5 \
    actor_rollout_ref.rollout.val_kwargs.do_sample=false \
    actor_rollout_ref.rollout.val_kwargs.temperature=0 \
    trainer.nnodes=1 \
    trainer.n_gpus_per_node=4 \
    trainer.total_training_steps=150 \
    trainer.total_epochs=150 \
    trainer.test_freq=150 \
    trainer.save_freq=10 \
    "$@"
