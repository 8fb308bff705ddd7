"""The flat names of options of objectives. The table is frozen: a new option has only its nested name."""

from collections.abc import Mapping
from typing import Any

from vlc.common.errors import UserError

# Flat key -> (kind of objective, its option).
ALIASES: dict[str, tuple[str, str]] = {
    "mlm_prob": ("mlm", "probability"),
    "whole_word_masking": ("mlm", "whole_words"),
    "mae_weight": ("mae", "weight"),
    "wpa_weight": ("itm", "alignment_weight"),
    "draw_false_image": ("itm", "wrong_images"),
    "false_image_source": ("itm", "source"),
    "hard_negatives": ("itc", "hard_negatives"),
    "vqav2_label_size": ("answers", "num_answers"),
    "draw_false_text": ("choice", "wrong_texts"),
}
FLAT_NAMES = {option: key for key, option in ALIASES.items()}


def under_flat_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Move every option with a flat name to this name, so that later values win over earlier ones.

    Raises UserError where both names of an option are given with different values.
    """
    flat = dict(values)
    for key, (kind, option) in ALIASES.items():
        nested = flat.get(kind)
        if not isinstance(nested, Mapping) or option not in nested:
            continue
        value = nested[option]
        if key in values and values[key] != value:
            raise UserError(
                f"{key}={values[key]!r} and {kind}.{option}={value!r} are two names of the same option: pass one of them"
            )
        flat[key] = value
        flat[kind] = {name: other for name, other in nested.items() if name != option}
        if not flat[kind]:
            del flat[kind]
    return flat
