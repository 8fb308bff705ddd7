"""Images as users have them: files, encoded bytes, Pillow images and arrays; or as the model prepared them before."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from PIL import Image, ImageOps

from vlc.common.errors import MissingFile, UserError
from vlc.data.geometry import Shown
from vlc.data.images import Picture, open_image, to_rgb

ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Shown


def several(given: Any) -> list[Any]:
    """The items of a sequence, or a single image or text as a list."""
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]


def read_image(path: str | Path) -> bytes:
    """Return the bytes of an image file. Raises MissingFile, or UserError where it cannot be read."""
    if not Path(path).is_file():
        raise MissingFile(f"Image {path} " + ("is a folder: name a file" if Path(path).is_dir() else "does not exist"))
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Image {path} cannot be read: {error.strerror}") from error


def picture_of(image: bytes | pa.Buffer | Image.Image | np.ndarray) -> Picture:
    """Return the upright picture in RGB. Raises UndecodableImage, or UserError for an array of another shape or type."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"an array of shape {image.shape} and {image.dtype} is no image: expected (height, width, 3) uint8"
            )
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    return open_image(pa.py_buffer(image) if isinstance(image, bytes) else image)
