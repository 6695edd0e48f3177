"""One episode with a scripted model and a scripted environment: every token, mask, reward and record."""

from __future__ import annotations

import asyncio

import pytest
from sdar_envs.base import EnvError, EpisodeView, NoPlace, ParsedAction, PromptFormat, TaskRef

from sdar_verl.agent.conversation import StepConversation, TrajectoryConversation
from sdar_verl.agent.episode import Actor, EpisodeId, Limits, play_episode
from sdar_verl.agent.rows import Generation
from sdar_verl.errors import ConfigError
from sdar_verl.lab.tokenizer import train_tokenizer
from sdar_verl.skills import Skill
from sdar_verl.teacher import TeacherPrompt, TeacherPromptBuilder
from sdar_verl.teacher.templating import prompt_ids

TASK = TaskRef("room/1", "toy", "train")
WIDE = Limits(prompt=200, response=400)
WHO = EpisodeId(step=3, split="train", uid="u", session=1)
SKILLS = [
    Skill(id="general", text="Look around first.", env="toy", task_type=None, version=1, provenance="test"),
    Skill(id="toy-one", text="Say win to win.", env="toy", task_type="toy", version=1, provenance="test"),
]


class Format(PromptFormat):
    """The last observation and how many turns were before; an answer that begins with ``bad`` is invalid."""

    def render(self, view: EpisodeView) -> str:
        return f"{view.task_description}: {view.observation} after {len(view.history)}"

    def parse(self, text, admissible_actions):
        return ParsedAction(text.strip(), not text.startswith("bad"))


class Room:
    """Wins on ``win``, raises on ``break``, is truncated after `limit` steps; knows what it was told."""

    def __init__(self, limit: int = 9, won_at_reset: bool = False, observation: str = "a room"):
        self.actions, self.limit, self.won, self.observation = [], limit, won_at_reset, observation

    def _info(self):
        return {"task_description": "task", "admissible_actions": ["win"], "won": self.won}

    async def reset(self, task, seed=None):
        assert task == TASK
        return self.observation, self._info()

    async def step(self, action):
        if action == "break":
            raise EnvError("the worker crashed")
        self.actions.append(action)
        self.won = action == "win"
        truncated = not self.won and len(self.actions) >= self.limit
        return f"you said {action}", 10.0 * self.won, self.won, truncated, self._info()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(["task: a room after 0 you said go look win bad"] * 20, 330)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def templated(tokenizer, messages, generation=True):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    return ids(tokenizer, text)


def play(tokenizer, answers, rows="step", room=None, limits=WIDE, skills=SKILLS, teacher=True, asked=None, prompt=None):
    """Play with the model saying `answers` (texts, or token ids) one after the other."""
    script = iter(answers)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")

    async def generate(prompt, max_tokens):
        if asked is not None:
            asked.append((list(prompt), max_tokens))
        answer = next(script)
        tokens = [*ids(tokenizer, answer), end] if isinstance(answer, str) else answer
        return Generation(tokens, [-0.5] * len(tokens), weights_step=7)

    def extend(before, after, so_far):
        (new,) = after[len(before) :]
        assert after[: len(before)] == before
        return [*so_far, *ids(tokenizer, "\n"), *templated(tokenizer, [new])]

    def conversation():
        plain = prompt or (lambda messages: TeacherPrompt(prompt_ids(tokenizer, messages, {}), [], []))
        if rows == "step":
            return StepConversation(plain, Format())
        return TrajectoryConversation(plain, Format(), extend)

    actor = Actor(
        tokenizer=tokenizer,
        format=Format(),
        conversation=conversation,
        teacher=TeacherPromptBuilder(tokenizer, "system", 300, {}) if teacher else None,
        limits=limits,
        invalid_action_penalty=0.1,
    )
    return asyncio.run(play_episode(actor, room or Room(), TASK, list(skills), WHO, generate))


def test_step_rows_hold_one_turn_each_token_for_token(tokenizer):
    asked = []
    played = play(tokenizer, ["go", "win"], asked=asked)
    said = ("task: a room after 0", "task: you said go after 1")
    says = [{"role": "user", "content": text} for text in said]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for row, message, answer, (prompt, room_left) in zip(played.rows, says, ["go", "win"], asked, strict=True):
        assert row.prompt_ids == prompt == templated(tokenizer, [message])
        assert row.response_ids == [*ids(tokenizer, answer), end]
        assert row.response_mask == [1] * len(row.response_ids)
        assert row.log_probs == [-0.5] * len(row.response_ids)
        assert row.weights_steps == [7] and room_left == 400
    assert played.record.won and played.record.reward == 10.0 and played.record.failed is None


