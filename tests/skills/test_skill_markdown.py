import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdar_verl.skills import Skill, SkillError
from sdar_verl.skills.markdown import KEYS, format_skill, parse_skill

FRONT = {"id": "a/b", "env": "alfworld", "task_type": "look", "version": "1", "provenance": "by hand"}


def source(text="take it", **changes):
    fields = {key: value for key, value in (FRONT | changes).items() if value is not None}
    return "---\n" + "".join(f"{key}: {value}\n" for key, value in fields.items()) + f"---\n{text}\n"


def test_a_file_is_read():
    assert parse_skill(source()) == Skill("a/b", "take it", "alfworld", "look", 1, "by hand")


def test_windows_line_ends_and_blank_lines_are_read_alike():
    assert parse_skill(source(text="\n\na\nb  \n\n").replace("\n", "\r\n")) == parse_skill(source(text="a\nb"))


def test_a_rule_inside_the_text_stays_in_the_text():
    assert parse_skill(source(text="a\n---\nb")).text == "a\n---\nb"


def test_null_marks_a_general_skill_and_quoted_null_does_not():
    assert parse_skill(source(task_type="null")).task_type is None
    assert parse_skill(source(task_type='"null"')).task_type == "null"


def test_yaml_words_stay_words():
    skill = parse_skill(source(env="on", task_type="yes", provenance="2026-01-01"))
    assert (skill.env, skill.task_type, skill.provenance) == ("on", "yes", "2026-01-01")


@pytest.mark.parametrize("key", KEYS)
def test_each_missing_key_is_named(key):
    with pytest.raises(SkillError, match=f"missing: {key}"):
        parse_skill(source(**{key: None}))


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("", "no front matter"),
        ("just text", "no front matter"),
        ("---\nid: a\n", "no front matter"),
        (source(extra="1"), "unknown: 'extra'"),
        (source(task_type=""), "task_type is empty"),
        (source(version="1.0"), "version"),
        (source(version="0"), "version"),
        (source(version="-1"), "version"),
        (source(version="9" * 5000), "version"),
        (source(text=""), "text is empty"),
        (source(provenance=""), "provenance"),
        (source().replace("id: a/b", "id: a/b\nid: c"), "'id' twice"),
        (source(id="[1]"), "plain 'key: value'"),
        (source(id="{a: b}"), "plain 'key: value'"),
        (source(id="!!python/object:os.system x"), "plain 'key: value'"),
        (source(id="&x a", env="*x"), "plain 'key: value'"),
        (source(provenance="'unclosed"), "not valid YAML"),
        (source(provenance='"\\UFFFFFFFF"'), "not valid YAML"),
        (source(provenance="a: b: c"), "line 5"),
        (source(provenance="[" * 5000), "plain 'key: value'"),
        ("---\n- a\n---\nx", "plain 'key: value'"),
        ("---\n---\nx", "plain 'key: value'"),
    ],
)
def test_broken_files_say_what_is_wrong(broken, says):
    with pytest.raises(SkillError) as error:
        parse_skill(broken)
    assert says in str(error.value)


@given(st.text())
def test_any_text_is_a_skill_or_a_skill_error(text):
    try:
        parse_skill(text)
    except SkillError:
        pass


YAML_NOISE = st.text(
    alphabet=string.ascii_letters + string.digits + " \t\n:#-[]{},&*!|>'\"%@`\\?~\x85\u2028\ufeff\x00", max_size=60
)


@given(YAML_NOISE, st.sampled_from(KEYS))
def test_any_front_matter_value_is_read_or_refused(noise, key):
    try:
        skill = parse_skill(source(**{key: noise}))
    except SkillError:
        return
    assert isinstance(skill, Skill)


@given(YAML_NOISE)
def test_any_front_matter_is_read_or_refused(noise):
    with pytest.raises(SkillError):  # the noise holds no five keys
        parse_skill(f"---\n{noise}\n---\ntext")


names = st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True)


@given(
    id=names,
    env=st.one_of(names, st.sampled_from(["null", "on", "1e3", "0x1f"])),
    task_type=st.one_of(st.none(), names, st.sampled_from(["null", "true", "12"])),
    version=st.integers(1, 999_999_999),
    provenance=st.text(min_size=1),
    text=st.text(min_size=1),
)
def test_what_is_written_is_read_back(id, env, task_type, version, provenance, text):
    try:
        skill = Skill(id, text, env, task_type, version, provenance)
    except SkillError:
        return
    assert parse_skill(format_skill(skill)) == skill
