"""The colour words by which the shop compares options."""

from __future__ import annotations

COLOURS = tuple(  # in WebShop's order: the first one found in a value stands for it
    """
    alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy camel camo
    caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral cranberry cream crystal
    dark denim eggplant elephant espresso fuchsia gold granite grape graphite grass gray green grey heather indigo ivory
    ivy khaki lavender lemon leopard light lilac lime magenta maroon mauve merlot midnight mint mocha multicolor
    mushroom mustard natural navy nude olive orange peach pewter pink plum purple rainbow red rose royal rust sand
    sapphire seashell silver skull slate steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut
    wheat white wine yellow
    """.split()
)


def same_colour(value: str | tuple[str, str]) -> str:
    """The first colour word in `value`, or else `value` as text.

    A synthetic goal's option is a (name, value) pair. There a colour counts only when it is the whole name or value;
    otherwise the pair's Python text, brackets and all, is compared. WebShop does so, and scores depend on it.
    """
    return next((colour for colour in COLOURS if colour in value), str(value))
