"""Names that exist nowhere else, many of them alike."""

from __future__ import annotations

from collections.abc import Iterator
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


def word(rng: Random, syllables: int) -> str:
    """An invented word with a capital."""
    text = "".join(rng.choice(_HEADS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_TAILS)
    return text.capitalize()


def unique(draw: Iterator[str], taken: set[str]) -> str:
    """The next name that nobody has (in any case), which then is taken; made-up names never run out."""
    name = next(name for name in draw if name.lower() not in taken)
    taken.add(name.lower())
    return name


def people(rng: Random, taken: set[str], number: int, namesakes: int) -> list[str]:
    """Full names out of a pool of given and family names so small that `namesakes` persons share each."""
    pool = max(2, -(-number // namesakes), int(number**0.5) + 2)
    words = (word(rng, rng.randint(1, 2)) for _ in iter(int, 1))
    given = [unique(words, taken) for _ in range(pool)]
    family = [unique(words, taken) for _ in range(pool)]
    full = (f"{rng.choice(given)} {rng.choice(family)}" for _ in iter(int, 1))
    return [unique(full, taken) for _ in range(number)]


def named(kind: str, rng: Random, taken: set[str], number: int) -> list[str]:
    """Names of everything but persons."""

    def draw() -> Iterator[str]:
        tries = 0
        while True:
            tries += 1
            if kind in ("novel", "film"):
                title = f"The {rng.choice(_ADJECTIVES)} {rng.choice(_NOUNS)}"
                yield title if tries < 20 * number else f"{title} of {word(rng, 1)}"
            elif kind == "company":
                yield f"{word(rng, 1)} {rng.choice(_TRADES)}"
            elif kind == "university":
                yield f"{word(rng, 2)} {rng.choice(('College', 'University', 'Academy'))}"
            elif kind == "country":
                yield f"{word(rng, 1)}ia"
            else:
                yield rng.choice(_CITIES).format(word(rng, rng.randint(1, 2)))

    names = draw()
    return [unique(names, taken) for _ in range(number)]
