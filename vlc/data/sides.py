"""Words for left and right, which change places in the texts of a mirrored image."""

import re
from itertools import product

# Pairs of words, in the order of the languages: English, German, French and Czech. French has one word for a feminine and a
# masculine left; droit, which also means straight, stays.
_PAIRS = [
    ("left", "right"),
    ("leftmost", "rightmost"),
    ("leftward", "rightward"),
    ("leftwards", "rightwards"),
    ("links", "rechts"),
    *((f"link{ending}", f"recht{ending}") for ending in ("e", "en", "er", "es", "em")),
    ("gauche", "droite"),
    ("gauches", "droites"),
    *((f"{start}levo", f"{start}pravo") for start in ("v", "na")),
    *((f"{start}leva", f"{start}prava") for start in ("do", "z")),
    *(
        (f"lev{ending}", f"prav{ending}")
        for ending in ("ý", "á", "é", "í", "ého", "ému", "ém", "ým", "ou", "ých", "ými")
    ),
]
_OTHER_SIDE = {
    write(one): write(other)
    for pair, write in product(_PAIRS, (str.lower, str.capitalize, str.upper))
    for one, other in (pair, pair[::-1])
}
_WORD = re.compile(rf"\b(?:{'|'.join(_OTHER_SIDE)})\b")


def exchange_sides(text: str) -> str:
    """The text with left and right exchanged, as VL-BERT mirrors its examples (Su et al. 2020).

    Whole words of English, German, French and Czech are exchanged: in small letters, in capitals, with an initial capital.
    """
    return _WORD.sub(lambda found: _OTHER_SIDE[found.group()], text)
