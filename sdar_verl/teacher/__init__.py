"""The teacher's view: the student's conversation with privileged text put into it."""

from sdar_verl.teacher.context import TeacherPrompt, TeacherPromptBuilder
from sdar_verl.teacher.errors import TeacherContextError, TeacherPromptTooLong

__all__ = ["TeacherContextError", "TeacherPrompt", "TeacherPromptBuilder", "TeacherPromptTooLong"]
