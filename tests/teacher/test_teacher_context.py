import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from sdar_verl.skills import Skill, SkillError, SkillQuery, open_store, retrievers
from sdar_verl.teacher import TeacherContextError, TeacherPromptBuilder, TeacherPromptTooLong
from sdar_verl.teacher.metrics import prompt_metrics

USER = [{"role": "user", "content": "Your task is to: put a hot apple in fridge. What is your next action?"}]
CHAT = [
    {"role": "system", "content": "You act in a house."},
    {"role": "user", "content": "You see a fridge 1."},
    {"role": "assistant", "content": "<think>hm</think><action>go to fridge 1</action>"},
    {"role": "user", "content": "You arrive at fridge 1."},
]
PLACEMENTS = ["system", "user_prefix", "before_template"]
GENERAL_1 = Skill("g1", "Look in each place once.", "alfworld", None, 1, "test")
GENERAL_2 = Skill("g2", "Open what is closed.", "alfworld", None, 1, "test")
HEAT = Skill("heat", "Take the apple to the microwave.", "alfworld", "heat", 1, "test")
COOL = Skill("cool", "Take the apple to the fridge.", "alfworld", "cool", 1, "test")


def student_ids(tokenizer, messages, **kwargs):
    out = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, **kwargs)
    return list(out["input_ids"]) if hasattr(out, "keys") else list(out)


