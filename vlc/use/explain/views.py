"""Five views of attention, as VL-BERT shows it (Su et al. 2020): from text to image and back, within each, and all."""

from collections.abc import Collection

import numpy as np

from vlc.use.explain.explanation import Sequence

NAMES = ("text to image", "image to text", "text to text", "image to image", "all")


def views(sequence: Sequence, special: Collection[str]) -> dict[str, np.ndarray]:
    """Return the attention of a pass by the names of its views, (layers, heads, queries, keys) float32 each.

    The partial views leave out special tokens, and the values of each of their maps are divided by its highest one, as the
    special tokens take most of the attention. A view without queries or keys is left out.

    special: names of tokens that stand for no word.
    """
    attention = sequence.attention.astype(np.float32)
    words, patches = places(sequence, special)
    sides = {"text": words, "image": patches}
    found = {}
    for name in NAMES[:-1]:
        queries, keys = (sides[side] for side in name.split(" to "))
        if len(queries) and len(keys):
            own = attention[:, :, queries][:, :, :, keys]
            found[name] = own / own.max(axis=(2, 3), keepdims=True).clip(1e-12)
    return found | {NAMES[-1]: attention}


def places(sequence: Sequence, special: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """The places in a sequence of its words, and of its patches, row by row."""
    kinds = list(zip(sequence.names, sequence.segments, strict=True))
    patches = [place for place, (name, segment) in enumerate(kinds) if segment in sequence.images and name != segment]
    words = [place for place, (name, segment) in enumerate(kinds) if segment in sequence.texts and name not in special]
    return np.array(words, dtype=int), np.array(patches, dtype=int)
