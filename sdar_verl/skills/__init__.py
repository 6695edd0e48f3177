"""Skills: the privileged texts that the teacher reads, where they are kept, and how they are chosen."""

from sdar_verl.skills.errors import MissingSkillError, SkillError
from sdar_verl.skills.retrievers import Retriever, SkillQuery
from sdar_verl.skills.shipped import open_store, shipped_path, shipped_sets
from sdar_verl.skills.skill import Skill
from sdar_verl.skills.store import DirectoryStore, MemoryStore, SkillStore

__all__ = [
    "DirectoryStore",
    "MemoryStore",
    "MissingSkillError",
    "Retriever",
    "Skill",
    "SkillError",
    "SkillQuery",
    "SkillStore",
    "open_store",
    "shipped_path",
    "shipped_sets",
]
