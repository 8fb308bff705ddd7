"""Retrieval: images are found by texts, and texts by images."""

from dataclasses import replace

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
}
