"""A run keeps the skills that it began with, whatever becomes of their store."""

from __future__ import annotations

import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from sdar_verl.manifest import ManifestError, write_manifest
from sdar_verl.run_skills import first_skills, pinned_skills
from sdar_verl.skills import MissingSkillError, Skill, SkillError, open_store
from sdar_verl.skills.markdown import format_skill
from sdar_verl.skills.pins import FOLDER, keep


def skill(id, text="do it", version=1):
    return Skill(id, text, "alfworld", None, version, "test")


SET = [skill("a/one"), skill("a/two"), skill("a.two")]


def write(folder, skills):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, one in enumerate(skills):
        (folder / f"{number}.md").write_text(format_skill(one))
    return f"{folder}/"


def settings(tmp_path, store):
    return SimpleNamespace(
        run_dir=str(tmp_path / "run"), env=SimpleNamespace(name="alfworld"), skills=SimpleNamespace(store=str(store))
    )


def begin(chosen, keeping=True):
    """What `prepare` writes down about the skills of a fresh run."""
    skills = first_skills(chosen).all()
    if keeping:
        keep(chosen.run_dir, skills)
    pins = [{"id": s.id, "version": s.version, "hash": s.content_hash} for s in skills]
    write_manifest(chosen.run_dir, {"skills": pins, "config": {"sdar": {"skills": {"store": chosen.skills.store}}}})
    return skills


def test_a_run_goes_on_with_its_own_copy(tmp_path):
    chosen = settings(tmp_path, write(tmp_path / "mine", SET))
    began = begin(chosen)
    write(tmp_path / "mine", [skill("a/one", "something else", 2)])
    assert pinned_skills(chosen).all() == began
    shutil.rmtree(tmp_path / "mine")
    assert pinned_skills(chosen).all() == began


def test_a_fresh_start_replaces_the_copy(tmp_path):
    chosen = settings(tmp_path, write(tmp_path / "mine", SET))
    begin(chosen)
    write(tmp_path / "mine", [skill("b")])
    began = begin(chosen)
    assert pinned_skills(chosen).all() == began == (skill("b"),)


@pytest.mark.parametrize("harm", ["edit", "remove", "add", "break"])
def test_a_damaged_copy_is_refused(tmp_path, harm):
    chosen = settings(tmp_path, write(tmp_path / "mine", SET))
    begin(chosen)
    file = sorted((tmp_path / "run" / FOLDER).glob("*.md"))[0]
    if harm == "remove":
        file.unlink()
    elif harm == "add":
        (file.parent / "more.md").write_text(format_skill(skill("more")))
    else:
        file.write_text(file.read_text().replace("do it", "do harm") if harm == "edit" else "")
    with pytest.raises(SkillError, match="cannot go on with the skills that it began with.*copy is damaged .delete"):
        pinned_skills(chosen)
    shutil.rmtree(file.parent)
    assert pinned_skills(chosen).all() == open_store(chosen.skills.store).all()


def test_without_a_copy_a_folder_must_hold_the_same(tmp_path):
    chosen = settings(tmp_path, write(tmp_path / "mine", SET))
    began = begin(chosen, keeping=False)
    assert pinned_skills(chosen).all() == began
    for now, error, said in (
        (SET[:2], MissingSkillError, "no longer holds a.two version 1"),
        ([*SET[:2], replace(SET[2], version=2)], MissingSkillError, "no longer holds a.two version 1"),
        ([*SET[:2], replace(SET[2], text="other")], SkillError, "the content of a.two version 1 is not what was"),
        ([*SET, skill("new")], SkillError, "also holds new version 1"),
    ):
        write(tmp_path / "mine", now)
        with pytest.raises(SkillError, match=f"cannot go on .*{said}") as caught:
            pinned_skills(chosen)
        assert isinstance(caught.value.__cause__, error)


def test_another_store_counts_only_if_it_holds_the_same(tmp_path):
    chosen = settings(tmp_path, write(tmp_path / "mine", SET))
    began = begin(chosen)
    chosen.skills.store = write(tmp_path / "moved", SET)
    assert pinned_skills(chosen).all() == began
    chosen.skills.store = "alfworld_tiny"
    with pytest.raises(SkillError, match="cannot go on with the skills that it began with"):
        pinned_skills(chosen)


def test_without_a_manifest_nothing_is_pinned(tmp_path):
    chosen = settings(tmp_path, write(tmp_path / "mine", SET))
    with pytest.raises(ManifestError, match="manifest.json"):
        pinned_skills(chosen)
    write_manifest(chosen.run_dir, {"skills": [{"id": "a"}]})
    with pytest.raises(SkillError, match="does not name its skills"):
        pinned_skills(chosen)
