"""Pictures from strangers, looked at before they are decoded."""

import io

from vlc.data.images import FORMATS, TooManyPixels, UndecodableImage, UnknownKind, opened
from vlc.use.service.problems import Problem

KINDS = ", ".join(FORMATS)


def check(data: bytes, max_pixels: int, field: str) -> bytes:
    """Return the bytes of a picture, of which the header alone was read.

    Raises Problem: 415 for bytes of another kind than KINDS, 413 for too many pixels, 400 for a damaged header.
    """
    try:
        with opened(io.BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                raise TooManyPixels
    except TooManyPixels as error:
        raise Problem(413, f"A picture has more than {max_pixels:,} pixels: make it smaller", field) from error
    except UnknownKind as error:
        raise Problem(415, f"A file is no picture: {KINDS} are taken", field) from error
    except UndecodableImage as error:
        raise Problem(400, f"A picture is damaged: {error}", field) from error
    return data
