"""Pre-training: captions and their images with several objectives at once, and texts alone."""

from vlc.tasks.task import SMALL, Task

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
}
