"""Pictures for the loggers: the first examples of each evaluated split with their answers, or reconstructed."""

from collections.abc import Mapping

from PIL import Image
from pytorch_lightning import Callback, Trainer

from vlc.data.batch import Batch
from vlc.data.samples import Samples
from vlc.evaluation.drawing import reconstructions, sheet, with_boxes
from vlc.evaluation.examples import Example, examples_of, pictures_of, text_of
from vlc.objectives.base import Outcome
from vlc.objectives.mae import MAE
from vlc.training.loggers import log_picture
from vlc.training.module import VLCModule


class Pictures(Callback):
    """Logs a sheet of examples for each head and split at each validation; heads without single answers have none.

    count: the most examples of a sheet.
    """

    def __init__(self, count: int):
        self.count = count
        self._shown: set[tuple[str, str]] = set()  # tasks and splits of this validation

    def on_validation_start(self, trainer: Trainer, module: VLCModule) -> None:  # type: ignore[override]
        self._shown.clear()

    def on_validation_batch_end(  # type: ignore[override]
        self,
        trainer: Trainer,
        module: VLCModule,
        outputs: Mapping[str, Outcome],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        place = batch.task, batch.split
        if trainer.sanity_checking or not trainer.is_global_zero or place in self._shown:
            return
        self._shown.add(place)
        samples = trainer.datamodule.tasks[batch.task].evaluation[batch.split]  # type: ignore[attr-defined]  # Lightning sets it
        for head in module.tasks[batch.task].heads:
            shown: list[tuple[list[Image.Image], str]] = []
            if head.name in outputs:
                shown = self._examples(module, head.name, outputs[head.name], batch, samples)
            if shown:
                name = module.tasks[batch.task].metric(head, batch.split, "examples")
                log_picture(trainer, name, sheet(shown))

    def _examples(
        self, module: VLCModule, head: str, outcome: Outcome, batch: Batch, samples: Samples
    ) -> list[tuple[list[Image.Image], str]]:
        """The pictures and the text of each example."""
        if isinstance(module.objectives[head], MAE):
            if outcome.patches is None:
                return []
            triples = reconstructions(batch, outcome, module.encoder.size)[: self.count]
            return [(triple, "") for triple in triples]
        if not samples.reads_images:
            return []
        found = examples_of(batch.task, head, module.objectives[head], outcome, batch, samples)
        return [_described(example, samples) for example in found[: self.count]]


def _described(example: Example, samples: Samples) -> tuple[list[Image.Image], str]:
    pictures = pictures_of(samples, example.number)
    if example.boxes:
        boxes = [*example.boxes[:1], *example.meant]
        labels = ["answer", *["meant"] * len(example.meant)]
        pictures[0] = with_boxes(pictures[0], [tuple(box) for box in boxes], labels)
    sure = f" ({example.confidence:.2f})" if example.confidence is not None else ""
    lines = (text_of(samples, example.number), f"answer: {example.answer}{sure}", f"truth: {example.truth}")
    return pictures, "\n".join(lines)
