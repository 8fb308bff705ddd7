"""The command hard_pool: nearest images as comparing everything finds them, and published pools converted."""

import json
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from tests.conftest import GOLDEN
from vlc.common.errors import MissingFile, UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.hard_pool import NONE, open_pool
from vlc.training.run import run
from vlc.use import hard_pool
from vlc.use.hard_pool import make_hard_pools, nearest_images
from vlc.use.model import Model
from vlc.use.published_pool import PublishedPool
from write_arrow.__main__ import main

RAW, EXPECTED = GOLDEN / "tasks/retrieval/raw", GOLDEN / "tasks/retrieval/expected"
VIT = "mae_vit_tiny_patch16"


@pytest.fixture(scope="module")
def checkpoint(arrows, tmp_path_factory) -> str:
    options = {
        "data_root": str(arrows),
        "log_dir": str(tmp_path_factory.mktemp("log")),
        "vit": VIT,
        "datasets": ["coco"],
    }
    metrics = run(tiny.settings(**options, loss_names=loss_weights(itm=1)))
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


def _make(folder: Path, data_root: Path, **values) -> dict[str, int]:
    values = {"data_root": str(data_root), "datasets": ["coco"], "out": str(folder), "num_gpus": 0, **values}
    return make_hard_pools(*resolve_use(num_workers=0, per_gpu_batchsize=4, **values))


def _training(data_root: Path, name: str = "coco") -> ArrowSplit:
    paths = [data_root / f"{stem}.arrow" for stem in CATALOG[name].tables["train"]]
    return ArrowSplit(paths, CATALOG[name], name, {"image", "caption"}, read_texts=False)


def test_the_nearest_by_the_mean_of_their_patches(checkpoint, arrows, tmp_path):
    num_images = 2 * tiny.ROWS  # of two tables
    assert _make(tmp_path, arrows, load_path=checkpoint) == {"coco": num_images}
    source, model = _training(arrows), Model.from_checkpoint(checkpoint, num_gpus=0)
    near = open_pool(source, str(tmp_path)).near.numpy()
    images = [model.prepared(source.image(source.locate(n), "image").to_pybytes()) for n in range(num_images)]
    module = model.module
    with torch.inference_mode():
        encoded = module.encoder.encode([module.encoder.embed_images(model.stacked([[i] for i in images]).at(0)[0])])
    features = F.normalize(encoded["image"][:, 1:].mean(dim=1))
    similar = (features @ features.T - 2 * torch.eye(num_images)).numpy()
    assert near.shape == (num_images, num_images - 1)
    found = np.take_along_axis(similar, near, axis=1)
    np.testing.assert_allclose(found, -np.sort(-similar, axis=1)[:, :-1], atol=1e-6)
    stored = np.load(tmp_path / "coco_hard_pool.npz")
    made_from = json.loads(str(stored["made_from"]))
    assert made_from["checkpoint"] == checkpoint
    assert [table["name"] for table in made_from["tables"]] == [path.name for path in source.paths]
    assert stored["image_ids"][tiny.ROWS] == str(tiny.ROWS)  # the image_id of the first row of the second table


def test_by_default_a_pool_lies_beside_its_tables(checkpoint, arrows, tmp_path):
    (tmp_path / "arrows").mkdir()
    for path in _training(arrows).paths:
        os.link(path, tmp_path / "arrows" / path.name)
    assert _make(None, tmp_path / "arrows", load_path=checkpoint, out=None) == {"coco": 2 * tiny.ROWS}
    assert len(open_pool(_training(tmp_path / "arrows"), None).near) == 2 * tiny.ROWS


def test_images_that_cannot_be_decoded_are_left_out(checkpoint, tmp_path):
    images = [tiny.image_bytes(number) for number in range(6)]
    images[2] = b"no image"
    texts = [[tiny.sentence(number)] for number in range(6)]
    for stem in CATALOG["coco"].tables["train"]:
        tiny.write_table(tmp_path / f"{stem}.arrow", {"image": images, "caption": texts, "image_id": list(range(6))})
    with pytest.warns(UserWarning, match=r"cannot be decoded: .*karpathy_train\.arrow:2"):
        assert _make(tmp_path, tmp_path, load_path=checkpoint, max_corrupt_ratio=0.5) == {"coco": 10}
    pool = np.load(tmp_path / "coco_hard_pool.npz")
    assert pool["undecodable"].tolist() == [2, 8]
    assert pool["near"].shape == (12, 9)
    assert not np.isin(pool["near"], [2, 8]).any()
    assert (pool["near"] == NONE).all(axis=1).nonzero()[0].tolist() == [2, 8]
    assert pool["image_ids"].tolist() == [str(number) for number in [*range(6), *range(6)]]
    open_pool(_training(tmp_path), str(tmp_path))


