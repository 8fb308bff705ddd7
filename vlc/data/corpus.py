"""A split as two sets, for retrieval: its images, and its texts without decoding an image for each."""

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.keys import Key
from vlc.data.samples import Samples


class Corpus:
    """Images and texts of an evaluation split, numbered in the order of its samples.

    text_image (texts,) int64: the image that each text belongs to. Rows without a text are no candidates.
    """

    def __init__(self, dataset: Samples):
        if dataset.preparation.text_encoder is None:
            raise UserError("image_only=True leaves no texts to rank")
        self._dataset = dataset
        images: dict[tuple[int, int, int], int] = {}
        self._first_sample: list[int] = []
        self.text_image = np.empty(len(dataset), dtype=np.int64)
        for sample in range(len(dataset)):
            source, where = dataset.locate(sample)
            number = images.setdefault((id(source), where.batch, where.row), len(images))
            if number == len(self._first_sample):
                self._first_sample.append(sample)
            self.text_image[sample] = number

    @property
    def num_images(self) -> int:
        return len(self._first_sample)

    @property
    def num_texts(self) -> int:
        return len(self.text_image)

    def image(self, number: int) -> Tensor:
        """An image (3, H, W) uint8."""
        return self._dataset.first_image(Key(0, self._first_sample[number]))

    def token_ids(self) -> list[list[int]]:
        """Token ids of all texts."""
        ids = []
        for sample in range(self.num_texts):
            source, where = self._dataset.locate(sample)
            ids.append(self._dataset.preparation.encoder(source.text(where)).ids)
        return ids

    def padded(self, ids: list[list[int]], numbers: np.ndarray) -> Text:
        """The token ids of some texts as a batch; numbers: of these texts."""
        return self._dataset.with_languages(self._dataset.preparation.encoder.pad(ids), numbers.tolist())

    def texts_by_length(self, size: int) -> Iterator[tuple[np.ndarray, Text]]:
        """Chunks of up to `size` texts of similar length: their numbers, and the texts padded to the longest of them."""
        ids = self.token_ids()
        order = np.argsort([len(row) for row in ids], kind="stable")
        for start in range(0, len(order), size):
            numbers = order[start : start + size]
            yield numbers, self.padded([ids[number] for number in numbers], numbers)
