"""Samples and batches: reproducible, complete, never with a wrong image that is right."""

import numpy as np
import pytest
import torch

from tests import tiny
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.batch import Needs
from vlc.data.catalog import CATALOG
from vlc.data.dataset import BatchDataset, Key, Recipe, _hash, stack_images
from vlc.data.images import open_image
from vlc.data.tokens import TextEncoder, TokenHider, load_tokenizer
from vlc.data.transforms import transform

ENCODER = TextEncoder(load_tokenizer("emoji"), max_text_len=12)


def _recipe(pipeline: str = "mae", false_images: bool = False) -> Recipe:
    return Recipe(
        transform=transform(pipeline, 32),
        num_patches=4,
        text_encoder=ENCODER,
        token_hider=TokenHider(ENCODER, 0.4, whole_words=False),
        false_images=false_images,
    )


def _dataset(path, columns, needs: Needs, *, training: bool = True, **options) -> BatchDataset:
    spec = CATALOG["coco"]
    source = ArrowSplit([tiny.write_table(path / "t.arrow", columns)], spec, "coco", {"image", "caption"})
    return BatchDataset("train", [source], needs, _recipe(**options), training=training, seed=5)


def _captions(*texts: list[str]) -> dict:
    return {"image": [tiny.image_bytes(number) for number in range(len(texts))], "caption": list(texts)}


def _keys(*samples: int, epoch: int = 0) -> list[Key]:
    return [Key(epoch, sample) for sample in samples]


PRETRAINING = Needs(masked_text=True, noise=2, matching=True)


def test_a_batch_has_what_was_asked_for(tmp_path):
    batch = _dataset(tmp_path, _captions(["a dog", "one dog"], ["two cats"]), PRETRAINING)[_keys(0, 1, 2)]
    assert batch.images.shape == (3, 1, 3, 32, 32)
    assert batch.images.dtype == torch.uint8
    assert batch.text.ids.shape == batch.text.mask.shape == (3, 8), "as long as the longest, rounded up to 8"
    assert batch.noise.shape == (3, 2, 4)
    assert batch.index.tolist() == [0, 1, 2]
    assert len(batch.masked_text.positions) == len(batch.masked_text.labels)
    only_images = _dataset(tmp_path, _captions(["a dog"]), Needs())[_keys(0)]
    assert only_images.noise is only_images.negative is only_images.masked_text is None


def test_a_sample_depends_on_seed_epoch_and_number_alone(tmp_path):
    dataset = _dataset(
        tmp_path, _captions(["a dog runs"], ["two cats sit"], ["a bus stops"]), Needs(masked_text=True, noise=1)
    )
    whole, part = dataset[_keys(0, 1, 2)], dataset[_keys(2)]
    torch.testing.assert_close(whole.images[2], part.images[0])
    torch.testing.assert_close(whole.noise[2], part.noise[0])
    torch.testing.assert_close(whole.masked_text.text.ids[2], part.masked_text.text.ids[0])
    other = dataset[_keys(2, epoch=1)]
    assert not torch.equal(other.noise, part.noise)
    assert not torch.equal(other.images, part.images)


def test_a_wrong_image_is_never_the_own_one_nor_one_with_the_same_caption(tmp_path):
    captions = [["same"], ["same"], ["other", "same"], ["fourth"]]
    dataset = _dataset(tmp_path, _captions(*captions), Needs(matching=True))
    texts = ["same", "same", "other", "same", "fourth"]  # by sample
    rows = [0, 1, 2, 2, 3]
    for epoch in range(20):
        negative = dataset[_keys(0, 1, 2, 3, 4, epoch=epoch)].negative.tolist()
        for sample, other in enumerate(negative):
            assert rows[other] != rows[sample]
            assert texts[sample] not in captions[rows[other]]


def test_a_sample_without_a_wrong_image_in_its_batch_points_to_itself(tmp_path):
    dataset = _dataset(tmp_path, _captions(["same"], ["same"]), Needs(matching=True))
    assert dataset[_keys(0, 1)].negative.tolist() == [0, 1]


def test_wrong_images_from_the_data_set(tmp_path):
    dataset = _dataset(
        tmp_path, _captions(["a"], ["b"], ["c"]), Needs(matching=True), pipeline="mae_test", false_images=True
    )
    own = dataset[_keys(0, 1, 2)].images[:, 0]
    for epoch in range(5):
        batch = dataset[_keys(1, epoch=epoch)]
        assert batch.negative_images.shape == (1, 1, 3, 32, 32)
        (image,) = batch.negative_images[0]
        assert not torch.equal(image, own[1])
        assert torch.equal(image, own[0]) or torch.equal(image, own[2])


def test_a_wrong_image_is_decoded_once(tmp_path, monkeypatch):
    """What nobody looks at is not decoded: an image of its own and a wrong one for each sample."""
    dataset = _dataset(tmp_path, _captions(["a"], ["b"]), Needs(matching=True), false_images=True)
    decoded = []
    monkeypatch.setattr("vlc.data.dataset.open_image", lambda data: decoded.append(data) or open_image(data))
    dataset[_keys(0, 1)]
    assert len(decoded) == 4


def test_no_wrong_image_in_the_whole_data_set_is_told(tmp_path):
    dataset = _dataset(tmp_path, _captions(["a"], ["a"]), Needs(matching=True), false_images=True)
    with pytest.raises(UserError, match="No wrong image found for the caption 'a'"):
        dataset[_keys(0)]


