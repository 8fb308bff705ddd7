"""An open checkpoint: its network, and how it prepares images and texts. `vlc.Model` asks it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vlc.common.errors import UserError
from vlc.common.inputs import Images, Text
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.data.geometry import Shown
from vlc.data.images import Picture, UndecodableImage
from vlc.data.stacking import stack_images
from vlc.data.tokens import TextEncoder
from vlc.data.transforms import normalize, transform
from vlc.model.passes import encode_passes
from vlc.objectives.base import Objective, Outcome
from vlc.training.module import VLCModule
from vlc.use.images import ImageLike, picture_of, read_image


@dataclass(frozen=True)
class OpenedModel:
    """Encoder and heads of a checkpoint on a device, which prepares images and texts as its evaluation did.

    module: encoder and heads, in evaluation mode.
    text_encoder: None for a model of images alone.
    pipeline: name of the image pipeline.
    pixels: name of the normalisation of pixels.
    task_tokens: the task whose token stands beside the texts of a head, by head; empty: the model has no task tokens.
    tokenizer: of the text encoder.
    """

    settings: Settings
    module: VLCModule
    text_encoder: TextEncoder | None
    device: torch.device
    pipeline: str
    pixels: str
    task_tokens: Mapping[str, str] = field(default_factory=dict)
    tokenizer: PreTrainedTokenizerFast | None = None

    @property
    def path(self) -> Path:
        return Path(self.settings.run.load_path)

    @property
    def named_heads(self) -> str:
        """Which heads the checkpoint has, as the beginning of an error."""
        return f"{self.path} has the heads {', '.join(self.module.objectives)}"

    def outcomes(self, names: Iterable[str], batch: Batch, dropped_ratio: float = 0.0) -> dict[str, Outcome]:
        """Return the outcomes of heads for a normalised batch, by name. Heads whose tasks have the same token share passes.

        dropped_ratio: the share of patches that a pass with patch noise drops.
        """
        outcomes: dict[str, Outcome] = {}
        if (languages := self.languages(len(batch))) is not None:
            batch = batch.with_parts(languages=languages)
        by_task: dict[str, dict[str, Objective]] = {}
        for name in names:
            by_task.setdefault(self.task_tokens.get(name, ""), {})[name] = self.module.objectives[name]
        for task, heads in by_task.items():
            passes = [one for head in heads.values() for one in head.passes(batch)]
            encoded = encode_passes(self.module.encoder, replace(batch, task=task), passes, dropped_ratio)
            outcomes |= {name: head(encoded, batch) for name, head in heads.items()}
        return outcomes

    def prepared(self, image: ImageLike, name: str = "") -> Tensor:
        """Prepare an image, whole, in the model's size: (3, H, W) uint8. Raises MissingFile or UserError with its name."""
        return self.shown(image, name).pixels

    def shown(self, image: ImageLike, name: str = "") -> Shown:
        """Prepare an image as `prepared` does; with it, return the map from its points to those of the prepared image."""
        if isinstance(image, Shown):
            return image
        if isinstance(image, str | Path):
            image, name = read_image(image), str(image)
        try:
            return self.transform(picture_of(image), np.random.default_rng(0))
        except UndecodableImage as error:
            raise UserError(f"Image {name or 'of the given bytes'} cannot be decoded ({error})") from error

    @property
    def transform(self) -> Callable[[Picture, np.random.Generator], Shown]:
        """The image pipeline of evaluation: pictures -> (3, H, W) uint8 with placements, whole and not augmented."""
        return transform(self.pipeline, self.settings.data.image_size)

    def chunks(self, items: Iterable[Any]) -> Iterator[list[Any]]:
        """The items in batches."""
        items = iter(items)
        while chunk := list(islice(items, self.settings.data.per_gpu_batchsize)):
            yield chunk

    def stacked(self, rows: Sequence[Sequence[Tensor]]) -> Images:
        """Stack rows of K prepared images on the device, normalised for the encoder."""
        images = stack_images([list(row) for row in rows])
        assert images is not None
        images = images.to(self.device)
        return replace(images, pixels=normalize(images.pixels, self.pixels))

    def forward_context(self) -> AbstractContextManager:
        """Compute in half precision on a GPU, or as `precision` says."""
        precision = self.settings.run.precision
        if (self.device.type == "cpu" and precision != "bf16-mixed") or precision in (32, "32-true"):
            return nullcontext()
        half = torch.bfloat16 if self.device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast(self.device.type, half)

    def text(self, texts: Sequence[str]) -> Text:
        text = self.tokens.pad([self.tokens(text).ids for text in texts]).to(self.device)
        return replace(text, languages=self.languages(len(texts)))

    def languages(self, count: int) -> Tensor | None:
        """The number of the language of texts, as `Text` has it; None where it is not said."""
        known, said = self.module.encoder.languages, self.settings.languages.of_texts
        if known is None or not said:
            return None
        return torch.full((count, 2), known.names.index(said), device=self.device)

    @property
    def tokens(self) -> TextEncoder:
        """The text encoder. Raises UserError for a model of images alone."""
        if self.text_encoder is None:
            raise UserError(f"{self.path} was trained on images alone and reads no text")
        return self.text_encoder

    def name_of(self, head: Objective) -> str:
        return next(name for name, own in self.module.objectives.items() if own is head)

    def task_of(self, head: Objective) -> str:
        """Return the task whose token stands beside the texts of a head, "" where there are no task tokens."""
        return next((task for name, task in self.task_tokens.items() if self.module.objectives[name] is head), "")
