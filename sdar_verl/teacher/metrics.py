"""Numbers about a batch of privileged prompts."""

from __future__ import annotations

from collections.abc import Sequence

from sdar_verl.teacher.context import TeacherPrompt


def prompt_metrics(prompts: Sequence[TeacherPrompt]) -> dict[str, float]:
    """Lengths (tokens) and losses of skills over real rows; leave rows out that only pad the batch.

    Returns:
        Mean and largest prompt length, skills kept per row, the share of rows that lost a skill to the length limit;
        empty when `prompts` is.
    """
    if not prompts:
        return {}
    lengths = [len(prompt.ids) for prompt in prompts]
    return {
        "sdar/teacher_prompt_tokens/mean": sum(lengths) / len(prompts),
        "sdar/teacher_prompt_tokens/max": float(max(lengths)),
        "sdar/teacher_skills_kept": sum(len(prompt.kept) for prompt in prompts) / len(prompts),
        "sdar/teacher_shrunk_share": sum(bool(prompt.dropped) for prompt in prompts) / len(prompts),
    }
