"""Features of boxes, pooled from patches, and boxes as tokens."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests import tiny
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.parts.candidates import CandidateTexts
from vlc.data.parts.regions import Regions
from vlc.model.encoder import Encoder
from vlc.model.masking import random_mask
from vlc.model.passes import Pass, encode_passes
from vlc.model.regions import BoxTokens, RegionPooler, bin_weights, locations
from vlc.model.segments import Encoded, Segment

GOLDEN = Path(__file__).parents[1] / "golden" / "tasks" / "roi_align" / "roi_align.npz"
PATCH = 16


@pytest.fixture(scope="module")
def expected() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(file[name]) for name in file}


@pytest.fixture
def pooler() -> RegionPooler:
    torch.manual_seed(0)
    return RegionPooler(5)


def _image(features: Tensor) -> Segment:
    """Features (B, D, rows, columns) as an image's segment; its class token would show in every mean."""
    tokens = features.flatten(2).mT
    return Segment(
        "image",
        torch.cat([tokens.new_full((len(tokens), 1, tokens.shape[2]), 1e6), tokens], 1),
        grid=(*features.shape[2:],),
    )


def _sizes(features: Tensor) -> Tensor:
    rows, columns = features.shape[2:]
    return torch.tensor([[PATCH * columns, PATCH * rows]]).float().expand(len(features), -1)


def _features_alone(pooler: RegionPooler) -> RegionPooler:
    torch.nn.init.zeros_(pooler.location.weight)
    torch.nn.init.zeros_(pooler.location.bias)
    return pooler


def _pooled(pooler: RegionPooler, features: Tensor, boxes: Tensor, sizes: Tensor | None = None) -> Tensor:
    return pooler(_image(features), boxes, _sizes(features) if sizes is None else sizes, PATCH)