def test_an_environments_own_score_is_recorded(tokenizer):
    class Shop(Room):
        def _info(self):
            return {**super()._info(), "score": 0.25 * len(self.actions)}

    assert play(tokenizer, ["go", "win"], room=Shop()).record.score == 0.5
    assert play(tokenizer, ["go", "win"]).record.score is None


def test_a_trajectory_row_is_the_whole_conversation_with_observations_masked(tokenizer):
    played = play(tokenizer, ["go", "look", "win"], rows="trajectory")
    (row,) = played.rows
    messages = [
        {"role": "user", "content": "task: a room after 0"},
        {"role": "assistant", "content": "go"},
        {"role": "user", "content": "task: you said go after 0"},  # what was said before is in the context already
        {"role": "assistant", "content": "look"},
        {"role": "user", "content": "task: you said look after 0"},
        {"role": "assistant", "content": "win"},
    ]
    whole = templated(tokenizer, messages, generation=False)
    assert row.prompt_ids == templated(tokenizer, messages[:1])
    assert row.prompt_ids + row.response_ids == whole[: -len(ids(tokenizer, "\n"))]
    sampled = [token for token, mask in zip(row.response_ids, row.response_mask, strict=True) if mask]
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert sampled == [t for answer in ("go", "look", "win") for t in [*ids(tokenizer, answer), end]]
    assert [lp for lp, mask in zip(row.log_probs, row.response_mask, strict=True) if mask] == [-0.5] * len(sampled)
    assert {lp for lp, mask in zip(row.log_probs, row.response_mask, strict=True) if not mask} == {0.0}
    assert row.response_mask[-1] == 1, "the observation after the last answer is nobody's to learn"
    assert len(played.record.turns) == 3


@pytest.mark.parametrize("rows", ["step", "trajectory"])
def test_sampled_ids_stay_as_they_were_sampled(tokenizer, rows):
    """The model may spell a word in other tokens than the tokenizer would; learning needs the ones it sampled."""
    spelled = [token for letter in "win" for token in ids(tokenizer, letter)]
    assert spelled != ids(tokenizer, "win")
    odd = [*spelled, tokenizer.convert_tokens_to_ids("<|im_end|>")]
    played = play(tokenizer, ["go", odd], rows=rows)
    assert played.record.won
    assert played.rows[-1].response_ids[-len(odd) :] == odd


@pytest.mark.parametrize("rows", ["step", "trajectory"])
def test_the_teacher_sees_skills_before_the_same_answer(tokenizer, rows):
    played = play(tokenizer, ["go", "win"], rows=rows)
    for row in played.rows:
        text = tokenizer.decode(row.teacher_prompt_ids)
        student = tokenizer.decode(row.prompt_ids)
        assert all(skill.text in text and skill.text not in student for skill in SKILLS)
        assert text.endswith(student), "the student's own prompt must stand unchanged after the privileged text"
        assert row.skills == ["general", "toy-one"] and row.task_skill and not row.shrunk
    plain = play(tokenizer, ["go", "win"], rows=rows, skills=[])
    for row in plain.rows:
        assert row.teacher_prompt_ids == row.prompt_ids and not row.task_skill
    assert played.record.skills == ["general", "toy-one"]
    assert all(turn.teacher_prompt_tokens for turn in played.record.turns)
    without = play(tokenizer, ["win"], rows=rows, teacher=False)
    assert without.rows[0].teacher_prompt_ids is None and without.record.turns[0].teacher_prompt_tokens is None


@pytest.mark.parametrize("rows", ["step", "trajectory"])
def test_skills_in_the_students_prompt_are_what_it_plays_and_learns_from(tokenizer, rows):
    builder = TeacherPromptBuilder(tokenizer, "system", 300, {})
    asked = []
    played = play(
        tokenizer, ["go", "win"], rows=rows, teacher=False, asked=asked,
        prompt=lambda messages: builder.build(messages, SKILLS),
    )  # fmt: skip
    assert played.record.won
    assert played.rows[0].prompt_ids == asked[0][0]
    assert all(row.skills == ["general", "toy-one"] and not row.shrunk for row in played.rows)
    for prompt, _ in asked:
        text = tokenizer.decode(prompt)
        assert all(text.count(skill.text) == 1 for skill in SKILLS)
    assert "you said go" in tokenizer.decode(asked[1][0])


