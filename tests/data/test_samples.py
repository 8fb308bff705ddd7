"""Samples and batches: reproducible, complete, never with a wrong image that is right."""

import numpy as np
import pytest
import torch

from tests import tiny
from tests.data.made import captions, keys, preparation, samples
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.parts import Field, MaskedText, PatchNoise, WrongImages, columns_of
from vlc.data.samples import Samples

PRETRAINING = (MaskedText(0.4), PatchNoise(0), PatchNoise(1), WrongImages())


def test_a_batch_has_what_was_asked_for(tmp_path):
    batch = samples(tmp_path, captions(["a dog", "one dog"], ["two cats"]), PRETRAINING)[keys(0, 1, 2)]
    assert batch.images.pixels.shape == (3, 1, 3, 32, 32)
    assert batch.images.pixels.dtype == torch.uint8
    assert batch.text.ids.shape == batch.text.mask.shape == (3, 8), "as long as the longest, rounded up to 8"
    assert batch.parts["patch_noise_0"].shape == batch.parts["patch_noise_1"].shape == (3, 4)
    assert batch.index.tolist() == [0, 1, 2]
    assert len(batch.parts["masked_text"].positions) == len(batch.parts["masked_text"].labels)
    assert set(batch.parts) == {part.name for part in PRETRAINING}
    only_images = samples(tmp_path, captions(["a dog"]), ())[keys(0)]
    assert not only_images.parts


def test_a_sample_depends_on_seed_epoch_and_number_alone(tmp_path):
    dataset = samples(
        tmp_path, captions(["a dog runs"], ["two cats sit"], ["a bus stops"]), {MaskedText(0.4), PatchNoise(0)}
    )
    whole, part = dataset[keys(0, 1, 2)], dataset[keys(2)]
    torch.testing.assert_close(whole.images.pixels[2], part.images.pixels[0])
    torch.testing.assert_close(whole.parts["patch_noise_0"][2], part.parts["patch_noise_0"][0])
    torch.testing.assert_close(whole.parts["masked_text"].text.ids[2], part.parts["masked_text"].text.ids[0])
    other = dataset[keys(2, epoch=1)]
    assert not torch.equal(other.parts["patch_noise_0"], part.parts["patch_noise_0"])
    assert not torch.equal(other.images.pixels, part.images.pixels)


def test_two_parts_of_one_name_are_refused_where_they_differ(tmp_path):
    columns = captions(["a dog"], ["two cats"])
    assert len(samples(tmp_path, columns, [MaskedText(0.4), MaskedText(0.4)]).parts) == 1
    with pytest.raises(UserError, match=r"want masked_text in two ways, MaskedText\(.*0.* give their options"):
        samples(tmp_path, columns, [MaskedText(0.4), MaskedText(0.2)])


def test_corrupt_images_are_replaced_in_training_and_refused_in_evaluation(tmp_path):
    columns = captions(["a"], ["b"])
    columns["image"][1] = columns["image"][1][:50]
    batch = samples(tmp_path, columns, ())[keys(1)]
    assert batch.index.tolist() == [0]
    assert [(image.table, image.row) for image in batch.corrupt] == [("t", 1)]
    with pytest.raises(UserError, match=r"row 1 of t.arrow cannot be decoded"):
        samples(tmp_path, columns, (), training=False)[keys(1)]


def test_a_data_set_of_corrupt_images_alone_is_refused(tmp_path):
    columns = captions(["a"]) | {"image": [b""]}
    with pytest.raises(UserError, match="100 images in a row cannot be decoded"):
        samples(tmp_path, columns, ())[keys(0)]


def test_sources_are_joined_in_order(tmp_path):
    spec = CATALOG["coco"]
    sources = [
        ArrowSplit([tiny.write_table(tmp_path / f"{name}.arrow", captions(*texts))], spec, "coco", {"image", "caption"})
        for name, texts in (("a", (["one", "two"], ["three"])), ("b", (["four"],)))
    ]
    dataset = Samples("val", sources, (), preparation(), training=False, seed=0)
    assert len(dataset) == 4
    found = [source.text(where) for source, where in map(dataset.locate, range(4))]
    assert found == ["one", "two", "three", "four"]
    with pytest.raises(IndexError):
        dataset.locate(4)


def test_fields_are_collated_and_left_out_where_withheld(arrows):
    spec = CATALOG["vqa"]
    parts = {Field("answer_labels"), Field("answer_scores"), Field("question_id", "always")}
    columns = spec.columns(columns_of(parts))
    batches = {}
    for split, stem in (("val", "vqav2_rest_val"), ("test", "vqav2_test")):
        source = ArrowSplit([arrows / f"{stem}.arrow"], spec, "vqa", columns)
        batches[split] = Samples(split, [source], parts, preparation(), training=False, seed=0)[keys(0, 1, 2)]
    fields = batches["val"].parts
    assert fields["answer_labels"].tolist()[0][1] == 2
    torch.testing.assert_close(fields["answer_scores"], torch.tensor([[1.0, 0.3]] * 3))
    assert set(batches["test"].parts) == {"question_id"}
    assert np.array_equal(np.diff(batches["test"].parts["question_id"]), [1, 1])
