"""Pictures from strangers, looked at before they are decoded."""

import io

from vlc.data.images import FORMATS, TooManyPixels, UndecodableImage, UnknownKind, opened
from vlc.use.service.problems import Problem

KINDS = ", ".join(FORMATS)
_JPEG, _SCAN, _MOST_SCANS = (
    b"\xff\xd8",
    b"\xff\xda",
    64,
)  # a progressive JPEG has about ten; each is a pass over all pixels


def check(data: bytes, max_pixels: int, field: str) -> bytes:
    """Return the bytes of a picture, of which the header alone was read.

    Raises Problem: 415 for bytes of another kind than KINDS, 413 for too many pixels or scans, 400 for a damaged header.
    """
    if data.startswith(_JPEG) and data.count(_SCAN) > _MOST_SCANS:  # some bytes each, that would be decoded for hours
        raise Problem(413, f"A picture has more than {_MOST_SCANS} scans: save it again", field)
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