@pytest.mark.parametrize("rows", ["step", "trajectory"])
def test_skills_that_can_never_fit_stop_the_run(tokenizer, rows):
    builder = TeacherPromptBuilder(tokenizer, "system", 20, {})
    with pytest.raises(ConfigError, match="the privileged prompt has"):
        play(tokenizer, ["go"], rows=rows, teacher=False, prompt=lambda messages: builder.build(messages, SKILLS))


def test_each_invalid_action_costs_its_penalty_and_is_played(tokenizer):
    room = Room()
    played = play(tokenizer, ["bad one", "bad two", "win"], room=room)
    assert room.actions == ["bad one", "bad two", "win"]
    assert played.record.reward == pytest.approx(10.0 - 0.2)
    assert [turn.valid for turn in played.record.turns] == [False, False, True]
    assert [turn.observation for turn in played.record.turns] == ["a room", "you said bad one", "you said bad two"]


def test_running_out_of_steps_is_a_loss_not_a_failure(tokenizer):
    played = play(tokenizer, ["go", "go"], room=Room(limit=2))
    assert (played.record.won, played.record.reward, played.record.failed) == (False, 0.0, None)
    assert len(played.rows) == 2


@pytest.mark.parametrize(("rows", "left"), [("step", 2), ("trajectory", 1)])
def test_a_broken_environment_ends_its_episode_and_says_so(tokenizer, rows, left):
    played = play(tokenizer, ["bad start", "break"], rows=rows)
    assert played.broken and not play(tokenizer, ["win"], rows=rows).broken
    assert played.record.failed == "the worker crashed" and not played.record.won
    assert played.record.reward == pytest.approx(-0.1)
    assert len(played.rows) == left and len(played.record.turns) == 2


def test_environments_that_are_all_gone_are_no_failure_of_an_episode(tokenizer):
    """It would be counted as lost, and training would go on without any."""

    class Gone(Room):
        async def reset(self, *args, **kwargs):
            raise NoPlace("the environment pool is closed")

    with pytest.raises(NoPlace):
        play(tokenizer, ["go"], room=Gone())


def test_a_first_prompt_that_cannot_fit_is_an_error(tokenizer):
    with pytest.raises(ConfigError, match=r"task room/1: a prompt of \d+ tokens exceeds data.max_prompt_length=5"):
        play(tokenizer, [], limits=Limits(5, 400))


def test_a_later_prompt_that_does_not_fit_ends_the_episode(tokenizer):
    longer = "go " * 40
    limit = len(templated(tokenizer, [{"role": "user", "content": "task: a room after 0"}])) + 5
    asked = []
    played = play(tokenizer, [longer, "win"], limits=Limits(limit, 400), asked=asked)
    assert len(played.rows) == len(asked) == 1 and not played.record.won and not played.broken
    assert "data.max_prompt_length" in played.record.failed


def test_a_trajectory_never_outgrows_its_response_length(tokenizer):
    asked = []
    played = play(tokenizer, ["go"] * 20, rows="trajectory", limits=Limits(200, 60), room=Room(limit=50), asked=asked)
    (row,) = played.rows
    assert len(row.response_ids) <= 60 and "data.max_response_length=60" in played.record.failed
    budget = [60 - (len(prompt) - len(row.prompt_ids)) for prompt, _ in asked]
    assert [left for _, left in asked] == budget and min(budget) > 0
    assert row.response_mask[-1] == 1


def test_answers_are_limited_by_the_turn(tokenizer):
    asked = []
    play(tokenizer, ["go", "win"], rows="trajectory", limits=Limits(200, 400, turn=7), asked=asked)
    assert [left for _, left in asked] == [7, 7]


def test_a_task_that_is_won_before_it_begins_has_no_rows(tokenizer):
    played = play(tokenizer, [], room=Room(won_at_reset=True))
    assert played.rows == [] and played.record.turns == []
