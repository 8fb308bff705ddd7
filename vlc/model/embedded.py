"""Embedded texts and images, between embedding and encoder; passes of equal shape joined into one."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vlc.model.masking import PatchMask


@dataclass(frozen=True)
class TextTokens:
    """Embedded text, ready for the encoder: tokens (B, L, D); mask (B, L) and num_real as in `Text`."""

    tokens: Tensor
    mask: Tensor
    num_real: int | None = None


@dataclass(frozen=True)
class ImageTokens:
    """Embedded image, ready for the encoder: tokens (B, 1 + kept patches, D), class token first.

    mask (B, 1 + kept patches) bool: False = padding; None: there is none.
    """

    tokens: Tensor
    patches: PatchMask | None = None
    mask: Tensor | None = None

    def __getitem__(self, rows: Tensor) -> "ImageTokens":
        """The images at `rows` (N,) of the batch; only for images that kept all patches."""
        assert self.patches is None
        return ImageTokens(self.tokens[rows], mask=None if self.mask is None else self.mask[rows])


Embedded = tuple[TextTokens | None, ImageTokens | None]  # what a pass fuses


def shape(embedded: Embedded) -> tuple:
    """What must be equal for passes to be joined."""
    text, image = embedded
    return (
        None if text is None else text.tokens.shape,
        None if image is None else (image.tokens.shape, image.mask is None),
    )


def joined(parts: list[Embedded]) -> Embedded:
    """Passes of equal shape as one, the first one's batch first. Their `PatchMask`s are joined too."""
    if len(parts) == 1:
        return parts[0]
    texts, images = zip(*parts, strict=True)
    return _joined_texts(texts), _joined_images(images)


def _joined_texts(parts: tuple[TextTokens | None, ...]) -> TextTokens | None:
    if parts[0] is None:
        return None
    known = all(part.num_real is not None for part in parts)
    return TextTokens(
        torch.cat([part.tokens for part in parts]),
        torch.cat([part.mask for part in parts]),
        sum(part.num_real for part in parts) if known else None,
    )


def _joined_images(parts: tuple[ImageTokens | None, ...]) -> ImageTokens | None:
    if parts[0] is None:
        return None
    patches, mask = parts[0].patches, parts[0].mask
    if patches is not None:
        patches = PatchMask(*map(torch.cat, zip(*(part.patches for part in parts), strict=True)))
    if mask is not None:
        mask = torch.cat([part.mask for part in parts])
    return ImageTokens(torch.cat([part.tokens for part in parts]), patches, mask)
