"""Words of generated catalogues: made-up brands, kinds of products, what they can be like and come in."""

from __future__ import annotations

from dataclasses import dataclass

BRANDS = tuple(
    "Alvera Brimlo Castory Dunmere Elvane Forlith Gandry Hollowel Ivenna Jorvik Kelmar Lumora Marvett Nordeen Orlanto "
    "Pellar Quillon Rovanne Selmic Tavora Umbrel Valtine Wexlow Yarrel Zembra".split()
)
COLOURS = tuple(
    "black white navy red olive grey teal mustard pink ivory burgundy coral indigo charcoal lavender mint".split()
)
ID_WORDS = tuple(  # of seven letters
    "ANCHORS BALCONY CABINET DOLPHIN EMERALD FEATHER GALLERY HARVEST ICEBERG JOURNEY KITCHEN LANTERN MEADOWS "
    "NETWORK ORCHARD PENGUIN QUARTER RAINBOW SAILING TEMPEST UPRIGHT VILLAGE WHISPER YELLOWS ZEPHYRS BLOSSOM "
    "CRYSTAL DESERTS FORTUNE GLACIER".split()
)
SIZES = ("x-small", "small", "medium", "large", "x-large", "xx-large", "3x-large")


@dataclass(frozen=True)
class Kind:
    """One kind of product.

    Attributes:
        noun: its name; the last word is what it is.
        query: the shop's own search phrase for it.
        path: category path below the category's root.
        materials: nouns that may stand before it.
        traits: attributes said before the noun ("machine washable").
        parts: attributes said behind it, with their preposition ("with", "arch support").
        axes: options it may come in -> possible values.
        prices: lowest and highest usual price in dollars.
    """

    noun: str
    query: str
    path: str
    materials: tuple[str, ...]
    traits: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    axes: tuple[tuple[str, tuple[str, ...]], ...]
    prices: tuple[float, float]


def _kind(line: str, prices: tuple[float, float], **axes: tuple[str, ...]) -> Kind:
    noun, query, path, materials, traits, parts = (part.strip() for part in line.split("|"))
    named = tuple((name.replace("_", " "), values) for name, values in axes.items())
    split = tuple(part.strip() for part in traits.split(","))
    pairs = tuple(tuple(part.strip().split(" ", 1)) for part in parts.split(","))
    return Kind(noun, query, path, tuple(materials.split()), split, pairs, named, prices)  # type: ignore[arg-type]


_FIT = ("regular", "slim", "relaxed")
_SHOE = ("6", "6.5", "7", "7.5", "8", "8.5", "9", "9.5", "10", "11")
_PACK = ("pack of 1", "pack of 2", "pack of 3", "pack of 6", "pack of 12")
_LENGTH = ("3ft", "6ft", "10ft", "15ft", "25ft")
_FLAVOUR = ("sea salt", "dark cocoa", "vanilla", "wild berry", "maple", "smoked paprika", "lemon ginger", "cinnamon")
_SCENT = ("unscented", "cedar", "rosewater", "citrus", "eucalyptus", "lavender field")
_RUG = ("2 ft x 3 ft", "3 ft x 5 ft", "5 ft x 8 ft", "8 ft x 10 ft")

