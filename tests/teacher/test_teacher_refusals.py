"""What the builder refuses before a run starts, or before a row is scored."""

import pytest

from sdar_verl.skills import Skill
from sdar_verl.teacher import TeacherContextError, TeacherPromptBuilder

USER = [{"role": "user", "content": "go"}]
HEAT = Skill("heat", "Use the microwave.", "alfworld", "heat", 1, "test")


def test_unknown_names_list_the_known_ones(plain):
    with pytest.raises(TeacherContextError, match="known: before_template, system, user_prefix"):
        TeacherPromptBuilder(plain, "assistant")
    with pytest.raises(TeacherContextError, match="known: raise, shrink"):
        TeacherPromptBuilder(plain, overflow="cut")


@pytest.mark.parametrize("length", [0, -1, 1.5, True, None])
def test_a_bad_length_is_refused(plain, length):
    with pytest.raises(TeacherContextError, match="max_prompt_length"):
        TeacherPromptBuilder(plain, max_prompt_length=length)


@pytest.mark.parametrize("key", ["truncation", "max_length", "tokenize", "add_generation_prompt", "return_dict"])
def test_template_kwargs_that_cut_or_change_the_result_are_refused(plain, key):
    with pytest.raises(TeacherContextError, match=key):
        TeacherPromptBuilder(plain, chat_template_kwargs={key: True})


def test_a_tokenizer_without_chat_template_is_refused(make_tokenizer):
    tokenizer = make_tokenizer("plain")
    tokenizer.chat_template = None
    with pytest.raises(TeacherContextError, match="no chat template"):
        TeacherPromptBuilder(tokenizer)


@pytest.mark.parametrize("template", ["no_system", "drops_system"])
def test_a_template_without_system_role_points_to_user_prefix(make_tokenizer, template):
    tokenizer = make_tokenizer(template)
    with pytest.raises(TeacherContextError, match="user_prefix"):
        TeacherPromptBuilder(tokenizer, "system")
    prompt = TeacherPromptBuilder(tokenizer, "user_prefix").build(USER, [HEAT])
    assert HEAT.text in tokenizer.decode(prompt.ids)


def test_user_prefix_needs_a_user_message(plain):
    with pytest.raises(TeacherContextError, match="no user message"):
        TeacherPromptBuilder(plain, "user_prefix").build([{"role": "assistant", "content": "hi"}], [HEAT])


@pytest.mark.parametrize("placement", ["system", "user_prefix"])
def test_content_that_is_not_text_is_refused(plain, placement):
    role = "system" if placement == "system" else "user"
    messages = [{"role": role, "content": [{"type": "text", "text": "go"}]}, *USER]
    with pytest.raises(TeacherContextError, match=f"the {role} message holds list"):
        TeacherPromptBuilder(plain, placement).build(messages, [HEAT])


def test_a_template_that_refuses_the_conversation_says_so(make_tokenizer):
    builder = TeacherPromptBuilder(make_tokenizer("no_system"), "user_prefix")
    with pytest.raises(TeacherContextError, match="refused the conversation: no system role here"):
        builder.build([{"role": "system", "content": "x"}, *USER], [])