@pytest.mark.parametrize("at_once", [1, 700, 2**24])
def test_neighbours_are_those_of_all_similarities_whatever_the_blocks(at_once, monkeypatch):
    monkeypatch.setattr(hard_pool, "_SIMILARITIES_AT_ONCE", at_once)
    features = F.normalize(torch.randn(150, 12, generator=torch.manual_seed(0)))
    features[7] = features[120]
    known = torch.ones(150, dtype=torch.bool)
    known[[0, 33]] = False
    near = nearest_images(features, known, count=20)
    similar = features @ features.T
    similar[:, ~known] = -2
    similar.fill_diagonal_(-2)
    best = similar.sort(dim=1, descending=True).values[:, :20]
    for row in range(150):
        if not known[row]:
            assert near[row].tolist() == [NONE] * 20
            continue
        found = similar[row, torch.from_numpy(near[row]).long()]
        torch.testing.assert_close(found, best[row], atol=1e-6, rtol=0)
        ties = (found.diff() == 0).nonzero()[:, 0]
        assert (np.diff(near[row])[ties] > 0).all(), "the lower number first"
    assert near[7, 0] == 120


@pytest.mark.parametrize("name", ["coco", "flickr30k", "coco_clean", "flickr30k_clean"])
def test_cosine_of_unit_features_has_the_published_order(name):
    """Published are Euclidean distances, whose order is the same for features of length 1."""
    features = np.load(EXPECTED / f"hard_pool_{name}.npz")["features"]
    unit = F.normalize(torch.from_numpy(features))
    near = nearest_images(unit, torch.ones(len(unit), dtype=torch.bool))
    distances = torch.cdist(unit.double(), unit.double()).fill_diagonal_(torch.inf)
    assert near.tolist() == distances.sort(stable=True).indices[:, :-1].tolist()


def test_data_without_training_images_is_refused(checkpoint, arrows, tmp_path):
    for name in ("nlvr2", "nlvr2_subsets"):
        with pytest.raises(UserError, match=f"datasets: {name!r} has no training images that stand alone"):
            _make(tmp_path, arrows, load_path=checkpoint, datasets=[name])
    with pytest.raises(UserError, match="hard pools are for training, leave splits out"):
        _make(tmp_path, arrows, load_path=checkpoint, splits=["val"])


# -- published pools


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """The images of the published pools, written by our converters."""
    folder = tmp_path_factory.mktemp("published")
    for name, root in (("coco", "coco"), ("f30k", "flickr30k")):
        main([name, "--root", str(RAW / root), "--out", str(folder), "--workers", "1"])
    return folder


@pytest.mark.parametrize("name", ["coco", "flickr30k"])
def test_published_pools_are_converted(published, tmp_path, name):
    """Equal to what the published loader has, without the image itself and without those that have no file."""
    dataset = {"coco": "coco", "flickr30k": "f30k"}[name]
    with pytest.warns(UserWarning, match=r"1 of its \d+ images are not in the data set, and 0 of the"):
        counts = _make(
            tmp_path, published, datasets=[dataset], published_pool=str(RAW / f"hard_negative/{name}/hard_negative.pkl")
        )
    expected = np.load(EXPECTED / f"hard_pool_{name}.npz")
    ids, pool = expected["image_ids"].tolist(), expected["pool"]
    source = _training(published, dataset)
    near = open_pool(source, str(tmp_path))
    stored = np.load(tmp_path / f"{dataset}_hard_pool.npz")["image_ids"].tolist()
    ours = [int("".join(filter(str.isdigit, name.rpartition("_")[2]))) for name in stored]
    assert len(ours) == len(ids) - 1 == counts[dataset]
    for number, image in enumerate(ours):
        row = pool[ids.index(image)]
        assert ids[row[0]] == image
        found = [ours[other] for other in near.near_of(near.location(number))]
        assert found == [ids[other] for other in row[1:] if ids[other] in ours]


