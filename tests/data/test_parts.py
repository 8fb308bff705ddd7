"""The parts of a batch: never a wrong image or text that is right, labels that are true, and draws that stay."""

import pytest
import torch

from tests.data.made import captions, keys, samples
from vlc.common.errors import UserError
from vlc.data.arrow import ArrowSplit
from vlc.data.images import open_image
from vlc.data.parts import MaskedText, PatchNoise, TextDescribesImage, WrongImages, WrongTexts
from vlc.data.parts.text_describes_image import text_hash


def test_a_wrong_image_is_never_the_own_one_nor_one_with_the_same_caption(tmp_path):
    texts_of_rows = [["same"], ["same"], ["other", "same"], ["fourth"]]
    dataset = samples(tmp_path, captions(*texts_of_rows), {WrongImages()})
    texts = ["same", "same", "other", "same", "fourth"]  # by sample
    rows = [0, 1, 2, 2, 3]
    for epoch in range(20):
        wrong = dataset[keys(0, 1, 2, 3, 4, epoch=epoch)].parts["wrong_images"].rows.tolist()
        for sample, other in enumerate(wrong):
            assert rows[other] != rows[sample]
            assert texts[sample] not in texts_of_rows[rows[other]]


def test_a_sample_without_a_wrong_image_in_its_batch_points_to_itself(tmp_path):
    dataset = samples(tmp_path, captions(["same"], ["same"]), {WrongImages()})
    assert dataset[keys(0, 1)].parts["wrong_images"].rows.tolist() == [0, 1]


def test_wrong_images_from_the_data_set(tmp_path):
    dataset = samples(tmp_path, captions(["a"], ["b"], ["c"]), {WrongImages("dataset")}, pipeline="mae_test")
    own = dataset[keys(0, 1, 2)].images.pixels[:, 0]
    for epoch in range(5):
        batch = dataset[keys(1, epoch=epoch)]
        assert batch.parts["wrong_images"].images.pixels.shape == (1, 1, 3, 32, 32)
        (image,) = batch.parts["wrong_images"].images.pixels[0]
        assert not torch.equal(image, own[1])
        assert torch.equal(image, own[0]) or torch.equal(image, own[2])


def test_a_wrong_image_is_decoded_once(tmp_path, monkeypatch):
    """What nobody looks at is not decoded: an image of its own and a wrong one for each sample."""
    dataset = samples(tmp_path, captions(["a"], ["b"]), {WrongImages("dataset")})
    decoded = []
    monkeypatch.setattr("vlc.data.samples.open_image", lambda data: decoded.append(data) or open_image(data))
    dataset[keys(0, 1)]
    assert len(decoded) == 4


def test_no_wrong_image_in_the_whole_data_set_is_told(tmp_path):
    dataset = samples(tmp_path, captions(["a"], ["a"]), {WrongImages("dataset")})
    with pytest.raises(UserError, match="No wrong image found for the caption 'a'"):
        dataset[keys(0)]


def test_shown_pairs_are_told_within_and_across_batches_with_each_rows_texts_read_once(tmp_path, monkeypatch):
    rows = [["a dog", "one dog"], ["two cats"], ["a dog", "a bus"], ["a bus", "two cats", "a tree"]]
    dataset = samples(tmp_path, captions(*rows), {TextDescribesImage()})
    owner = [number for number, row in enumerate(rows) for _ in row]
    text = [text for row in rows for text in row]
    reads, read = [], ArrowSplit.texts
    monkeypatch.setattr(ArrowSplit, "texts", lambda self, where: reads.append(where.row) or read(self, where))
    first, second = dataset[keys(0, 1, 3, 2)], dataset[keys(4, 7, 5, 6)]
    assert sorted(reads) == [0, 1, 2, 2, 3], "each row once a batch"
    for images, texts in ((first, first), (first, second), (second, first), (second, second)):
        described, texts_of = (batch.parts["text_describes_image"].identity for batch in (images, texts))
        found = described.described_by(texts_of)
        for i, sample in enumerate(texts.index.tolist()):
            for j, other in enumerate(images.index.tolist()):
                expected = owner[sample] == owner[other] or text[sample] in rows[owner[other]]
                assert found[i, j] == expected, (sample, other)
    descriptions = first.parts["text_describes_image"]
    assert torch.equal(descriptions.within, descriptions.identity.described_by(descriptions.identity))


def test_hashes_of_texts_are_the_same_in_every_process():
    assert text_hash("a dog") == text_hash("a " + "dog") == -4081912340589182210
    assert text_hash("a dog") != text_hash("a dog ")


class TestMaskedText:
    def test_labels_are_the_true_tokens_at_flat_positions(self, tmp_path):
        rows = [["a red dog runs past two small houses"], ["dog"]]
        batch = samples(tmp_path, captions(*rows), {MaskedText(0.5)})[keys(0, 1)]
        masked, true = batch.parts["masked_text"], batch.text.ids.flatten()
        assert len(masked.positions)
        assert true[masked.positions].tolist() == masked.labels.tolist()
        assert torch.equal(masked.text.mask, batch.text.mask)
        shown = torch.ones(len(true), dtype=torch.bool)
        shown[masked.positions] = False
        assert torch.equal(masked.text.ids.flatten()[shown], true[shown])

    def test_nothing_hidden_gives_empty_labels(self, tmp_path):
        batch = samples(tmp_path, captions([""]), {MaskedText(0.15)})[keys(0)]
        assert batch.parts["masked_text"].labels.shape == (0,)


def test_draws_stay_what_they_were(tmp_path):
    """The order of the parts' names decides which draws of a sample are whose: these are those of the first version."""
    parts = (WrongTexts(2), WrongImages(), PatchNoise(1), TextDescribesImage(), PatchNoise(0), MaskedText(0.4))
    rows = [["a dog", "one dog"], ["two cats"], ["three red cars"], ["a bus on a tree"]]
    batch = samples(tmp_path, captions(*rows), parts)[keys(0, 3, 2, epoch=1)]
    masked, wrong = batch.parts["masked_text"], batch.parts["wrong_images"]
    drawn = {
        "positions": masked.positions.tolist(),
        "noise 0": round(float(batch.parts["patch_noise_0"].sum()), 5),
        "noise 1": round(float(batch.parts["patch_noise_1"].sum()), 5),
        "keeps": [round(draw, 5) for draw in wrong.keeps_own_image.tolist()],
        "rows": wrong.rows.tolist(),
        "texts": batch.parts["wrong_texts"].ids.sum(1).tolist(),
    }
    assert drawn == {
        "positions": [12],
        "noise 0": 6.1933,
        "noise 1": 6.01219,
        "keeps": [0.9927, 0.62963, 0.94327],
        "rows": [2, 2, 1],
        "texts": [8926, 14968, 8926, 10039, 10039, 4103],
    }