ROOTS = {
    "fashion": "Clothing, Shoes & Jewelry",
    "beauty": "Beauty & Personal Care",
    "garden": "Home & Kitchen",
    "electronics": "Electronics",
    "grocery": "Grocery & Gourmet Food",
}
KINDS: dict[str, tuple[Kind, ...]] = {
    "fashion": (
        _kind(
            "shirt | men's dress shirts | Men › Clothing › Shirts | cotton linen flannel | machine washable, slim "
            "fit, wrinkle free | with long sleeve, with button closure, for daily wear",
            (15, 60),
            color=COLOURS,
            size=SIZES,
            fit_type=_FIT,
        ),
        _kind(
            "loafers | women's loafers & slip-ons | Women › Shoes › Loafers | suede leather canvas | non slip, hand "
            "wash, water resistant | with rubber sole, with arch support, with memory foam",
            (25, 90),
            color=COLOURS,
            size=_SHOE,
        ),
        _kind(
            "jacket | women's coats, jackets & vests | Women › Clothing › Jackets | fleece denim wool | machine "
            "washable, light weight, wind proof | with zipper closure, with drawstring waist, for hiking trips",
            (30, 150),
            color=COLOURS,
            size=SIZES,
        ),
    ),
    "beauty": (
        _kind(
            "shampoo | shampoo & conditioner | Hair Care › Shampoo | argan keratin biotin | sulfate free, cruelty "
            "free, paraben free | for dry hair, for damaged hair, with tea tree",
            (6, 40),
            scent=_SCENT,
            size=("4 fl oz", "8 fl oz", "16 fl oz"),
        ),
        _kind(
            "toothbrush | toothbrushes & accessories | Oral Care › Toothbrushes | bamboo silicone charcoal | eco "
            "friendly, bpa free, easy clean | for sensitive teeth, with soft bristles, for travel use",
            (4, 25),
            color=COLOURS,
            size=_PACK,
        ),
        _kind(
            "lipstick | lipstick & lip gloss | Makeup › Lips | velvet satin honey | long lasting, cruelty free, "
            "highly pigmented | with shea butter, for daily use, with matte finish",
            (5, 35),
            color=COLOURS,
        ),
    ),
    "garden": (
        _kind(
            "blanket | throw blankets | Bedding › Blankets & Throws | fleece wool sherpa | machine washable, super "
            "soft, eco friendly | for living room, with fringe edges, for queen bed",
            (18, 110),
            color=COLOURS,
            size=("50 x 60 inch", "60 x 80 inch", "90 x 90 inch"),
        ),
        _kind(
            "rug | area rugs | Home Décor › Rugs | jute cotton polyester | spot clean, non slip, fade resistant | "
            "for dining room, for living room, with low pile",
            (25, 400),
            color=COLOURS,
            size=_RUG,
            item_shape=("rectangular", "round", "runner"),
        ),
        _kind(
            "lamp | table lamps | Lighting › Lamps | brass ceramic bamboo | easy assemble, energy efficient, space "
            "saving | for home office, with glass shade, with usb port",
            (20, 140),
            color=COLOURS,
            style=("modern", "rustic", "industrial"),
        ),
    ),
    "electronics": (
        _kind(
            "cable | hdmi cables | Accessories › Cables | nylon copper silicone | gold plated, high speed, heavy "
            "duty | with ethernet support, for gaming console, with braided jacket",
            (6, 45),
            color=COLOURS[:6],
            size=_LENGTH,
        ),
        _kind(
            "headphones | over-ear headphones | Headphones › Over-Ear | aluminum memory leather | noise cancelling, "
            "long lasting, hands free | with stereo sound, with carrying case, for video calls",
            (20, 260),
            color=COLOURS[:8],
        ),
        _kind(
            "tripod | tripods & monopods | Camera › Tripods | carbon aluminum steel | easy carry, quick release, "
            "light weight | with ball head, for mirrorless cameras, with phone mount",
            (18, 180),
            color=COLOURS[:5],
            style=("travel", "studio", "pocket"),
        ),
    ),
    "grocery": (
        _kind(
            "granola | granola & muesli | Breakfast Foods › Granola | oat almond coconut | gluten free, non gmo, low "
            "sugar | with whole grains, for breakfast bowls, with natural flavors",
            (5, 30),
            flavor_name=_FLAVOUR,
            size=("8 ounce", "12 ounce", "24 ounce"),
        ),
        _kind(
            "crackers | crackers & crispbreads | Snacks › Crackers | rye rice chickpea | gluten free, plant based, "
            "nut free | with sesame seeds, for party trays, with dietary fiber",
            (4, 24),
            flavor_name=_FLAVOUR,
            size=_PACK,
        ),
        _kind(
            "tea | herbal tea | Beverages › Tea | hibiscus chamomile rooibos | caffeine free, usda organic, hand "
            "picked | for cold brew, with natural ingredients, in resealable bag",
            (5, 40),
            flavor_name=_FLAVOUR,
            size=("20 bags", "50 bags", "100 bags"),
        ),
    ),
}
FILLERS = (
    "Made in small batches and checked by hand.",
    "Ships in a plain box that can be recycled.",
    "A gift that is used every day.",
    "Questions are answered within one working day.",
    "Pictures may look a little different on your screen.",
    "Keep away from heat and direct light.",
)
NOUNS = frozenset(
    word.lower()
    for kinds in KINDS.values()
    for kind in kinds
    for word in (*BRANDS, *kind.materials, kind.noun, "set", "edition")
)