@pytest.mark.parametrize("grid", ["square", "wide", "tall"])
@pytest.mark.parametrize("bins", [3, 7])
def test_bins_are_torchvisions(expected, grid, bins):
    features, rois = expected[f"{grid}.features"], expected[f"{grid}.rois"]
    boxes, image = rois[:, None, 1:] / PATCH, features[rois[:, 0].long()]
    rows, columns = bin_weights(
        boxes, features.shape[2:], torch.tensor([features.shape[2:]]).expand(len(rois), 2), bins
    )
    found = torch.einsum("krih,kdhw,krjw->kdij", rows, image, columns)
    torch.testing.assert_close(found, expected[f"{grid}.out{bins}.aligned1.sr2"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", ["square", "wide", "tall"])
def test_features_are_the_means_of_torchvisions_bins(expected, pooler, grid):
    features, rois = expected[f"{grid}.features"], expected[f"{grid}.rois"]
    boxes = torch.stack([rois[rois[:, 0] == number, 1:] for number in (0, 1)])
    found = _pooled(_features_alone(pooler), features, boxes)
    for number in (0, 1):
        mean = expected[f"{grid}.mean7.aligned1.sr2"][rois[:, 0] == number]
        torch.testing.assert_close(found[number], mean, atol=1e-5, rtol=0)


def test_locations_are_those_of_12_in_1(expected):
    boxes, size = expected["location.boxes"].float(), expected["location.size_wh"].float()
    torch.testing.assert_close(locations(boxes[None], size[None])[0], expected["location.location5"].float())


def test_the_location_enters_through_a_linear_layer(pooler):
    features, boxes = torch.randn(1, 5, 4, 6), torch.tensor([[[24.0, 16, 48, 64], [0, 0, 96, 64]]])
    found = _pooled(pooler, features, boxes)
    codes = torch.tensor([[0.25, 0.25, 0.5, 1, 3 / 16], [0, 0, 1, 1, 1]])
    linear = pooler.location(codes)
    torch.testing.assert_close(
        found[0] - _pooled(_features_alone(pooler), features, boxes)[0], linear, atol=1e-5, rtol=0
    )


def test_a_ramp_is_read_at_the_centre_of_a_box(pooler):
    """On features that rise evenly, bilinear interpolation is exact, and a box's mean is the value at its centre."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    features = torch.stack([rows, columns, rows + 2 * columns, 3 - rows, columns * 0])[None]
    boxes = torch.tensor([[[30.0, 40, 33, 42], [8, 8, 136, 88], [16, 32, 64, 64], [100, 50, 100.5, 50.25]]])
    found = _pooled(_features_alone(pooler), features, boxes)[0]
    x, y = (boxes[0, :, :2] + boxes[0, :, 2:]).div(2 * PATCH).sub(0.5).unbind(1)
    torch.testing.assert_close(found, torch.stack([y, x, y + 2 * x, 3 - y, y * 0], 1), atol=1e-4, rtol=0)


def test_a_box_that_is_smaller_than_a_patch_reads_that_patch(pooler):
    features = torch.randn(1, 5, 4, 4)
    boxes = torch.tensor([[[39.99, 23.99, 40.01, 24.01], [0, 0, 1, 1], [63, 63, 64, 64]]])
    found = _pooled(_features_alone(pooler), features, boxes)[0]
    torch.testing.assert_close(found, features[0, :, (1, 0, 3), (2, 0, 3)].mT, atol=5e-3, rtol=0)


def test_images_of_several_sizes_give_what_each_gives_alone(pooler):
    """Padding is never read, and a box at the border of a small image does not see it."""
    padded = torch.full((2, 5, 6, 8), 1e6)
    small, large = torch.randn(1, 5, 3, 5), torch.randn(1, 5, 6, 8)
    padded[0, :, :3, :5], padded[1:] = small, large
    sizes = torch.tensor([[5.0 * PATCH, 3 * PATCH], [8 * PATCH, 6 * PATCH]])
    boxes = torch.tensor([[[0.0, 0, 80, 48], [70, 40, 80, 48]], [[0, 0, 128, 96], [33, 21, 35, 96]]])
    found = _pooled(pooler, padded, boxes, sizes)
    torch.testing.assert_close(found[:1], _pooled(pooler, small, boxes[:1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[1:], _pooled(pooler, large, boxes[1:]), atol=1e-5, rtol=1e-5)


def test_the_order_of_patches_does_not_matter(pooler):
    """Learned positions order patches by `patch_indices`, and leave padding out where they can."""
    features, boxes = torch.randn(2, 5, 3, 4), torch.rand(2, 6, 4).sort(dim=2).values * 48
    sizes = torch.tensor([[64.0, 48], [32, 48]])  # the second image has 6 of 12 patches
    image, whole = _image(features), _pooled(pooler, features, boxes, sizes)
    order = torch.stack([torch.randperm(12), torch.tensor([4, 9, 5, 0, 8, 1, 2, 3, 6, 7, 10, 11])])
    moved = image.tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, 5))
    moved[1, 6:] = 1e6  # padding
    shuffled = replace(image, tokens=torch.cat([image.tokens[:, :1], moved], 1), patch_indices=order)
    torch.testing.assert_close(pooler(shuffled, boxes, sizes, PATCH), whole, atol=1e-5, rtol=1e-5)


def test_half_precision_moves_no_box(pooler):
    features, boxes = torch.randn(1, 5, 24, 24), torch.rand(1, 50, 4).sort(dim=2).values * 384
    plain = _pooled(pooler, features, boxes)
    with torch.autocast("cpu", torch.bfloat16):
        half = _pooled(pooler, features, boxes)
    assert half.dtype == torch.float32
    assert torch.equal(half, plain)
    of_halves = _pooled(RegionPooler(5).bfloat16(), features.bfloat16(), boxes)
    assert of_halves.dtype == torch.float32


def test_gradients_reach_the_patches_that_a_box_covers(pooler):
    features = torch.randn(1, 5, 4, 4, requires_grad=True)
    boxes = torch.tensor([[[16.0, 16, 32, 48], [0, 0, 0, 0]]])
    _pooled(pooler, features, boxes)[:, 0].sum().backward()
    covered = torch.zeros(4, 4, dtype=torch.bool)
    covered[0:4, 0:3] = True  # the patches under it, and those whose centres are less than a patch away
    assert torch.equal(features.grad[0, 0] != 0, covered)


def test_the_feature_of_an_outlined_object_is_the_mean_of_the_patches_in_it(pooler):
    features = torch.zeros(1, 5, 4, 4)
    features[0, 0, :, 2:] = 1  # the right half of the image
    box, size = torch.tensor([[[0.0, 0, 64, 64]]]), torch.tensor([[64.0, 64]])
    outlines = torch.zeros(3, 1, 14, 14, dtype=torch.bool)
    outlines[0, 0, :, :5], outlines[1, 0, :, 9:], outlines[2] = True, True, True
    pooler, image = _features_alone(pooler), _image(features.repeat(3, 1, 1, 1))
    found = pooler(image, box.expand(3, -1, -1), size.expand(3, -1), PATCH, outlines)[:, 0, 0]
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(found[2:], pooler(_image(features), box, size, PATCH)[:, 0, 0])
    corner = torch.zeros(1, 1, 14, 14, dtype=torch.bool)
    corner[..., :7, 7:] = True
    dots = torch.zeros(1, 5, 4, 4)
    dots[0, 0, 0, 3], dots[0, 1, 3, 0] = 1, 1
    assert (pooler(_image(dots), box, size, PATCH, corner)[0, 0, :2] > 0).tolist() == [True, False]


@torch.no_grad()
def test_the_class_of_an_object_changes_its_token_and_no_other():
    torch.manual_seed(0)
    tokens = BoxTokens(32, 0, 81)
    image = _image(torch.randn(1, 32, 4, 4))
    boxes, size = torch.tensor([[[0.0, 0, 32, 32], [16.0, 16, 64, 64]]]), torch.tensor([[64.0, 64]])
    regions = Regions(boxes, boxes, torch.ones(1, 2, dtype=torch.bool), size, torch.zeros(1, 2, 3))
    plain = tokens.pooled(image, regions, PATCH).tokens
    named = tokens.pooled(image, replace(regions, classes=torch.tensor([[0, 17]])), PATCH).tokens
    torch.testing.assert_close(named - plain, tokens.classes.weight[[0, 17]][None])
    assert {name for name, _ in BoxTokens(32, 2).named_parameters()} == {
        *("type_embedding", "pooler.location.weight", "pooler.location.bias"),
        *("links.embedding.weight", "links.projection.weight"),
    }  # as in older checkpoints


def test_dropped_patches_are_refused(pooler):
    image = replace(_image(torch.randn(1, 5, 2, 2)), patches=random_mask(torch.rand(1, 4), 0.5))
    for segment in (image, Segment("text", torch.randn(1, 5, 5))):
        with pytest.raises(ValueError, match=f"{segment.name!r} lacks some"):
            pooler(segment, torch.rand(1, 3, 4), torch.tensor([[32.0, 32.0]]), PATCH)


PLACED = Pass(("text", "image", "boxes"))
RANKED = Pass(("candidates", "image", "boxes"), pooled_only=True)
TAGS = 3


def _regions(boxes: Tensor, mask: Tensor) -> Regions:
    return Regions(boxes, boxes, mask, torch.tensor([[64.0, 64], [64, 48]]), torch.zeros(2, 2, 3))


def _encoder(num_box_tags: int = TAGS) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny.SMALL, 64, vocab_size=20, max_text_len=8, num_box_tags=num_box_tags).eval()
    for parameter in encoder.regions.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return encoder


@pytest.fixture
def encoder() -> Encoder:
    return _encoder()


@pytest.fixture
def batch() -> Batch:
    """Two images, of four boxes and of two, and a text for each."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 20, (2, 6), generator=generator)
    tags = torch.tensor([[0, 1, 1, 0, 3, 0], [0, 0, 2, 1, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0]])
    regions = _regions(
        torch.rand(2, 4, 4, generator=generator).sort(dim=2).values * 64,
        torch.tensor([[True, True, True, True], [True, True, False, False]]),
    )
    images = Images(torch.rand(2, 1, 3, 64, 64, generator=generator))
    text = Text(ids, mask, int(mask.sum()), tags=tags)
    return Batch(index=torch.arange(2), split="val", images=images, text=text, parts={"regions": regions})


def _placed(encoder: Encoder, batch: Batch) -> Encoded:
    return encode_passes(encoder, batch, [PLACED])[PLACED]


def _with_regions(batch: Batch, **values: Tensor) -> Batch:
    return batch.with_parts(regions=replace(batch.parts["regions"], **values))


@torch.no_grad()
@pytest.mark.parametrize("num_tags", [0, 4])
def test_boxes_have_no_order(batch, num_tags):
    """Boxes in another order, with tags that follow them, have the same states in that order."""
    encoder, order = _encoder(num_tags), torch.tensor([2, 0, 3, 1])
    mask = torch.ones(2, 4, dtype=torch.bool)
    first = _placed(encoder, _with_regions(batch, mask=mask))
    tags = torch.cat([torch.zeros(1, dtype=torch.int64), order.argsort() + 1])[batch.text.tags]
    moved = _with_regions(
        replace(batch, text=replace(batch.text, tags=tags)), mask=mask, boxes=batch.parts["regions"].boxes[:, order]
    )
    if num_tags:
        encoder.regions.links.embedding.weight.copy_(encoder.regions.links.embedding.weight[order])
    second = _placed(encoder, moved)
    torch.testing.assert_close(second["boxes"], first["boxes"][:, order], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(second.pooled, first.pooled, atol=1e-5, rtol=1e-4)
    assert not torch.isclose(first["boxes"][:, 0], first["boxes"][:, 1], atol=1e-2).all(), "boxes differ"


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
def test_boxes_that_are_padding_change_nothing(encoder, batch, training):
    encoder.train(training)
    plain = _placed(encoder, batch)
    more = {name: getattr(batch.parts["regions"], name) for name in ("boxes", "mask")}
    padded = _placed(
        encoder,
        _with_regions(
            batch,
            boxes=torch.cat([more["boxes"], torch.rand(2, 3, 4) * 60], 1),
            mask=torch.cat([more["mask"], torch.zeros(2, 3, dtype=torch.bool)], 1),
        ),
    )
    torch.testing.assert_close(padded.pooled, plain.pooled, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded["boxes"][:, :4][more["mask"]], plain["boxes"][more["mask"]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(padded["image"], plain["image"], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_tagged_word_gains_the_tags_embedding_and_a_projection_of_the_boxs_feature(encoder, batch):
    regions, text = encoder.regions, encoder.embed_text(batch.text)
    features = regions.pooled(encoder.embed_images(batch.images.pixels[:, 0]), batch.parts["regions"], 16)
    linked, boxes = regions([text, features], [batch.text.tags, None])
    gained, names = linked.tokens - text.tokens, regions.links.embedding.weight
    assert not gained[batch.text.tags == 0].any()
    torch.testing.assert_close(
        gained[0, 4], names[2] + regions.links.projection(features.tokens[0, 2]), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(
        gained[1, 2], names[1] + regions.links.projection(features.tokens[1, 1]), atol=1e-5, rtol=1e-4
    )
    own = boxes.tokens - features.tokens - regions.type_embedding
    torch.testing.assert_close(own[:, :TAGS], names.expand(2, -1, -1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(own[:, TAGS:], torch.zeros(2, 1, 32), atol=1e-5, rtol=0)
    missing = replace(features, mask=torch.zeros(2, 4, dtype=torch.bool))
    linked, _ = regions([text, missing], [batch.text.tags, None])
    torch.testing.assert_close(linked.tokens[0, 4] - text.tokens[0, 4], names[2], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_new_link_leaves_words_without_tags_and_the_features_of_boxes_out_of_words(batch):
    regions = BoxTokens(32, TAGS)
    text = Segment("text", torch.randn(2, 6, 32))
    boxes = Segment("boxes", torch.randn(2, 4, 32), torch.ones(2, 4, dtype=torch.bool))
    linked, _ = regions([text, boxes], [batch.text.tags, None])
    names = torch.cat([torch.zeros(1, 32), regions.links.embedding.weight])
    assert torch.equal(linked.tokens, text.tokens + names[batch.text.tags])
    assert regions([text, boxes], [None, None])[0] is text


@torch.no_grad()
@pytest.mark.parametrize("rows_at_once", [128, 3])
def test_each_text_of_an_image_sees_the_boxes_of_this_image(encoder, batch, monkeypatch, rows_at_once):
    monkeypatch.setattr("vlc.model.passes._ROWS_AT_ONCE", rows_at_once)
    ids, tags = torch.randint(5, 20, (6, 6)), torch.randint(0, 5, (6, 6))
    texts = Text(ids, torch.ones_like(ids), 36, tags=tags)
    together = encode_passes(encoder, batch.with_parts(candidates=CandidateTexts(texts, [])), [RANKED])[RANKED].pooled
    for number in range(3):
        alone = _placed(encoder, replace(batch, text=texts.at(torch.tensor([number, 3 + number])))).pooled
        torch.testing.assert_close(together.unflatten(0, (2, 3))[:, number], alone, atol=1e-5, rtol=1e-4)


def test_boxes_are_pooled_before_the_blocks_and_located_in_the_image(encoder, batch):
    """A token of a box knows nothing of the text before the blocks, and patches far from it do not reach it there."""
    pixels = batch.images.pixels[:, 0].clone().requires_grad_()
    image = encoder.embed_images(pixels)
    boxes = _regions(torch.tensor([[[0.0, 0, 16, 16]]] * 2), torch.ones(2, 1, dtype=torch.bool))
    encoder.regions.pooled(image, boxes, 16).tokens.sum().backward()
    reached = pixels.grad.abs().sum((0, 1)) > 0
    assert reached[:16, :16].any()
    assert not reached[32:].any()
    assert not reached[:, 32:].any()


@pytest.mark.parametrize("num_tags", [0, TAGS])
def test_every_parameter_of_box_tokens_is_trained_in_every_step(batch, num_tags):
    """DDP waits for the gradients of all."""
    encoder = _encoder(num_tags).train()
    untagged = replace(batch, text=replace(batch.text, tags=torch.zeros_like(batch.text.tags)))
    for given in (batch, untagged, _with_regions(batch, mask=torch.zeros(2, 4, dtype=torch.bool))):
        encoder.zero_grad()
        _placed(encoder, given).pooled.sum().backward()
        assert all(parameter.grad is not None for parameter in encoder.regions.parameters())


def test_a_model_without_box_tokens_has_no_parameters_for_them_and_refuses_boxes(batch):
    torch.manual_seed(0)
    encoder = Encoder(tiny.SMALL, 64, vocab_size=20, max_text_len=8)
    assert not [name for name in encoder.state_dict() if "regions" in name]
    with pytest.raises(AssertionError, match="no objective says"):
        _placed(encoder, batch)
