"""Pre-training: captions and their images with several objectives at once, and texts alone."""

from typing import Any

from vlc.tasks.task import SMALL, Task

# Sentences that translate each other, both beside their image: [CLS] sentence [SEP] translation [SEP]. For half of the
# samples words are hidden in one of the two alone, and can be read off the other one.
_ONE_LANGUAGE: dict[str, Any] = {"one_segment": 0.5}
_PAIRS: dict[str, Any] = {"composer": "pair", "where": {"kind": ("translation",)}, "pairs": ("*-*",)}

TASKS = {
    "pretraining": Task(
        {"itm": 1, "mlm": 1, "mae": 1},
        ("coco", "vg", "sbu", "gcc"),
        transforms=("mae", "mae"),
        batch_size=4096,
        drops_patches=True,
    ),
    # Lines of a corpus in 64 pieces, as VL-BERT reads them (Su et al. 2020), between [CLS] and [SEP].
    "pretraining_text": Task(
        {"mlm": 1},
        ("text",),
        max_text_len=66,
        transforms=("mae", "mae"),
        batch_size=128,
        composer="packed",
    ),
    "pretraining_multi30k": Task(
        {"itm": 1, "mlm": 1, "mae": 1, "ttm": 1},
        ("multi30k",),
        {"ttm": "text_matching"},
        {"mlm": _ONE_LANGUAGE},
        **_PAIRS,
        max_text_len=128,
        transforms=("mae", "mae"),
        epochs=20,
        drops_patches=True,
    ),
    # Beside it, or beside fine-tuning in one language: a sentence finds its translation, both encoded apart.
    "translation_contrast": Task(
        {"ttc": 1},
        ("multi30k",),
        {"ttc": "text_contrast"},
        where={"kind": ("translation",)},
        pairs=("*-*",),
        max_text_len=64,
        batch_size=256,
    ),
    # Beside it: one sentence of any language, translated or not.
    "pretraining_multi30k_captions": Task(
        {"itm": 1, "mlm": 1, "mae": 1},
        ("multi30k",),
        options={"mlm": _ONE_LANGUAGE},
        max_text_len=64,
        transforms=("mae", "mae"),
        epochs=20,
        drops_patches=True,
    ),
    "pretraining_emoji": Task(
        {"itm": 1, "mlm": 1, "mae": 1},
        ("emoji_scenes", "emoji"),
        options={"mlm": {"probability": 0.4}},
        **SMALL,
        learning_rate=5e-4,
        drops_patches=True,
    ),
    "pretraining_text_emoji": Task(
        {"mlm": 1},
        ("emoji_scenes_text",),
        options={"mlm": {"probability": 0.4}},
        **SMALL,
        learning_rate=5e-4,
        composer="packed",
    ),
    "pretraining_translations_emoji": Task(
        {"itm": 1, "mlm": 1, "mae": 1, "ttm": 1},
        ("emoji_translations",),
        {"ttm": "text_matching"},
        {"mlm": {"probability": 0.4, **_ONE_LANGUAGE}},
        **_PAIRS,
        **{**SMALL, "max_text_len": 64},
        learning_rate=5e-4,
        drops_patches=True,
    ),
    "translation_contrast_emoji": Task(
        {"ttc": 1},
        ("emoji_translations",),
        {"ttc": "text_contrast"},
        where={"kind": ("translation",)},
        pairs=("*-*",),
        **{**SMALL, "max_text_len": 64, "batch_size": 64},
        learning_rate=5e-4,
    ),
}
