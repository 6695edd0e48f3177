"""Names that exist nowhere else, many of them alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random

_HEADS = "b br c d dr f g gr h j k kl l m n p pl r s sk st t tr v w z".split()
_VOWELS = "a e i o u ae ia or el an".split()
_TAILS = "l n r s th m nd rk st x v".split()
_ADJECTIVES = (
    "Pale Silent Broken Golden Hidden Distant Second Burning Hollow Winter Crooked Patient Borrowed Salted Narrow "
    "Sleeping Copper Restless Northern Forgotten Green Paper Heavy Last Quiet Painted"
).split()
_NOUNS = (
    "Door Harbour Orchard Mirror Bridge Lantern Garden River Promise Clock Island Staircase Letter Mountain Kitchen "
    "Feather Window Station Meadow Compass Cellar Tower Ferry Market Chapel Shore"
).split()
_TRADES = ("Shipping", "Mills", "Foods", "Instruments", "Glassworks", "Press", "Tools", "Railways")
_CITIES = ("Port {}", "New {}", "Upper {}", "{}", "{}", "{}")
_ROLES = ("given", "family", "city", "company", "university", "country", "currency", "title")


def word(rng: Random, syllables: int) -> str:
    """An invented word with a capital."""
    text = "".join(rng.choice(_HEADS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_TAILS)
    return text.capitalize()


@lru_cache(maxsize=8)
def lexicon(size: int) -> dict[str, tuple[str, ...]]:
    """`size` invented words for each role in a name, the same in every world; no word has two roles."""
    rng, taken = Random(f"lexicon of {size}"), set[str]()
    draw = (word(rng, rng.randint(1, 2)) for _ in iter(int, 1))
    return {role: tuple(unique(draw, taken) for _ in range(size)) for role in _ROLES}


@dataclass(frozen=True)
class Words:
    """Where the words in names come from.

    Attributes:
        rng: draws them.
        size: of the `lexicon`; 0 invents each word anew.
    """

    rng: Random
    size: int = 0

    def draw(self, role: str, low: int, high: int) -> str:
        """A word for `role`, an invented one of `low` to `high` syllables."""
        if self.size:
            return self.rng.choice(lexicon(self.size)[role])
        return word(self.rng, low if low == high else self.rng.randint(low, high))

    def endless(self, role: str, low: int, high: int) -> Iterator[str]:
        return (self.draw(role, low, high) for _ in iter(int, 1))


def unique(draw: Iterator[str], taken: set[str]) -> str:
    """The next name that nobody has (in any case), which then is taken.

    Made-up names never run out, nor do those of a lexicon of `least_words`.
    """
    name = next(name for name in draw if name.lower() not in taken)
    taken.add(name.lower())
    return name


def pool_size(number: int, namesakes: int) -> int:
    """Given names, and as many family names, of `number` persons of whom `namesakes` share each family name."""
    return max(2, -(-number // namesakes), int(number**0.5) + 2)


def least_words(number: int, namesakes: int) -> int:
    """The smallest `lexicon` that names a world of `number` persons: each of its things needs a name of its own."""
    return max(pool_size(number, namesakes), -(-number // 10))


def people(words: Words, taken: set[str], number: int, namesakes: int) -> list[str]:
    """Full names out of a pool of given and family names so small that `namesakes` persons share each."""
    pool = pool_size(number, namesakes)
    given = [unique(words.endless("given", 1, 2), taken) for _ in range(pool)]
    family = [unique(words.endless("family", 1, 2), taken) for _ in range(pool)]
    full = (f"{words.rng.choice(given)} {words.rng.choice(family)}" for _ in iter(int, 1))
    return [unique(full, taken) for _ in range(number)]


def named(kind: str, words: Words, taken: set[str], number: int) -> list[str]:
    """Names of everything but persons."""
    rng = words.rng

    def draw() -> Iterator[str]:
        tries = 0
        while True:
            tries += 1
            if kind in ("novel", "film"):
                title = f"The {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"
                yield title if tries < 20 * number else f"{title} of {words.draw('title', 1, 1)}"
            elif kind == "company":
                yield f"{words.draw('company', 1, 1)} {rng.choice(_TRADES)}"
            elif kind == "university":
                yield f"{words.draw('university', 2, 2)} {rng.choice(('College', 'University', 'Academy'))}"
            elif kind == "country":
                yield f"{words.draw('country', 1, 1)}ia"
            else:
                yield rng.choice(_CITIES).format(words.draw("city", 1, 2))

    names = draw()
    return [unique(names, taken) for _ in range(number)]
