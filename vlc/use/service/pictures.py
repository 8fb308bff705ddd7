"""Pictures from strangers, looked at before they are decoded."""

import io

from vlc.data.images import FORMATS, TooManyPixels, UndecodableImage, UnknownKind, opened
from vlc.use.service.problems import Problem

KINDS = ", ".join(FORMATS)
_JPEG, _SCAN = b"\xff\xd8", b"\xff\xda"
_MOST_SCANS = 64  # of a progressive JPEG, which has about ten; each is a pass over all pixels
_COMPRESSION, _AS_JPEG = 259, (6, 7)  # TIFF's tag, and its values for strips that are JPEGs


def check(data: bytes, max_pixels: int, field: str) -> bytes:
    """Return the bytes of a picture, of which the header alone was read.

    Raises Problem: 415 for bytes of another kind than KINDS, 413 for too many pixels or scans, 400 for a damaged header.
    """
    if data.startswith(_JPEG):
        _check_scans(data, field)
    try:
        with opened(io.BytesIO(data)) as image:
            if image.width * image.height > max_pixels:
                raise TooManyPixels
            if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(_COMPRESSION) in _AS_JPEG:
                for strip in data.split(_JPEG):
                    _check_scans(strip, field)
    except TooManyPixels as error:
        raise Problem(413, f"A picture has more than {max_pixels:,} pixels: make it smaller", field) from error
    except UnknownKind as error:
        raise Problem(415, f"A file is no picture: {KINDS} are taken", field) from error
    except UndecodableImage as error:
        raise Problem(400, f"A picture is damaged: {error}", field) from error
    return data


def _check_scans(jpeg: bytes, field: str) -> None:
    """Refuse a JPEG of scans of some bytes each, which would be decoded for hours."""
    if jpeg.count(_SCAN) > _MOST_SCANS:
        raise Problem(413, f"A picture has more than {_MOST_SCANS} scans: save it again", field)
