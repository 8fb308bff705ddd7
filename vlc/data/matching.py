"""The images that a batch's texts are matched with."""

import torch
from torch import Tensor

from vlc.common.inputs import ImageSizes
from vlc.data.batch import Batch


def kept_images(draw: Tensor) -> Tensor:
    """Half of the batch (rounded down), the smallest draws (B,), keeps its image: (B,) int64, 1 = it does."""
    rank = draw.argsort().argsort()
    return (rank < len(draw) // 2).long()


def match_labels(batch: Batch) -> Tensor:
    """Whether each text is matched with its own image: (B,) int64, 1 = it is.

    An example for which the batch has no other image stays a match.
    """
    choice = batch.parts["wrong_images"]
    labels = kept_images(choice.keeps_own_image)
    if choice.images is None:
        alone = choice.rows == torch.arange(len(labels), device=labels.device)
        labels = labels | alone.long()
    return labels


def matched_images(batch: Batch) -> tuple[Tensor, ImageSizes | None]:
    """The images that go with the texts, (B, 3, H, W), and their sizes (B,).

    By `match_labels`, a text has its own image or a wrong one.
    """
    own, (images, sizes), (wrong, wrong_sizes) = match_labels(batch).bool(), batch.images_at(0), wrong_images(batch)
    if sizes is not None and wrong_sizes is not None:  # padded alike: both have sizes, or none
        sizes = ImageSizes(torch.where(own[:, None], sizes.height_width, wrong_sizes.height_width), sizes.largest)
    return torch.where(own[:, None, None, None], images, wrong), sizes


def wrong_images(batch: Batch) -> tuple[Tensor, ImageSizes | None]:
    """The wrong image of each example, (B, 3, H, W), and their sizes (B,).

    They are from the batch, or from the data set where the batch brings them.
    """
    choice = batch.parts["wrong_images"]
    if choice.images is not None:
        return choice.images.at(0)
    images, sizes = batch.images_at(0)
    return images[choice.rows], None if sizes is None else sizes[choice.rows]