def test_corrupt_images_are_replaced_in_training_and_refused_in_evaluation(tmp_path):
    columns = _captions(["a"], ["b"])
    columns["image"][1] = columns["image"][1][:50]
    batch = _dataset(tmp_path, columns, Needs())[_keys(1)]
    assert batch.index.tolist() == [0]
    assert [(image.table, image.row) for image in batch.corrupt] == [("t", 1)]
    with pytest.raises(UserError, match=r"row 1 of t.arrow cannot be decoded"):
        _dataset(tmp_path, columns, Needs(), training=False)[_keys(1)]


def test_a_data_set_of_corrupt_images_alone_is_refused(tmp_path):
    columns = _captions(["a"]) | {"image": [b""]}
    with pytest.raises(UserError, match="100 images in a row cannot be decoded"):
        _dataset(tmp_path, columns, Needs())[_keys(0)]


def test_sources_are_joined_in_order(tmp_path):
    spec = CATALOG["coco"]
    sources = [
        ArrowSplit(
            [tiny.write_table(tmp_path / f"{name}.arrow", _captions(*texts))], spec, "coco", {"image", "caption"}
        )
        for name, texts in (("a", (["one", "two"], ["three"])), ("b", (["four"],)))
    ]
    dataset = BatchDataset("val", sources, Needs(), _recipe(), training=False, seed=0)
    assert len(dataset) == 4
    found = [source.text(where) for source, where in map(dataset.locate, range(4))]
    assert found == ["one", "two", "three", "four"]
    with pytest.raises(IndexError):
        dataset.locate(4)


def test_fields_are_collated_and_left_out_where_withheld(arrows):
    spec = CATALOG["vqa"]
    needs = Needs(fields=frozenset({"answer_labels", "answer_scores"}), ids=frozenset({"question_id"}))
    columns = spec.columns(needs.fields | needs.ids)
    batches = {}
    for split, stem in (("val", "vqav2_rest_val"), ("test", "vqav2_test")):
        source = ArrowSplit([arrows / f"{stem}.arrow"], spec, "vqa", columns)
        batches[split] = BatchDataset(split, [source], needs, _recipe(), training=False, seed=0)[_keys(0, 1, 2)]
    fields = batches["val"].fields
    assert fields["answer_labels"].tolist()[0][1] == 2
    torch.testing.assert_close(fields["answer_scores"], torch.tensor([[1.0, 0.3]] * 3))
    assert set(batches["test"].fields) == {"question_id"}
    assert np.array_equal(np.diff(batches["test"].fields["question_id"]), [1, 1])


def test_images_of_several_shapes_are_padded_and_say_so():
    images = [torch.full((3, *shape), 9, dtype=torch.uint8) for shape in ((2, 5), (4, 3), (4, 4))]
    (pairs, sizes), (others, other_sizes) = stack_images([images[:2], images[1:]], [images[2:], images[:1]])
    assert pairs.shape == (2, 2, 3, 4, 5)
    assert others.shape == (2, 1, 3, 4, 5)
    assert sizes.pixels.tolist() == [[[2, 5], [4, 3]], [[4, 3], [4, 4]]]
    assert other_sizes.pixels.tolist() == [[[4, 4]], [[2, 5]]]
    assert sizes.largest == other_sizes.largest == 16
    shown = (pairs == 9).all(2)
    assert shown[0, 0, :2, :5].all()
    assert shown.sum((2, 3)).tolist() == [[10, 12], [12, 16]]


def test_images_of_one_shape_have_no_sizes():
    ((images, sizes),) = stack_images([[torch.zeros(3, 4, 6)], [torch.ones(3, 4, 6)]])
    assert images.shape == (2, 1, 3, 4, 6)
    assert sizes is None


def test_shown_pairs_are_told_within_and_across_batches_with_each_rows_texts_read_once(tmp_path, monkeypatch):
    rows = [["a dog", "one dog"], ["two cats"], ["a dog", "a bus"], ["a bus", "two cats", "a tree"]]
    dataset = _dataset(tmp_path, _captions(*rows), Needs(shows=True))
    owner = [number for number, row in enumerate(rows) for _ in row]
    text = [text for row in rows for text in row]
    reads, read = [], ArrowSplit.texts
    monkeypatch.setattr(ArrowSplit, "texts", lambda self, where: reads.append(where.row) or read(self, where))
    first, second = dataset[_keys(0, 1, 3, 2)], dataset[_keys(4, 7, 5, 6)]
    assert sorted(reads) == [0, 1, 2, 2, 3], "each row once a batch"
    for images, texts in ((first, first), (first, second), (second, first), (second, second)):
        found = images.identity.shows(texts.identity)
        for i, sample in enumerate(texts.index.tolist()):
            for j, other in enumerate(images.index.tolist()):
                expected = owner[sample] == owner[other] or text[sample] in rows[owner[other]]
                assert found[i, j] == expected, (sample, other)
    assert torch.equal(first.shows, first.identity.shows(first.identity))


def test_hashes_of_texts_are_the_same_in_every_process():
    assert _hash("a dog") == _hash("a " + "dog") == -4081912340589182210
    assert _hash("a dog") != _hash("a dog ")
