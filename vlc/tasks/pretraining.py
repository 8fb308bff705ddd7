"""Pre-training: captions and their images, with several objectives at once."""

from vlc.tasks.task import SMALL, Task

TASKS = {
    "pretraining": Task(
        {"itm": 1, "mlm": 1, "mae": 1},
        ("coco", "vg", "sbu", "gcc"),
        transforms=("mae", "mae"),
        batch_size=4096,
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
}
