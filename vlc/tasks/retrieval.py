"""Retrieval: images are found by texts, and texts by images."""

from vlc.tasks.task import Task

_HEAD, _OPTIONS, _RANKED = {"choice": "irtr"}, {"choice": {"wrong_texts": 15}}, {"ranking": 0}

TASKS = {
    "irtr_coco": Task({"choice": 1}, ("coco",), _HEAD, _OPTIONS, epochs=20, evaluators=_RANKED),
    "irtr_f30k": Task({"choice": 1}, ("f30k",), _HEAD, _OPTIONS, evaluators=_RANKED),
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