def test_a_pool_of_some_of_the_images_names_those_that_lack(published, tmp_path):
    with pytest.warns(UserWarning, match=r"and \d of the 18 images of the data set are not in it"):
        _make(tmp_path, published, published_pool=str(RAW / "hard_negative/coco/hard_negative_cleaned.pkl"))
    with pytest.raises(UserError, match=r"lacks \d of the 18 images that are trained on"):
        open_pool(_training(published), str(tmp_path))


def _dumped(path: Path, pool, ids, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps({"train_hard_pool": pool, "train_image_list": ids}, protocol))
    return path


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("dtype", [">f4", "<f8", "i8", "i4"])
def test_pickles_of_every_protocol_are_read(tmp_path, protocol, dtype):
    pool = np.asfortranarray([[0, 1], [1, 0], [2, 1]]).astype(dtype)
    for ids in ([5, 6, 2**40], np.array([5, 6, 7]), list(np.array([5, 6, 7])), ["5", "6", "7"]):
        read = PublishedPool.read(_dumped(tmp_path / "a.pkl", pool, ids, protocol))
        assert read.near.tolist() == [[0, 1], [1, 0], [2, 1]]
        assert read.image_ids.tolist() == [int(number) for number in ids]


class _Evil:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_nothing_that_a_pickle_names_is_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pool = np.zeros((1, 1))
    path = _dumped(tmp_path / "a.pkl", pool, [_Evil()])
    with pytest.raises(UserError, match=r"a\.pkl is damaged or no hard pool of 12-in-1"):
        PublishedPool.read(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("pool", "ids"),
    [
        (np.zeros((2, 1)), [1]),
        (np.full((1, 1), 0.5), [1]),
        (np.full((1, 1), np.nan), [1]),
        (np.full((1, 1), 1.0), [1]),
        (np.full((1, 1), -1.0), [1]),
        (np.zeros(1), [1]),
        (np.array([["a"]]), [1]),
        (np.array([[None]]), [1]),
        (None, [1]),
    ],
    ids=str,
)
def test_other_contents_are_refused(tmp_path, pool, ids):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's about a cast of NaN
        with pytest.raises(UserError, match="is damaged or no hard pool of 12-in-1"):
            PublishedPool.read(_dumped(tmp_path / "a.pkl", pool, ids))


def test_damaged_and_missing_files_are_refused(tmp_path):
    path = RAW / "hard_negative/coco/hard_negative.pkl"
    for length in range(0, path.stat().st_size - 1, 101):
        (tmp_path / "a.pkl").write_bytes(path.read_bytes()[:length])
        with pytest.raises(UserError, match="is damaged or no hard pool of 12-in-1"):
            PublishedPool.read(tmp_path / "a.pkl")
    with pytest.raises(MissingFile, match="published_pool=nothing.pkl does not exist"):
        PublishedPool.read(Path("nothing.pkl"))


def test_images_without_or_with_equal_numbers_are_told(tmp_path):
    pool = PublishedPool.read(_dumped(tmp_path / "a.pkl", np.array([[0, 1], [1, 0]]), [1, 2]))
    for names, message in (
        (["a.jpg"], "has no number"),
        (["a1.jpg", "b01.jpg"], "several images .* have the number 1"),
    ):
        with pytest.raises(UserError, match=message):
            pool.for_images(names)
    with pytest.raises(UserError, match=r"has no image of the data set, whose first one is '9\.jpg'"):
        pool.for_images(["9.jpg"])


def test_a_checkpoint_and_a_published_pool_are_not_both_taken(arrows, tmp_path):
    with pytest.raises(UserError, match="load_path and published_pool are both given"):
        _make(tmp_path, arrows, load_path="a.ckpt", published_pool="b.pkl")


def test_pools_hold_as_many_columns_as_there_are_neighbours(tmp_path):
    pool = PublishedPool.read(_dumped(tmp_path / "a.pkl", np.array([[0, 1, 2], [2, 0, 1], [2, 0, 1]]), [10, 20, 30]))
    with pytest.warns(UserWarning, match="1 of its 3 images are not in the data set"):
        near = pool.for_images(["x_30.jpg", "x_10.jpg"])
    assert near.tolist() == [[1], [0]]
    assert pool.for_images(["30", "10", "20"]).tolist() == [[1, 2], [2, 0], [0, 1]]
    assert near.dtype == np.int32
