"""Text-text matching, and pre-training on translations."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from vlc.common.inputs import Images, Text
from vlc.data.batch import Batch
from vlc.data.keys import Key
from vlc.data.parts.matched_translations import MatchedTexts
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives.base import ModelContext
from vlc.objectives.options import TTMOptions
from vlc.objectives.ttm import TTM
from vlc.training.run import build_data, build_module


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    segments = (torch.arange(6) > 2).long().expand(3, 6)
    text, other = (Text(torch.randint(5, 20, (3, 6)), torch.ones(3, 6).long(), segments=segments) for _ in range(2))
    parts = {"matched_texts": MatchedTexts(other, torch.tensor([1, 0, 1]))}
    images = Images(torch.rand(3, 1, 3, 32, 32))
    return Batch(index=torch.arange(3), split="val", images=images, text=text, parts=parts)


@pytest.mark.parametrize("image", [True, False])
@torch.no_grad()
def test_pairs_of_texts_are_classified_beside_the_image_or_alone(batch, image):
    encoder = Encoder(tiny.SMALL, 32, vocab_size=20, max_text_len=8).eval()
    objective = TTM(TTMOptions(image), ModelContext(width=32, vocab_size=20, num_patches=4, size=tiny.SMALL)).eval()

    def outcome(batch):
        return objective(encode_passes(encoder, batch, objective.passes(batch)), batch)

    found, labels = outcome(batch), batch.parts["matched_texts"].labels
    torch.testing.assert_close(found.loss, F.cross_entropy(found.logits, labels))
    assert found.metrics["accuracy"] == ((found.logits.argmax(1) == labels).sum(), 3)
    others = outcome(replace(batch, images=Images(batch.images.pixels.flip(0)))).logits
    assert torch.equal(found.logits, others) == (not image)
    own = outcome(replace(batch, parts={}))
    assert own.loss is None
    assert [answer.choices[0][0] for answer in objective.answers(own, batch)] == ["translation"] * 3
    plain = replace(batch, text=replace(batch.text, segments=None))
    assert objective.answers(own, plain) == [], "one text has no translation beside it"


def test_pairs_and_single_sentences_train_in_one_run(arrows, small_vit):
    options = {"data_root": str(arrows), "vit": small_vit, "num_workers": 0}
    settings = tiny.settings("task_pretrain_multi30k", **options, image_size=32)
    pairs, captions = settings.tasks
    data = build_data(settings)
    module = build_module(settings, data)
    assert set(module.objectives) == {"itm", "mlm", "mae", "text_matching"}
    for task, heads, segments in (
        (pairs, {"itm", "mlm", "mae", "text_matching"}, 2),
        (captions, {"itm", "mlm", "mae"}, 1),
    ):
        batch = module.normalised(data.tasks[task.name].train[[Key(0, 0), Key(0, 3), Key(0, 5)]])
        outcomes = module.outcomes(batch)
        assert set(outcomes) == heads
        assert (batch.text.segments is not None) == (segments == 2)
        module.total_loss(outcomes, task.name).backward()
    assert module.objectives["text_matching"].fc.weight.grad.abs().max() > 0
