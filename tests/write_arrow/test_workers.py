"""Images are read and checked; what cannot be used is told with the reason."""

import io

import pytest
from PIL import Image

from tests.tiny import image_bytes
from vlc.common.errors import UserError
from write_arrow.machine.storage import Folder, StoredFile
from write_arrow.machine.workers import Rejected, Task, prepare, problem_of, workers


def _encoded(mode: str, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (30, 20)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "image",
    [
        image_bytes(),
        image_bytes(kind="PNG"),
        _encoded("L", "JPEG"),
        _encoded("CMYK", "JPEG"),
        _encoded("P", "PNG"),
        _encoded("RGBA", "PNG"),
        _encoded("I;16", "PNG"),
        _encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (30, 20), 1)]),
        _encoded("1", "BMP"),
    ],
)
def test_images_of_all_kinds_are_good(image):
    assert problem_of(image) is None


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "an empty file"),
        (b"<html>not found</html>", "not an image of a known format"),
        (image_bytes(size=(400, 300))[:3000], "OSError: image file is truncated"),
        (image_bytes(kind="PNG")[:800], "OSError"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "EPS"),
    ],
)
def test_bad_images_are_told(image, reason):
    assert problem_of(image).startswith(reason)


def test_a_row_goes_if_one_of_its_images_does(tmp_path):
    good = image_bytes()
    (tmp_path / "good.jpg").write_bytes(good)
    (tmp_path / "bad.jpg").write_bytes(b"bad")
    files = {name: StoredFile(f"{name}.jpg") for name in ("good", "bad", "none")}
    rows = [(files["good"], files["good"]), (files["good"], files["bad"]), (files["none"], files["good"])]
    prepared = prepare(Task(Folder(tmp_path), rows, verify=True))
    assert prepared.rows == [0]
    assert [(column.content, column.ends) for column in prepared.images] == [(good, [len(good)])] * 2
    assert prepared.rejected == [
        Rejected(1, "bad.jpg", "not an image of a known format"),
        Rejected(2, "none.jpg", "no such file"),
    ]
    assert prepare(Task(Folder(tmp_path), rows, verify=False)).rows == [0, 1]


def test_pictures_of_another_size_than_stated_go(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # shown with width and height exchanged
    images = {
        "plain.jpg": image_bytes(size=(40, 30)),
        "turned.jpg": _encoded("RGB", "JPEG", exif=turned),  # stored as 30 x 20
        "turned.tif": _encoded("RGB", "TIFF", tiffinfo={0x0112: 6}),
        "plain.png": image_bytes(kind="PNG"),
    }
    for name, content in images.items():
        (tmp_path / name).write_bytes(content)
    rows = [(StoredFile(name),) for name in images]
    for verify in (True, False):
        right = Task(Folder(tmp_path), rows, verify, [(40, 30), (20, 30), (20, 30), (40, 30)])
        assert prepare(right).rejected == []
        wrong = Task(Folder(tmp_path), rows, verify, [(40, 31), (30, 20), (30, 20), (41, 30)])
        assert [reason for _, _, reason in prepare(wrong).rejected] == [
            "the picture has 40x30 pixels, and its annotation says 40x31",
            *["the picture has 20x30 pixels, and its annotation says 30x20"] * 2,
            "the picture has 40x30 pixels, and its annotation says 41x30",
        ]
    (tmp_path / "plain.jpg").write_bytes(b"bad")
    (rejected,) = prepare(Task(Folder(tmp_path), rows[:1], False, [(40, 30)])).rejected
    assert "not a JPEG" in rejected.reason


def test_processes_give_results_in_order_and_report_failures(tmp_path):
    tasks = []
    for number in range(6):
        (tmp_path / str(number)).write_bytes(b"x" * number)
        tasks.append((number, Task(Folder(tmp_path), [(StoredFile(str(number)),)], verify=False)))
    with workers(2) as pool:
        found = [(key, prepared.images[0].content) for key, prepared in pool.run(iter(tasks))]
        assert found == [(number, b"x" * number) for number in range(6)]
        broken = Task(Folder(tmp_path), [(StoredFile("x" * 5000),)], verify=False)  # a name that no system takes
        with pytest.raises(UserError, match="File name too long"):
            list(pool.run([(0, broken)]))


def test_ray_has_to_be_installed(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray needs Ray: pip install"), workers(2, "local"):
        pass
