"""Images alone, sorted into classes."""

from vlc.tasks.task import Task

TASKS = {
    "image_classification": Task(
        {"image_classes": 1},
        ("labelled_images",),
        {"image_classes": "classes"},
        transforms=("mae_randaug", "central_crop"),
        batch_size=1024,
        learning_rate=2e-3,
        epochs=50,
        image_only=True,
    ),
}
