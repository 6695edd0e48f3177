"""Words as Lucene's English analyser makes them, so that searches rank as in the original shop.

Unicode word boundaries (the `regex` package), possessives off, lower case, Lucene's stop words, Porter's stemmer
(PyStemmer) with the two changes and the length rule of Porter's own later program, which Lucene ports.
"""

from __future__ import annotations

import re
from functools import lru_cache

import regex
import Stemmer

STOP_WORDS = frozenset(
    "a an and are as at be but by for if in into is it no not of on or such that the their then there these they this "
    "to was will with".split()
)
LONGEST_TOKEN = 255  # characters; the tokenizer cuts longer words into pieces
_ASCII = re.compile(
    # one word by the Unicode rules, restricted to ASCII: letters join over ' . : and digits over ' . , ;
    r"\w+(?:(?:(?<=[A-Za-z])['.:](?=[A-Za-z])|(?<=[0-9])['.,;](?=[0-9]))\w+)*"
)
_PICTOGRAPHS = (  # Extended_Pictographic of Emoji 11, which Lucene's tables hold; later versions took some away
    r"\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf\u23e9-\u23f3\u23f8-\u23fa"
    r"\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714"
    r"\u2716\u271d\u2721\u2728\u2733\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0"
    r"\u27bf\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299\U0001f000-\U0001f0ff"
    r"\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171\U0001f17e\U0001f17f\U0001f18e\U0001f191-\U0001f19a"
    r"\U0001f1ad-\U0001f1e5\U0001f201-\U0001f20f\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f"
    r"\U0001f249-\U0001f3fa\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff\U0001f774-\U0001f77f"
    r"\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f\U0001f848-\U0001f84f\U0001f85a-\U0001f85f\U0001f888-\U0001f88f"
    r"\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a\U0001f93c-\U0001f945\U0001f947-\U0001faff\U0001fc00-\U0001fffd"
)
_UNICODE = regex.compile(
    # Lucene's tokenizer rules: Unicode's word-break classes, emoji sequences, runs of South East Asian scripts, single
    # ideographs and hiragana. As in Lucene,
    # the longest match wins.
    r"""
    (?(DEFINE)(?P<x>[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+))
    (?(DEFINE)(?P<y>[[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]--[\ufe0e\ufe0f]]*+))
    (?(DEFINE)(?P<glue>(?:\p{WB=ExtendNumLet}(?&x))*+))
    (?(DEFINE)(?P<letter>[\p{WB=ALetter}\p{WB=Hebrew_Letter}](?&x)))
    (?(DEFINE)(?P<digit>\p{WB=Numeric}(?&x)))
    (?(DEFINE)(?P<hebrew>\p{WB=Hebrew_Letter}(?&x)))
    (?(DEFINE)(?P<letters>(?&letter)(?:(?:(?&glue)|[\p{WB=MidLetter}\p{WB=MidNumLet}'](?&x))(?&letter))*+))
    (?(DEFINE)(?P<digits>(?&digit)(?:(?:(?&glue)|[\p{WB=MidNum}\p{WB=MidNumLet}'](?&x))(?&digit))*+))
    (?(DEFINE)(?P<word>\p{WB=Katakana}(?&x)(?:(?&glue)\p{WB=Katakana}(?&x))*+
        |(?:(?&letters)(?:(?<=\p{WB=Hebrew_Letter}(?&x))'(?&x)|(?<=\p{WB=Hebrew_Letter}(?&x))"(?&x)(?&hebrew))?+
            |(?&digits))++))
    (?(DEFINE)(?P<emoji>\p{WB=ZWJ}*(?:["""
    + _PICTOGRAPHS
    + r"""]|[\p{Emoji}--[0-9\#*\p{RI}\p{Emoji_Modifier}]])
        (?&y)(?:\p{Emoji_Modifier}(?&y)|\ufe0f)?+|\p{Emoji_Modifier}(?&y)))
    (?:(?&glue)(?&word)(?:(?:\p{WB=ExtendNumLet}(?&x))++(?&word))*+(?&glue)
    |(?&emoji)(?:[\U000E0020-\U000E007E]++\U000E007F|(?:(?:(?<=\p{WB=ZWJ})|(?=\p{WB=ZWJ}))(?&emoji))*+)
    |[\#*](?&y)\ufe0f?\u20e3(?&y)
    |(?:\p{RI}(?&x)){2}
    |(?:\p{LB=Complex_Context}(?&x))++
    |[\p{Script=Han}\p{Script=Hiragana}](?&x))
    """,
    regex.V1 | regex.VERBOSE,
)
_POSSESSIVE = re.compile(r"['\u2019\uff07][sS]\Z")
_porter = Stemmer.Stemmer("porter", 0)
_BLI = ("bly", "bli", "blies")
_LOGI = ("logy", "logi", "logies")


def analyse(text: str) -> list[str]:
    """The search terms of a text, in order and with repetitions."""
    terms = []
    for word in _words(text):
        term = _term(word)
        if term:
            terms.append(term)
    return terms


@lru_cache(maxsize=200_000)
def _term(word: str) -> str:
    if len(word) > 2:
        word = _POSSESSIVE.sub("", word)
    elif _POSSESSIVE.match(word):
        word = ""
    word = word.lower()
    return "" if word in STOP_WORDS else stem(word)


def stem(word: str) -> str:
    """Porter's stem of a lower-case word."""
    if len(word) <= 2:
        return word
    for endings, ending, repaired in ((_BLI, "bli", "ble"), (_LOGI, "logi", "log")):
        if word.endswith(endings):
            head = word[: word.rindex(ending[:-1])]
            if _measured(head):
                return _porter.stemWord(head + repaired)
    return _porter.stemWord(word)


def _measured(head: str) -> bool:
    """Whether Porter's measure of `head` is above 0: a vowel, and a consonant somewhere behind it."""
    vowel = False
    consonant = True
    for place, letter in enumerate(head):
        consonant = letter not in "aeiou" and (letter != "y" or place == 0 or not consonant)
        if consonant and vowel:
            return True
        vowel = vowel or not consonant
    return False


def _words(text: str) -> list[str]:
    if text.isascii():
        words = _ASCII.findall(text)
    else:  # no word reaches over a blank, so only the pieces that need the slower pattern get it
        words = []
        for piece in text.split(" "):
            words += _ASCII.findall(piece) if piece.isascii() else [word.group() for word in _UNICODE.finditer(piece)]
    words = [word for word in words if word.strip("_")]
    if any(len(word) > LONGEST_TOKEN for word in words):
        words = [word[at : at + LONGEST_TOKEN] for word in words for at in range(0, len(word), LONGEST_TOKEN)]
    return words
