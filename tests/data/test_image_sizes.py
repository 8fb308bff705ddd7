"""A part that is a file of its own: nothing else knows it."""

import io
from pathlib import Path

from PIL import Image

import vlc
from tests import tiny
from tests.data.made import captions, keys, samples
from vlc.data.parts.image_sizes import ImageSizes


def test_height_and_width_are_those_of_the_stored_upright_pictures(tmp_path):
    columns = captions(["a"], ["b"], ["c"])
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (40, 30)).save(turned, "JPEG", exif=exif)
    columns["image"] = [tiny.image_bytes(0, (40, 30)), tiny.image_bytes(1, (70, 90), "PNG"), turned.getvalue()]
    batch = samples(tmp_path, columns, {ImageSizes()})[keys(0, 1, 2)]
    assert batch.parts["image_sizes"].tolist() == [[[30, 40]], [[90, 70]], [[40, 30]]]


def test_no_other_module_of_the_package_names_it():
    for path in Path(vlc.__file__).parent.rglob("*.py"):
        if path.name != "image_sizes.py":
            assert "image_sizes" not in path.read_text(encoding="utf-8"), path
