"""Decoding: cached states equal those of whole passes, and the search finds what it should find."""

import torch
from torch import Tensor

from tests import tiny
from vlc.common.inputs import Text
from vlc.model.decoding import BeamSearch, Continuation, Hypothesis
from vlc.model.embed import init_bert_weights
from vlc.model.encoder import Encoder
from vlc.model.segments import Segment

FIRST, LAST, VOCABULARY = 1, 2, 12


def _encoder(**options) -> Encoder:
    torch.manual_seed(0)
    encoder = Encoder(tiny.SMALL, 32, vocab_size=VOCABULARY, max_text_len=24, **options).eval()
    encoder.text_embeddings.word_embeddings.weight.data *= 20  # states should differ by token
    return encoder


def _prefix(encoder: Encoder, lengths: tuple[int, ...] = (5, 2, 4)) -> tuple[list[Segment], Tensor]:
    """Texts of unequal lengths with images, and the position behind each text."""
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=rng)
    images = torch.rand(len(lengths), 3, 32, 32, generator=rng)
    ends = torch.tensor(lengths)
    mask = (torch.arange(max(lengths)) < ends[:, None]).long()
    return [encoder.embed_text(Text(ids, mask), "source"), encoder.embed_images(images)], ends


def _target(ids: Tensor, ends: Tensor) -> Text:
    positions = ends[:, None] + torch.arange(ids.shape[1])
    return Text(ids, torch.ones_like(ids), None, torch.ones_like(ids), positions=positions, causal=True)


@torch.inference_mode()
def _whole(encoder: Encoder, ids: Tensor, lengths=(5, 2, 4), task: str = "") -> dict[str, Tensor]:
    """The states of one pass over prefix and targets, by segment."""
    segments, ends = _prefix(encoder, lengths)
    encoded = encoder.encode([*segments, encoder.embed_text(_target(ids, ends), "target")], task=task)
    return {segment.name: segment.tokens for segment in encoded.segments}


def test_editing_a_target_token_changes_only_the_targets_from_it_on():
    encoder = _encoder()
    ids = torch.randint(3, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(2))
    before = _whole(encoder, ids)
    for place in range(6):
        edited = ids.clone()
        edited[:, place] = (edited[:, place] - 2) % (VOCABULARY - 3) + 3
        after = _whole(encoder, edited)
        for name in ("source", "image"):
            assert torch.equal(before[name], after[name])
        assert torch.equal(before["target"][:, :place], after["target"][:, :place])
        assert (before["target"][:, place:] - after["target"][:, place:]).abs().amax(2).min() > 1e-4