def text_of(tokenizer, prompt):
    return tokenizer.decode(prompt.ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def skill(text):
    return Skill("s", text, "alfworld", "heat", 1, "test")


@pytest.mark.parametrize("template", ["plain", "default"])
@pytest.mark.parametrize("messages", [USER, CHAT], ids=["one-turn", "many-turns"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kwargs", [{}, {"enable_thinking": False}, {"enable_thinking": True}], ids=str)
def test_without_skills_the_ids_are_the_students(make_tokenizer, template, messages, placement, kwargs):
    tokenizer = make_tokenizer(template)
    prompt = TeacherPromptBuilder(tokenizer, placement, 4096, kwargs).build(messages, [])
    assert prompt.ids == student_ids(tokenizer, messages, **kwargs)
    assert (prompt.kept, prompt.dropped) == ([], [])


def test_system_placement_writes_a_system_turn(plain):
    prompt = TeacherPromptBuilder(plain, "system").build(USER, [GENERAL_1, HEAT])
    assert text_of(plain, prompt) == (
        "<|im_start|>system\nSkills for this task:\n\nLook in each place once.\n\n"
        "Take the apple to the microwave.<|im_end|>\n"
        f"<|im_start|>user\n{USER[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert prompt.kept == [GENERAL_1, HEAT]


def test_system_placement_keeps_the_templates_own_system_text(with_default):
    prompt = TeacherPromptBuilder(with_default, "system", heading="").build(USER, [HEAT])
    assert text_of(with_default, prompt) == (
        "<|im_start|>system\nYou are a tiny tester.\n\nTake the apple to the microwave.<|im_end|>\n"
        f"<|im_start|>user\n{USER[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("template", ["plain", "default"])
def test_system_placement_extends_the_conversations_own_system_message(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    text = text_of(tokenizer, TeacherPromptBuilder(tokenizer, "system", heading="").build(CHAT, [HEAT]))
    student = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    assert text == student.replace("in a house.", "in a house.\n\nTake the apple to the microwave.")


def test_a_template_that_wraps_every_system_text_is_left_alone(make_tokenizer):
    tokenizer = make_tokenizer("dated")
    text = text_of(tokenizer, TeacherPromptBuilder(tokenizer, "system", heading="").build(USER, [HEAT]))
    assert text.startswith("<|im_start|>system\nToday.\nTake the apple to the microwave.<|im_end|>\n<|im_start|>user\n")


@pytest.mark.parametrize("messages", [USER, CHAT], ids=["one-turn", "many-turns"])
def test_user_prefix_opens_the_first_user_message_only(plain, messages):
    text = text_of(plain, TeacherPromptBuilder(plain, "user_prefix", heading="H").build(messages, [HEAT]))
    student = plain.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    expected = "<|im_start|>user\nH\n\nTake the apple to the microwave.\n\n"
    assert text == student.replace("<|im_start|>user\n", expected, 1)


@pytest.mark.parametrize("messages", [USER, CHAT], ids=["one-turn", "many-turns"])
def test_before_template_leaves_the_students_ids_at_the_end(plain, messages):
    prompt = TeacherPromptBuilder(plain, "before_template", heading="").build(messages, [HEAT])
    own = student_ids(plain, messages)
    assert prompt.ids[-len(own) :] == own
    assert plain.decode(prompt.ids[: -len(own)]) == "Take the apple to the microwave.\n\n"


def test_before_template_adds_no_begin_token(make_tokenizer):
    tokenizer = make_tokenizer("plain")
    number = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        "<|endoftext|> $A", None, [("<|endoftext|>", number)]
    )
    assert tokenizer.encode("a")[0] == number  # the tokenizer does begin texts with it
    prompt = TeacherPromptBuilder(tokenizer, "before_template").build(USER, [HEAT])
    assert number not in prompt.ids


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("template", ["plain", "default"])
def test_template_kwargs_reach_the_teacher(make_tokenizer, template, placement):
    tokenizer = make_tokenizer(template)
    off = TeacherPromptBuilder(tokenizer, placement, 4096, {"enable_thinking": False}).build(USER, [HEAT])
    on = TeacherPromptBuilder(tokenizer, placement, 4096, {"enable_thinking": True}).build(USER, [HEAT])
    assert text_of(tokenizer, off) == text_of(tokenizer, on) + "<think>\n\n</think>\n\n"


def test_the_conversation_is_not_changed(plain):
    for placement in PLACEMENTS:
        messages = [dict(m) for m in CHAT]
        TeacherPromptBuilder(plain, placement).build(messages, [HEAT])
        assert messages == CHAT


ODD = [
    "{} {0} {x!r} {{ {%",
    "$a ${b} $$",
    '{"k": ["v", 1]}',
    "{{ messages }} {% raw %}",
    "%s %d",
    "\\n \\u0041",
    "<b>&amp;",
]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("text", ODD)
def test_braces_dollars_and_json_arrive_letter_by_letter(with_default, placement, text):
    assert text in text_of(with_default, TeacherPromptBuilder(with_default, placement).build(USER, [skill(text)]))


@settings(max_examples=60)
@given(text=st.text(min_size=1), placement=st.sampled_from(PLACEMENTS))
def test_no_text_adds_a_turn_or_goes_missing(with_default, text, placement):
    builder = TeacherPromptBuilder(with_default, placement, 100_000)
    try:
        one = skill(text)
    except SkillError:
        return
    prompt = builder.build(USER, [one])
    assert one.text in text_of(with_default, prompt)
    for special in ("<|im_start|>", "<|im_end|>", "<|endoftext|>"):
        number = with_default.convert_tokens_to_ids(special)
        assert prompt.ids.count(number) == student_ids(with_default, USER).count(number)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_special_token_of_this_tokenizer_is_refused(make_tokenizer, placement):
    tokenizer = make_tokenizer("plain")
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "@@turn@@"]})
    builder = TeacherPromptBuilder(tokenizer, placement)
    with pytest.raises(TeacherContextError, match="skill 's' holds the tokenizer's special token '@@turn@@'"):
        builder.build(USER, [skill("a @@turn@@ b")])
    with pytest.raises(TeacherContextError, match="the heading"):
        TeacherPromptBuilder(tokenizer, placement, heading="@@turn@@")


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_skills_go_one_by_one_in_the_documented_order(plain, placement):
    skills = [GENERAL_1, GENERAL_2, HEAT, COOL]
    order = [COOL, GENERAL_2, GENERAL_1]
    roomy = TeacherPromptBuilder(plain, placement)
    for count in range(len(order) + 1):
        kept = [s for s in skills if s not in order[:count]]
        fits = roomy.build(USER, kept).ids
        prompt = TeacherPromptBuilder(plain, placement, len(fits)).build(USER, skills, task_type="heat")
        assert prompt.ids == fits
        assert prompt.kept == kept
        assert prompt.dropped == order[:count]


def test_without_a_task_type_every_specific_skill_outlives_the_general_ones(plain):
    length = len(TeacherPromptBuilder(plain).build(USER, [HEAT, COOL]).ids)
    prompt = TeacherPromptBuilder(plain, max_prompt_length=length).build(USER, [HEAT, GENERAL_1, COOL, GENERAL_2])
    assert prompt.kept == [HEAT, COOL]
    assert prompt.dropped == [GENERAL_2, GENERAL_1]


def test_a_prompt_that_cannot_fit_raises_with_the_lengths(plain):
    student = len(student_ids(plain, USER))
    one = len(TeacherPromptBuilder(plain).build(USER, [HEAT]).ids)
    with pytest.raises(TeacherPromptTooLong, match=f"{one} tokens with heat and {student} without"):
        TeacherPromptBuilder(plain, max_prompt_length=one - 1).build(USER, [GENERAL_1, HEAT])
    with pytest.raises(TeacherPromptTooLong, match=f"own prompt has {student} tokens"):
        TeacherPromptBuilder(plain, max_prompt_length=student - 1).build(USER, [])
    assert len(TeacherPromptBuilder(plain, max_prompt_length=student).build(USER, []).ids) == student


def test_overflow_raise_leaves_nothing_out(plain):
    full = len(TeacherPromptBuilder(plain).build(USER, [GENERAL_1, HEAT]).ids)
    assert TeacherPromptBuilder(plain, max_prompt_length=full, overflow="raise").build(USER, [GENERAL_1, HEAT]).kept
    with pytest.raises(TeacherPromptTooLong, match="g1, heat"):
        TeacherPromptBuilder(plain, max_prompt_length=full - 1, overflow="raise").build(USER, [GENERAL_1, HEAT])


@settings(max_examples=60)
@given(st.permutations([GENERAL_1, GENERAL_2, HEAT, COOL]), st.integers(1, 120), st.sampled_from(PLACEMENTS))
def test_a_built_prompt_is_always_whole_and_fits(plain, skills, limit, placement):
    try:
        prompt = TeacherPromptBuilder(plain, placement, limit).build(USER, skills)
    except TeacherPromptTooLong:
        assert min(len(TeacherPromptBuilder(plain, placement).build(USER, [s]).ids) for s in (HEAT, COOL)) > limit or (
            limit
            < len(TeacherPromptBuilder(plain, placement).build(USER, [next(s for s in skills if s.task_type)]).ids)
        )
        return
    assert len(prompt.ids) <= limit
    assert [s for s in skills if s in prompt.kept] == prompt.kept
    assert sorted(s.id for s in prompt.kept + prompt.dropped) == ["cool", "g1", "g2", "heat"]
    text = text_of(plain, prompt)
    assert all(s.text in text for s in prompt.kept)
    assert not any(s.text in text for s in prompt.dropped)


def test_leaving_many_skills_out_builds_few_prompts(plain, monkeypatch):
    skills = [Skill(f"s{n}", f"Rule {n}: " + "look around. " * (n % 5), "alfworld", None, 1, "test") for n in range(40)]
    roomy = TeacherPromptBuilder(plain)
    for keep in (1, 7, 25, 39):
        expected = roomy.build(USER, skills[:keep]).ids
        builder = TeacherPromptBuilder(plain, max_prompt_length=len(expected))
        built, build = [], builder._placement.ids
        monkeypatch.setattr(builder._placement, "ids", lambda *args, b=built, f=build: b.append(1) or f(*args))
        prompt = builder.build(USER, skills)
        assert (prompt.ids, prompt.kept, prompt.dropped) == (expected, skills[:keep], skills[keep:][::-1])
        assert len(built) <= 4


@pytest.mark.parametrize("name", ["alfworld", "alfworld_tiny"])
def test_every_shipped_set_fits_every_placement(with_default, name):
    store = open_store(name)
    for task_type in sorted({s.task_type for s in store.all() if s.task_type}):
        skills = retrievers.make("rules", store).retrieve(SkillQuery("alfworld", task_type, "a/b"))
        for placement in PLACEMENTS:
            prompt = TeacherPromptBuilder(with_default, placement).build(USER, skills, task_type=task_type)
            assert prompt.kept == skills
            assert all(s.text in text_of(with_default, prompt) for s in skills)


def test_metrics_are_plain_numbers(plain):
    roomy = TeacherPromptBuilder(plain)
    long, short = roomy.build(USER, [GENERAL_1, HEAT]), roomy.build(USER, [])
    tight = TeacherPromptBuilder(plain, max_prompt_length=len(long.ids) - 1).build(USER, [GENERAL_1, HEAT])
    lengths = [len(p.ids) for p in (long, short, tight)]
    assert prompt_metrics([long, short, tight]) == {
        "sdar/teacher_prompt_tokens/mean": sum(lengths) / 3,
        "sdar/teacher_prompt_tokens/max": float(len(long.ids)),
        "sdar/teacher_skills_kept": 1.0,
        "sdar/teacher_shrunk_share": 1 / 3,
    }
    assert prompt_metrics([]) == {}
