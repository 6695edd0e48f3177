import pytest

from sdar_verl.skills import DirectoryStore, MemoryStore, Skill, SkillError, SkillStore, open_store, shipped_path
from sdar_verl.skills.markdown import format_skill


def skill(id, task_type=None, text="do it", env="alfworld", version=1):
    return Skill(id, text, env, task_type, version, "test")


def write(folder, *skills):
    folder.mkdir(parents=True, exist_ok=True)
    for one in skills:
        (folder / f"{one.id.replace('/', '_')}.md").write_text(format_skill(one), encoding="utf-8")
    return folder


def test_a_folder_gives_general_skills_first_then_by_type_and_id(tmp_path):
    store = DirectoryStore(write(tmp_path, skill("z"), skill("b", "look"), skill("c", "heat"), skill("a", "look")))
    assert [s.id for s in store.all()] == ["z", "c", "a", "b"]
    assert isinstance(store, SkillStore)
    assert store.get("c").task_type == "heat"
    assert len(store) == 4


def test_unknown_id_names_the_known_ones(tmp_path):
    with pytest.raises(SkillError, match="known: a, b"):
        MemoryStore([skill("b"), skill("a")]).get("c")


def test_every_broken_file_is_listed_at_once(tmp_path):
    write(tmp_path, skill("good", "look"), skill("odd", "cook"), skill("shop", "look", env="webshop"))
    (tmp_path / "bytes.md").write_bytes(b"\xff\xfe")
    (tmp_path / "bare.md").write_text("no front matter")
    (tmp_path / "empty.md").write_text(format_skill(skill("e", "look")).replace("do it", ""))
    (tmp_path / "twin.md").write_text(format_skill(skill("good", "look", text="other")))
    write(tmp_path / "deeper", skill("deep", "look"))
    with pytest.raises(SkillError) as error:
        DirectoryStore(tmp_path, env="alfworld", task_types=["look", "heat"])
    message = str(error.value)
    for part in (
        "7 to correct",
        "bytes.md: is not UTF-8",
        "bare.md: no front matter",
        "empty.md: skill 'e': text is empty",
        "twin.md: id 'good' is taken by good.md",
        "deeper/deep.md: lies in a sub-folder",
        "odd.md: unknown task type 'cook'; known: heat, look",
        "shop.md: is for env 'webshop'",
    ):
        assert part in message


def test_a_missing_or_empty_folder_is_refused(tmp_path):
    with pytest.raises(SkillError, match="no skill folder"):
        DirectoryStore(tmp_path / "none")
    with pytest.raises(SkillError, match=r"no \*.md files"):
        DirectoryStore(tmp_path)


def test_editor_leftovers_and_byte_order_marks_do_no_harm(tmp_path):
    write(tmp_path, skill("a"))
    (tmp_path / ".#a.md").write_text("lock")
    (tmp_path / "b.md").write_bytes(b"\xef\xbb\xbf" + format_skill(skill("b")).encode())
    assert [s.id for s in DirectoryStore(tmp_path).all()] == ["a", "b"]


def test_a_store_in_memory_checks_the_same_things():
    with pytest.raises(SkillError, match="taken by"):
        MemoryStore([skill("a"), skill("a", text="other")])
    with pytest.raises(SkillError, match="unknown task type"):
        MemoryStore([skill("a", "cook")], env="alfworld", task_types=["look"])
    with pytest.raises(SkillError, match="no skills"):
        MemoryStore([])


def test_the_store_hash_tells_sets_apart_and_ignores_order():
    one = [skill("a"), skill("b", "look")]
    base = MemoryStore(one).content_hash
    assert MemoryStore(one[::-1]).content_hash == base
    for other in ([skill("a")], [skill("a", version=2), one[1]], [skill("c"), one[1]], [skill("a", text="x"), one[1]]):
        assert MemoryStore(other).content_hash != base


def test_sets_open_by_name_or_path(tmp_path):
    assert open_store("alfworld").content_hash == open_store(shipped_path("alfworld")).content_hash
    assert len(open_store(f"{write(tmp_path, skill('a'))}/")) == 1
    with pytest.raises(SkillError, match=r"known: alfworld, alfworld_tiny.*\./mine"):
        open_store("mine")
    with pytest.raises(SkillError, match="known: alfworld"):
        shipped_path("../alfworld")