@torch.inference_mode()
def test_cached_states_equal_those_of_a_whole_pass():
    for tasks in ((), ("captions",)):
        encoder, task = _encoder(task_tokens=tasks), "".join(tasks)
        ids = torch.randint(3, VOCABULARY, (3, 6), generator=torch.Generator().manual_seed(2))
        whole = _whole(encoder, ids, task=task)["target"]
        behind = Continuation(encoder, *_prefix(encoder), task=task)
        for place in range(6):
            torch.testing.assert_close(behind.step(ids[:, place], torch.arange(3)), whole[:, place], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_texts_may_be_exchanged_and_examples_left_out_between_steps():
    """Two texts for each of three examples. After three tokens the second example ends, and the others go on as others."""
    encoder = _encoder()
    ids = torch.randint(3, VOCABULARY, (6, 5), generator=torch.Generator().manual_seed(2))
    behind = Continuation(encoder, *_prefix(encoder), beams=2)
    for place in range(3):
        behind.step(ids[:, place], torch.arange(6))
    taken = torch.tensor([1, 1, 5, 4])
    texts = torch.cat([ids[taken, :3], ids[:4, 3:]], dim=1)
    behind.step(texts[:, 3], taken)
    states = behind.step(texts[:, 4], torch.arange(4))
    segments, ends = _prefix(encoder)
    rows = torch.tensor([0, 0, 2, 2])
    prefix = [Segment(one.name, one.tokens[rows], None if one.mask is None else one.mask[rows]) for one in segments]
    whole = encoder.encode([*prefix, encoder.embed_text(_target(texts, ends[rows]), "target")])["target"]
    torch.testing.assert_close(states, whole[:, 4], atol=1e-5, rtol=0)


def _search(encoder: Encoder, head, beams: int, lengths=(5, 2, 4), rows=None, **options) -> list[Hypothesis]:
    segments, ends = _prefix(encoder, lengths)
    if rows is not None:
        segments = [Segment(s.name, s.tokens[rows], None if s.mask is None else s.mask[rows]) for s in segments]
        ends = ends[rows]
    behind = Continuation(encoder, segments, ends, beams=beams)
    search = BeamSearch(FIRST, LAST, beams, **({"length_penalty": 1.0, "max_len": 8} | options))
    return search(lambda ids, rows: head(behind.step(ids, rows)).log_softmax(1), len(ends), torch.device("cpu"))


def _head(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    head = torch.nn.Linear(32, VOCABULARY).apply(init_bert_weights)
    head.weight.data *= 20
    head.bias.data[LAST] = 2  # so that texts end
    return head


@torch.inference_mode()
def test_one_beam_is_greedy_search():
    encoder, head = _encoder(), _head(3)
    found = _search(encoder, head, 1)
    for row in range(3):
        ids, total = torch.full((3, 1), FIRST), 0.0
        for _ in range(8):
            probabilities = head(_whole(encoder, ids)["target"][:, -1]).log_softmax(1)
            token = int(probabilities[row].argmax())
            total += float(probabilities[row, token])
            ids = torch.cat([ids, torch.full((3, 1), token)], dim=1)
            if token == LAST:
                break
        assert found[row].ids == [token for token in ids[row, 1:].tolist() if token != LAST]
        assert abs(found[row].score - total / (ids.shape[1] - 1)) < 1e-5


@torch.inference_mode()
def test_scores_are_those_of_whole_passes_and_a_batch_is_its_examples_alone():
    encoder, lengths = _encoder(), set()
    for seed in range(4):
        head = _head(seed)
        found = _search(encoder, head, 3)
        for row, (ids, score) in enumerate(found):
            shown = torch.tensor([[FIRST, *ids]]).expand(3, -1)
            own = head(_whole(encoder, shown)["target"]).log_softmax(2)[row]
            following = [*ids, LAST][:8]
            total = sum(float(own[place, token]) for place, token in enumerate(following))
            assert abs(score - total / len(following)) < 1e-5
            (alone,) = _search(encoder, head, 3, rows=torch.tensor([row]))
            assert alone.ids == ids
            assert abs(alone.score - score) < 1e-5
            lengths.add(len(ids))
    assert len(lengths) > 2  # examples end at different steps


def _of_table(table: dict[tuple[int, ...], list[float]]):
    """Log-probabilities of the next token by the text so far, as a function for the search."""
    state: list[tuple[int, ...]] = []

    def log_probs(ids: Tensor, continued: Tensor) -> Tensor:
        texts = [state[row] if state else () for row in continued.tolist()]
        state[:] = [(*text, token) for text, token in zip(texts, ids.tolist(), strict=True)]
        unlikely = [1.0, 0, 0, 0, 0]
        return torch.tensor([table.get(text[1:], unlikely) for text in state]).log()

    return log_probs


def test_beams_find_what_greedy_search_misses_and_the_penalty_decides_about_length():
    table = {(): [0, 0, 0.1, 0.5, 0.4], (3,): [0, 0, 0.4, 0.3, 0.3], (4,): [0, 0, 0.9, 0.05, 0.05]}
    probabilities = _of_table(table), _of_table(table)
    greedy = BeamSearch(FIRST, LAST, 1, 1.0, 4)(probabilities[0], 1, torch.device("cpu"))
    assert greedy[0].ids == [3]
    several = BeamSearch(FIRST, LAST, 2, 1.0, 4)(probabilities[1], 1, torch.device("cpu"))
    assert several[0].ids == [4]
    assert several[0].score == torch.tensor([0.4 * 0.9]).log().item() / 2
    long = {(): [0, 0, 0.45, 0.55, 0], (3,): [0, 0, 0.8, 0.2, 0]}
    by_mean, by_sum = (
        BeamSearch(FIRST, LAST, 2, penalty, 4)(_of_table(long), 1, torch.device("cpu"))[0].ids for penalty in (1.0, 0.0)
    )
    assert (by_mean, by_sum) == ([3], [])
