"""Text-text contrast, against its definition."""

import math

import pytest
import torch
import torch.nn.functional as F

from tests import tiny
from vlc.common.inputs import Text
from vlc.data.batch import Batch
from vlc.data.keys import Key
from vlc.data.parts.text_describes_image import Descriptions, Identity
from vlc.model.encoder import Encoder
from vlc.model.inputs import with_languages
from vlc.model.passes import encode_passes
from vlc.objectives.base import ModelContext
from vlc.objectives.options import TTCOptions
from vlc.objectives.ttc import TTC
from vlc.training.run import build_data

ROWS = [0, 1, 0, 2]  # texts 0 and 2 are of one row


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    text, other = (Text(torch.randint(5, 20, (4, 6)), torch.ones(4, 6).long()) for _ in range(2))
    rows = torch.tensor(ROWS)
    identity = Identity(rows, torch.arange(4), torch.arange(4)[:, None])
    parts = {"second_text": other, "text_describes_image": Descriptions(identity.described_by(identity), identity)}
    return Batch(index=torch.arange(4), split="train", images=None, text=text, parts=parts)


@torch.no_grad()
def test_a_text_finds_its_translation_among_those_of_other_rows(batch):
    encoder = Encoder(tiny.SMALL, 32, vocab_size=20, max_text_len=8).eval()
    objective = TTC(TTCOptions(temperature=0.5), ModelContext(width=32, vocab_size=20, num_patches=4, size=tiny.SMALL))
    outcome = objective(encode_passes(encoder, batch, objective.passes(batch)), batch)
    texts, others = (
        F.normalize(encoder.encode([encoder.embed_text(one)]).pooled, dim=-1)
        for one in (batch.text, batch.parts["second_text"])
    )
    losses, right = [], 0
    for queries, found in ((texts, others), (others, texts)):
        for row, query in enumerate(queries):
            candidates = [other for other in range(4) if other == row or ROWS[other] != ROWS[row]]
            scores = {other: float(query @ found[other]) / 0.5 for other in candidates}
            losses.append(math.log(sum(map(math.exp, scores.values()))) - scores[row])
            right += max(scores, key=scores.get) == row
    assert float(outcome.loss) == pytest.approx(sum(losses) / 8, abs=1e-5)
    assert [int(value) for value in outcome.metrics["accuracy"]] == [right, 8]


def test_without_second_texts_nothing_is_encoded(batch):
    objective = TTC(TTCOptions(), ModelContext(width=32, vocab_size=20, num_patches=4, size=tiny.SMALL))
    alone = Batch(index=batch.index, split="predict", images=None, text=batch.text)
    assert objective.passes(alone) == ()
    assert objective({}, alone).loss is None


def test_second_texts_stand_by_themselves_in_their_own_language(arrows, small_vit):
    options = {"data_root": str(arrows), "vit": small_vit, "languages.embeddings": ["en", "de", "fr", "cs"]}
    dataset = next(iter(build_data(tiny.settings(tasks=["translation_contrast"], **options)).evaluation.values()))
    batch = dataset[[Key(0, number) for number in range(4)]]
    source, where = dataset.locate(0)
    second = batch.parts["second_text"]
    assert second.ids[0, second.mask[0] == 1].tolist() == list(
        dataset.preparation.plain_tokens(source.field(where, "second_text")).ids
    )
    assert batch.images is None
    languages = batch.parts["languages"]
    assert (languages[:, 0] != languages[:, 1]).all()
    assert torch.equal(with_languages(batch.text, batch).languages, languages)
    assert torch.equal(with_languages(second, batch).languages, languages.flip(1))
