"""The inputs of a batch by the names of their segments, before they are embedded."""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.common.inputs import Images, ImageSizes, Text, sum_if_known
from vlc.data.batch import Batch
from vlc.data.matching import matched_images, wrong_images
from vlc.data.parts.regions import Regions

InputT = TypeVar("InputT", Text, Images)


@dataclass(frozen=True)
class ImageInput:
    """Normalised images.

    pixels: (B, 3, H, W).
    sizes: (B,), where images are padded; None: there is no padding.
    token_type: row of the encoder's token-type table; None: no type is added.
    """

    pixels: Tensor
    sizes: ImageSizes | None
    token_type: int | None

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, rows: slice) -> "ImageInput":
        """The images at these rows."""
        return ImageInput(self.pixels[rows], None if self.sizes is None else self.sizes[rows], self.token_type)


SegmentInput = Text | ImageInput | Regions


def segment_input(batch: Batch, name: str, pad_token_id: int) -> SegmentInput:
    """Return the input that a segment of a `Pass` is embedded from. Only this function reads the inputs of a batch.

    text: the batch's texts.
    candidate_texts: each example's own text, then its wrong texts or translations, then texts of images that look alike,
        (B * (1 + N), L).
    image, image_1, ...: the first, second, ... image of each example.
    matched_images: the images of image-text matching.
    wrong_images: the wrong image of each example.
    boxes: the batch's part `regions`, which are boxes of the first image.
    source, target: of the batch's part `source_and_target`.
    trunk: the texts that candidates share (`vlc.data.parts.candidates`).
    Any other name is the name of a part of the batch: of texts, of images, or with a field `text`.
    """
    # A batch without texts belongs to a model of images alone, which has no use for types.
    first_type = None if batch.text is None else 1
    if name == "text":
        return _present(batch.text, name)
    if name == "candidate_texts":
        texts = _present(batch.text, name)
        more_texts = ("wrong_texts", "wrong_translations", "hard_texts")
        for more in (batch.parts[part] for part in more_texts if part in batch.parts):
            texts = candidate_texts(texts, more, len(batch), pad_token_id)
        return texts
    if name == "matched_images":
        return ImageInput(*matched_images(batch), first_type)
    if name == "wrong_images":
        return ImageInput(*wrong_images(batch), first_type)
    if name == "image" or name.startswith("image_"):
        number = int(name.partition("_")[2] or 0)
        return ImageInput(*_present(batch.images, name).at(number), first_type and first_type + number)
    if name in ("source", "target"):
        return getattr(batch.parts["source_and_target"], name)
    if name == "trunk":
        return batch.parts["candidates"].trunk
    part = batch.parts["regions" if name == "boxes" else name]
    return ImageInput(*part.at(0), first_type) if isinstance(part, Images) else getattr(part, "text", part)


def with_languages(given: SegmentInput, batch: Batch) -> SegmentInput:
    """Return texts with the languages of their examples, where the batch has them.

    All texts of an example are of its language: other texts that take their place, and pieces that are hidden. A second
    text that stands by itself is of the second language.
    """
    languages = batch.parts.get("languages")
    if languages is None or not isinstance(given, Text):
        return given
    if given is batch.parts.get("second_text"):
        languages = languages.flip(1)
    return replace(given, languages=languages.repeat_interleave(len(given) // len(batch), dim=0))


def _present(value: InputT | None, name: str) -> InputT:
    assert value is not None, f"the batch has no input for the segment {name}"
    return value


def patch_noise(batch: Batch, number: int | None) -> Tensor | None:
    """Return patch noise (B, P) by its number; None where the batch has none, or the number is None."""
    return None if number is None else batch.parts.get(f"patch_noise_{number}")


def stacked_texts(first: Text, second: Text, pad_token_id: int) -> Text:
    """Stack two batches of texts, (A, L) and (B, M) -> (A + B, max(L, M)), the first one's rows first."""
    length = max(first.ids.shape[1], second.ids.shape[1])

    def stacked(parts: list[Tensor], fill: int) -> Tensor:
        return torch.cat([F.pad(part, (0, length - part.shape[1]), value=fill) for part in parts])

    def stacked_if_any(parts: list[Tensor | None]) -> Tensor | None:
        if all(part is None for part in parts):
            return None
        blank = (torch.zeros_like(first.ids), torch.zeros_like(second.ids))
        return stacked([zeros if part is None else part for part, zeros in zip(parts, blank, strict=True)], 0)

    ids, mask = stacked([first.ids, second.ids], pad_token_id), stacked([first.mask, second.mask], 0)
    segments, tags = (stacked_if_any(parts) for parts in ([first.segments, second.segments], [first.tags, second.tags]))
    return Text(ids, mask, sum_if_known((first.num_real, second.num_real)), segments, tags)


def candidate_texts(texts: Text, more: Text, count: int, pad_token_id: int) -> Text:
    """Join the texts of `count` examples, M and N for each: (B * M, L) and (B * N, L) -> (B * (M + N), L).

    All are grouped by example, and the first ones stand first.
    """
    both = stacked_texts(texts, more, pad_token_id)
    places = torch.arange(len(both.ids), device=both.ids.device).split([len(texts.ids), len(more.ids)])
    order = torch.cat([own.unflatten(0, (count, -1)) for own in places], dim=1).flatten()
    return both.at(order, both.num_real)
