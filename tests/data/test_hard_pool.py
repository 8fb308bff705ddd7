"""Hard pools: texts come from images that look alike, and a pool that does not fit is refused with the command."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.data.made import ENCODER, captions, keys, preparation
from vlc.common.errors import ChangedFile, MissingFile, UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.hard_pool import NONE, open_pool, tables_of, write_pool
from vlc.data.parts import HardTexts, WrongTexts
from vlc.data.samples import Samples

TEXTS = [["a dog", "one dog"], ["a cat"], ["a bus", "one bus"], ["a tree", "a cat"], ["the house"]]
NEAR = [[1, 2], [3, 0], [3, NONE], [1, 4], [0, 1]]
COMMAND = r"python run\.py hard_pool with load_path=CHECKPOINT data_root=.* datasets=\[coco\] out="


def _source(folder: Path, texts: list[list[str]] = TEXTS) -> ArrowSplit:
    path = folder / "t.arrow"
    if not path.exists():  # a table that is written again is another one
        tiny.write_table(path, captions(*texts))
    return ArrowSplit([path], CATALOG["coco"], "coco", {"image", "caption"})


def _samples(folder: Path, part: HardTexts, texts: list[list[str]] = TEXTS, **options) -> Samples:
    return Samples("train", [_source(folder, texts)], {part}, preparation(), **{"training": True, "seed": 5} | options)


def _pool(folder: Path, near=NEAR, undecodable=(), **made_from) -> Path:
    made_from = {"tables": tables_of(_source(folder))} | made_from
    path = folder / "coco_hard_pool.npz"
    write_pool(path, np.array(near, dtype=np.int32), [f"{n}.jpg" for n in range(len(near))], undecodable, made_from)
    return path


def _drawn(dataset, sample: int, epochs: int = 40) -> list[str]:
    """The texts that a sample is given, over epochs."""
    part = dataset.parts[0]
    words = {tuple(ENCODER(text).ids): text for row in TEXTS for text in row}
    batches = [dataset[keys(sample, epoch=epoch)].parts[part.name] for epoch in range(epochs)]
    assert all(len(batch.ids) == part.count for batch in batches)
    cells = [
        (ids, mask) for batch in batches for ids, mask in zip(batch.ids.tolist(), batch.mask.tolist(), strict=True)
    ]
    return [words[tuple(ids[: sum(mask)])] for ids, mask in cells]


@pytest.mark.parametrize("count", [1, 3])
def test_texts_come_from_images_that_look_alike_and_are_never_the_images_own(tmp_path, count):
    _pool(tmp_path)
    dataset = _samples(tmp_path, HardTexts(count))
    assert set(_drawn(dataset, 0)) == {"a cat", "a bus", "one bus"}
    assert set(_drawn(dataset, 2)) == {"a tree", "a dog", "one dog"}, (
        "of row 1, whose image is near those of rows 3 and 0"
    )
    # The first text of row 3 is its own; so is "a cat" of row 1.
    assert set(_drawn(dataset, 5)) == {"the house"}


def test_draws_are_the_same_in_every_process(tmp_path):
    _pool(tmp_path)
    dataset = _samples(tmp_path, HardTexts(2))
    again = pickle.loads(pickle.dumps(dataset))
    assert _drawn(again, 0) == _drawn(dataset, 0)


def test_evaluation_draws_texts_of_random_images_and_needs_no_pool(tmp_path):
    dataset = _samples(tmp_path, HardTexts(1), training=False)
    assert set(_drawn(dataset, 0, epochs=100)) == {text for row in TEXTS[1:] for text in row}


def test_a_pool_in_a_folder_of_its_own(tmp_path):
    (tmp_path / "pools").mkdir()
    _pool(tmp_path).rename(tmp_path / "pools/coco_hard_pool.npz")
    dataset = _samples(tmp_path, HardTexts(1, str(tmp_path / "pools")))
    assert set(_drawn(dataset, 5)) == {"the house"}


def test_rows_are_numbered_over_record_batches_and_tables(tmp_path):
    columns = captions(*TEXTS)
    first, second = ({name: values[part] for name, values in columns.items()} for part in (slice(2), slice(2, 5)))
    paths = [tiny.write_table(tmp_path / name, part) for name, part in (("a.arrow", first), ("b.arrow", second))]
    source = ArrowSplit(paths, CATALOG["coco"], "coco", {"image", "caption"})
    near = np.array(NEAR, dtype=np.int32)
    write_pool(tmp_path / "coco_hard_pool.npz", near, list("abcde"), (), {"tables": tables_of(source)})
    pool = open_pool(source, None)
    rows = [pool.location(number) for number in range(5)]
    assert [(row.batch, row.row) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [pool.near_of(row) for row in rows] == [[n for n in row if n != NONE] for row in NEAR]
    assert [source.texts(row) for row in rows] == TEXTS


def test_a_missing_pool_names_the_command(tmp_path):
    with pytest.raises(MissingFile, match=rf"coco_hard_pool\.npz does not exist: data set 'coco' needs it.*{COMMAND}"):
        _samples(tmp_path, HardTexts(1))


def test_a_pool_of_other_data_is_refused(tmp_path):
    _pool(tmp_path)
    tiny.write_table(tmp_path / "t.arrow", captions(*TEXTS, ["one more"]))
    with pytest.raises(ChangedFile, match=rf"of other data than is trained on: t\.arrow is another file.*{COMMAND}"):
        open_pool(_source(tmp_path), None)
    _pool(tmp_path, tables=[])
    with pytest.raises(ChangedFile, match=r"the training tables are t\.arrow"):
        open_pool(_source(tmp_path), None)


def test_an_image_without_neighbours_is_refused_unless_it_cannot_be_decoded(tmp_path):
    near = [*NEAR[:4], [NONE, NONE]]
    _pool(tmp_path, near)
    with pytest.raises(
        UserError, match=rf"lacks 1 of the 5 images that are trained on, the first in row 4 of t\.arrow.*{COMMAND}"
    ):
        open_pool(_source(tmp_path), None)
    _pool(tmp_path, near, [4])
    assert open_pool(_source(tmp_path), None).near.tolist() == near


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"near.npy") + 60] ^= 255
    path.write_bytes(content)


def _far(path: Path) -> None:
    _pool(path.parent, [*NEAR[:4], [5, 0]])


def _without_tables(path: Path) -> None:
    _pool(path.parent, tables=["t.arrow"])


def _with_objects(path: Path) -> None:
    np.savez(path, near=np.array([{"a": 1}]), undecodable=np.array([]), made_from=np.array(json.dumps({})))


@pytest.mark.parametrize("damage", [_truncated, _flipped, _far, _without_tables, _with_objects])
def test_a_damaged_pool_is_refused(tmp_path, damage):
    damage(_pool(tmp_path))
    with pytest.raises(UserError, match=rf"coco_hard_pool\.npz is damaged or no hard pool .*{COMMAND}"):
        open_pool(_source(tmp_path), None)


def test_look_alikes_without_other_texts_are_told(tmp_path):
    texts = [["same"], ["same"], ["other"]]
    path = tmp_path / "coco_hard_pool.npz"
    tables = {"tables": tables_of(_source(tmp_path, texts))}
    write_pool(path, np.array([[1], [0], [0]], dtype=np.int32), list("abc"), (), tables)
    dataset = _samples(tmp_path, HardTexts(1), texts)
    with pytest.raises(UserError, match="look like the one of 'same' have no texts that it lacks"):
        dataset[keys(0)]


@pytest.mark.parametrize("part", [WrongTexts(2), HardTexts(2)], ids=str)
def test_texts_are_empty_where_all_are(tmp_path, part):
    """A measure of what images alone are worth may not tell the own text from others by being empty."""
    silent = _samples(tmp_path, part, training=False).without_texts()
    batch = silent[keys(0, 3)]
    blank = ENCODER("").ids
    for text in (batch.text, batch.parts[part.name]):
        assert [ids[: len(blank)] for ids in text.ids.tolist()] == [blank] * len(text)
        assert (text.mask.sum(dim=1) == len(blank)).all()
