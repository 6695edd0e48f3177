"""A teacher behind HTTP: vLLM's OpenAI-compatible servers score given token ids. Knows neither verl nor Ray."""

from sdar_verl.teacher.remote.client import Counts, Patience, RemoteTeacher
from sdar_verl.teacher.remote.fingerprint import FILE as FINGERPRINT_FILE
from sdar_verl.teacher.remote.fingerprint import Fingerprint, fingerprint_of
from sdar_verl.teacher.remote.protocol import ScoreRow

__all__ = ["FINGERPRINT_FILE", "Counts", "Fingerprint", "Patience", "RemoteTeacher", "ScoreRow", "fingerprint_of"]
