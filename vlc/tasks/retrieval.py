"""Retrieval: images are found by texts, texts by images, and translations by sentences."""

from dataclasses import replace
from typing import Any

from vlc.tasks.task import SMALL, Task

_HEAD, _OPTIONS, _RANKED = {"choice": "irtr"}, {"choice": {"wrong_texts": 15}}, {"ranking": 0}

# Multiple choice as in 12-in-1 (Lu et al. 2020): the own pair, a random text, a text of an image that looks alike, a random
# image. Ours is also ranked by its head on whole splits, and selects on validation data.
_CHOICE = {"choice": {"wrong_texts": 1, "hard_texts": 1, "wrong_images": 1}}


def _multiple_choice(dataset: str, *published: str) -> Task:
    """One of four, in batches of 128 captions."""
    return Task(
        {"choice": 1},
        (dataset,),
        {"choice": "irtr_mc4"},
        _CHOICE,
        max_text_len=30,
        batch_size=128,
        learning_rate=2e-5,
        epochs=20,
        evaluators=_RANKED,
        published=published,
    )


# Texts of other images are drawn in the text's own language; tests rank each language apart.
_IN_LANGUAGES = Task(
    {"choice": 1},
    ("multi30k",),
    _HEAD,
    {"choice": {"wrong_texts": 15, "within": "lang"}},
    max_text_len=64,
    evaluators=_RANKED,
    where={"kind": ("translation",)},
)
_NAMES_OF_EMOJI: dict[str, Any] = {
    **SMALL,
    "datasets": ("emoji_languages",),
    "max_text_len": 24,
    "batch_size": 128,
    "learning_rate": 1e-3,
}
_SENTENCES_OF_EMOJI: dict[str, Any] = {
    **SMALL,
    "datasets": ("emoji_translations",),
    "max_text_len": 64,
    "learning_rate": 5e-4,
}


def _of_translations(head: str, images: int, wrong: int = 15) -> Task:
    """A sentence finds its translation in every other language, beside its image or without any image."""
    return Task(
        {"choice": 1},
        ("multi30k",),
        {"choice": head},
        {"choice": {"wrong_translations": wrong, "images": images}},
        max_text_len=128,
        batch_size=128,
        learning_rate=5e-5,
        composer="pair",
        evaluators=_RANKED,
        where={"kind": ("translation",)},
        pairs=("*-*",),
    )


# The image alone tells which noun a text of the kind hidden means.
_PAIRS_OF_EMOJI = _SENTENCES_OF_EMOJI | {"max_text_len": 96, "where": {"kind": ("translation", "hidden")}}

TASKS = {
    "irtr_coco": Task({"choice": 1}, ("coco",), _HEAD, _OPTIONS, epochs=20, evaluators=_RANKED),
    "irtr_f30k": Task({"choice": 1}, ("f30k",), _HEAD, _OPTIONS, evaluators=_RANKED),
    "irtr_mc4_coco": _multiple_choice("coco", "7", "RetrievalCOCO"),
    "irtr_mc4_f30k": _multiple_choice("f30k", "8", "RetrievalFlickr30k"),
    "irtr_mc4_emoji": replace(
        _multiple_choice("emoji_scenes"),
        **SMALL,
        learning_rate=2e-4,
        evaluators={"inputs": 0},  # ranking a million and more pairs takes ten minutes on two cores
    ),
    "retrieval_emoji": Task(
        {"itc": 1},
        ("emoji_compositional",),
        max_text_len=16,
        transforms=("mae_test", "mae_test"),
        batch_size=128,
        learning_rate=1e-3,
        evaluators=_RANKED,
    ),
    "irtr_multi30k": _IN_LANGUAGES,
    "irtr_multi30k_captions": replace(_IN_LANGUAGES, where={"kind": ("caption",)}),
    # Contrast finds the candidates that a test ranks again: ranking all takes more than half an hour on two cores.
    "irtr_languages_emoji": replace(
        _IN_LANGUAGES,
        **_SENTENCES_OF_EMOJI,
        objectives={"choice": 1, "itc": 1},
        options={"choice": {"wrong_texts": 3, "within": "lang"}},
    ),
    "irtr_names_emoji": replace(
        _IN_LANGUAGES,
        **_NAMES_OF_EMOJI,
        objectives={"itc": 1},
        heads={},
        options={},
        where={"kind": ("caption",)},
    ),
    "translation_retrieval": _of_translations("translation_retrieval", 0),
    "translation_retrieval_image": _of_translations("translation_retrieval_image", 1),
    "translation_retrieval_emoji": replace(_of_translations("translation_retrieval", 0, 3), **_PAIRS_OF_EMOJI),
    "translation_retrieval_image_emoji": replace(
        _of_translations("translation_retrieval_image", 1, 3), **_PAIRS_OF_EMOJI
    ),
}
