"""Ranking in each language apart, and ranking translations, against plain loops and against runs of one language."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import vlc
from tests import tiny
from tests.ranked import matrices, matrix, of, stored
from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.data.corpus import Corpus, Group, Translations
from vlc.data.transforms import normalize
from vlc.evaluation.ranking import evaluate
from vlc.evaluation.scorer import Scorer
from vlc.training.run import build_data, build_module, run

# (text, language, kind, number of the sentence) of each row; de 2 and de 3 are equal, and one row has no French.
ROWS = [
    [("a dog", "en", "translation", 0), ("der hund", "de", "translation", 0), ("le chien", "fr", "translation", 0)],
    [("two dogs", "en", "translation", 0), ("zwei hunde", "de", "translation", 0), ("a cat", "en", "caption", 7)],
    [("the tree", "en", "translation", 0), ("rot", "de", "translation", 0), ("un arbre", "fr", "translation", 0)],
    [("two red houses", "en", "translation", 0), ("rot", "de", "translation", 0), ("rouge", "fr", "translation", 0)],
    [
        ("face", "en", "translation", 0),
        ("das grinsende gesicht", "de", "translation", 0),
        ("gesicht", "de", "caption", 1),
    ],
]
PAIRS = {"en-de": 5, "de-en": 5, "en-fr": 3, "fr-en": 3, "de-fr": 3, "fr-de": 3}  # sources of each direction


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("multi30k")
    columns = {
        name: [[text[place] for text in row] for row in ROWS]
        for place, name in enumerate(("caption", "lang", "kind", "sent_idx"))
    }
    columns |= {"image": [tiny.image_bytes(number) for number in range(len(ROWS))]}
    for split in ("train", "val", "test_2016_flickr"):
        tiny.write_table(folder / f"multi30k_{split}.arrow", columns)
    return folder


@pytest.fixture
def options(folder, tmp_path, small_vit) -> dict:
    sizes = {"batch_size": 4, "per_gpu_batchsize": 4}
    return {"log_dir": str(tmp_path), "vit": small_vit, "data_root": str(folder)} | sizes


def _scorer(task: str, options: dict, corpus=Translations, **more) -> Scorer:
    settings = tiny.settings(**(options | {"tasks": [task]} | more))
    data = build_data(settings)
    torch.manual_seed(0)
    module = build_module(settings, data).eval()
    (head,) = module.objectives.values()
    return Scorer(module.encoder, corpus(data.evaluation[f"{task}/val"]), torch.device("cpu"), score=head.score)


def test_texts_of_a_language_are_ranked_as_in_a_run_of_this_language_alone(options):
    scorer = _scorer("irtr_multi30k", options, Corpus)
    both = {group.name: group for group in scorer.corpus.groups}
    assert {name: (len(own.rows), len(own.columns)) for name, own in both.items()} == {
        "de": (5, 5),
        "en": (5, 5),
        "fr": (3, 3),
    }
    everything = evaluate(scorer, None)
    for name in both:
        alone = _scorer("irtr_multi30k", options, Corpus, **{"irtr_multi30k.tested_where.lang": [name]})
        values = evaluate(alone, None)
        assert values == {key: value for key, value in everything.items() if key.endswith(f"_{name}")} | {
            "r_mean": values[f"r_mean_{name}"]
        }
    means = [everything[f"r_mean_{name}"] for name in both]
    assert everything["r_mean"] == pytest.approx(np.mean(means))
    recalls = [everything[f"{way}_r1_fr"] for way in ("ir", "tr")]
    assert everything["r_mean_fr"] == pytest.approx(np.mean(recalls)), "three candidates have no recall at 5"


def test_the_recalls_of_languages_select_and_are_written_with_the_kind_of_the_texts(options, tmp_path):
    named = {"tasks": ["irtr_multi30k"], "max_steps": 1, "irtr_multi30k.where.lang": ["en"]}
    own = options | named | {"irtr_multi30k.tested_where": {"lang": ["en", "de"]}, "get_recall_metric": True}
    trained = run(tiny.settings(**own))
    assert trained["val/the_metric"] == pytest.approx(trained["irtr_multi30k/val/r_mean"])
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**own, test_only=True, load_path=saved, save_scores=True))
    written = json.loads(Path(tested["log_dir"], "irtr_multi30k_test_2016_flickr_ranking.json").read_text())
    assert (written["images"], written["texts"], written["kinds"]) == (5, 10, ["translation"])
    assert written["r_mean_de"] == pytest.approx(tested["irtr_multi30k/test_2016_flickr/r_mean_de"])
    arrays = np.load(Path(tested["log_dir"], "irtr_multi30k_test_2016_flickr_ranking.npz"))
    assert arrays["scores_de"].shape == (5, 5)
    np.testing.assert_array_equal(arrays["row_keys_de"], arrays["column_keys_de"])


@pytest.mark.parametrize("task", ["translation_retrieval", "translation_retrieval_image"])
def test_a_sentence_is_scored_with_each_translation_as_in_a_batch(options, task):
    scorer = _scorer(task, options)
    corpus, encoder = scorer.corpus, scorer.encoder
    assert {group.name: len(group.rows) for group in corpus.groups} == PAIRS
    assert (corpus.image(0) is None) == (task == "translation_retrieval")
    scores = matrix(scorer.exact())
    texts = {}
    for group in corpus.groups:
        language = group.name.partition("-")[2]
        there = [row[place] for row in ROWS for place in range(len(row)) if row[place][1] == language]
        targets = [text for text, _, kind, _ in there if kind == "translation"]
        assert of(group, scores).shape == (PAIRS[group.name], len(targets)), "all texts of the language are candidates"
        texts[group.name] = targets
    # The pairs of the split, in the order of its samples, have the score of their batch.
    samples = corpus._dataset
    batch = samples[[(0, sample) for sample in range(len(samples))]]
    assert (batch.images is None) == (task == "translation_retrieval")
    for sample in range(len(samples)):
        source, where = samples.locate(sample)
        own, other = (source.field(where, name) for name in ("lang", "second_lang"))
        group = next(group for group in corpus.groups if group.name == f"{own}-{other}")
        row = int(np.flatnonzero(group.row_keys == (where.row << 20))[0])
        column = texts[group.name].index(source.field(where, "second_text"))
        with torch.inference_mode():
            segments = [encoder.embed_text(batch.text.at(slice(sample, sample + 1)))]
            if batch.images is not None:
                pixels = scorer.corpus.image(group.rows[row])[None]
                segments.append(encoder.embed_images(_normalised(scorer, pixels)))
            expected = scorer.score(encoder.encode(segments).pooled)
        assert of(group, scores)[row, column] == pytest.approx(float(expected), abs=1e-5)


def _normalised(scorer: Scorer, pixels: torch.Tensor) -> torch.Tensor:
    return normalize(pixels, scorer.encoder.size.pixel_normalization)


def test_equal_sentences_are_scored_alike_and_count_against_the_right_one(options):
    scorer = _scorer("translation_retrieval", options)
    group = next(group for group in scorer.corpus.groups if group.name == "en-de")
    everything = matrix(scorer.exact())
    scores = of(group, everything)
    (equal,) = np.flatnonzero(np.bincount(group.columns) == 2)
    first, second = np.flatnonzero(group.columns == equal)
    np.testing.assert_array_equal(scores[:, first], scores[:, second])
    everything[group.rows, equal] = scores.max() + 1
    ranks = stored(everything).ranks(group, finds_rows=False).of_columns
    assert sorted(ranks.tolist())[:2] == [2, 2], "the best score of both still has the other one before it"


@pytest.mark.parametrize("task", ["translation_retrieval", "translation_retrieval_image"])
def test_two_stages_agree_with_the_exact_ranking_where_everything_is_ranked_again(options, task):
    scorer = _scorer(task, options)
    exact, near = matrix(scorer.exact()), matrix(scorer.similarities())
    assert near.shape == exact.shape
    assert np.abs(near).max() <= 1 + 1e-5
    everything, few = (matrices(scorer.reranked(k))[1] for k in (100, 2))
    for group in scorer.corpus.groups:
        np.testing.assert_allclose(of(group, everything), of(group, exact), atol=1e-6)
        columns = np.unique(group.columns)
        for row in group.rows:
            best = columns[np.argsort(-near[row, columns], kind="stable")[:2]]
            np.testing.assert_allclose(few[row, best], exact[row, best], atol=1e-6)
            others = np.setdiff1d(columns, best)
            assert few[row, others].max(initial=-np.inf) < few[row, best].min()


def test_languages_have_two_stages_of_their_own(options):
    settings = tiny.settings(
        **options, tasks=["irtr_languages_emoji"], **{"irtr_languages_emoji.datasets": ["multi30k"]}
    )
    data = build_data(settings)
    module = build_module(settings, data).eval()
    heads = {"score": module.objectives["irtr"].score, "itc": module.objectives["itc"]}
    scorer = Scorer(module.encoder, Corpus(data.evaluation["irtr_languages_emoji/val"]), torch.device("cpu"), **heads)
    exact, near = matrix(scorer.exact()), matrix(scorer.similarities())
    by_text, by_image = matrices(scorer.reranked(k=2))
    for group in scorer.corpus.groups:
        for image in group.rows:
            best = group.columns[np.argsort(-near[image, group.columns], kind="stable")[:2]]
            np.testing.assert_allclose(by_image[image, best], exact[image, best], atol=1e-6)
        for text in group.columns:
            best = group.rows[np.argsort(-near[group.rows, text], kind="stable")[:2]]
            np.testing.assert_allclose(by_text[best, text], exact[best, text], atol=1e-6)


def test_pairs_are_trained_and_tested(options):
    named = {
        "tasks": ["translation_retrieval"],
        "max_steps": 1,
        "translation_retrieval.choice": {"wrong_translations": 2},
    }
    own = options | named | {"translation_retrieval.tested_pairs": ["en-de", "de-en"], "get_recall_metric": True}
    trained = run(tiny.settings(**own))
    assert trained["val/the_metric"] == pytest.approx(trained["translation_retrieval/val/r_mean"])
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    assert vlc.Model.from_checkpoint(saved).ranking is None, "it ranks no images"
    tested = run(tiny.settings(**own, test_only=True, load_path=saved, rerank_k=2))
    names = {name.split("/")[-1] for name in tested if name.startswith("translation_retrieval/")}
    assert {"r1_en-de", "median_rank_de-en", "r_mean_en-de", "r_mean"} <= names
    written = json.loads(Path(tested["log_dir"], "translation_retrieval_test_2016_flickr_ranking.json").read_text())
    assert (written["sentences"], written["texts"], written["with_images"]) == (10, 9, False)


@given(
    st.integers(1, 4).flatmap(
        lambda count: st.lists(
            st.tuples(
                st.lists(st.sampled_from([-1.0, 0.0, 0.5, np.nan]), min_size=count, max_size=count),
                st.lists(st.booleans(), min_size=count, max_size=count).filter(any),
            ),
            min_size=1,
            max_size=4,
        )
    )
)
def test_ranks_agree_with_plain_loops(queries):
    scores, right = (np.array(column) for column in zip(*queries, strict=True))
    for query, keys in enumerate(right.astype(int)):
        group = Group("", np.array([query]), np.arange(len(keys)), np.ones(1, dtype=int), keys)
        (rank,) = stored(scores).ranks(group, finds_rows=False).of_columns.tolist()
        own = scores[query][right[query]]
        best = np.nan if np.isnan(own).any() else own.max()
        others = [score for score, is_right in zip(scores[query], right[query], strict=True) if not is_right]
        assert rank == 1 + sum(not score < best for score in others)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"composer": "plain"}, r"ranks the translations of sentences .*composer=pair"),
        ({"choice": {"wrong_translations": 0}}, "translation_retrieval.choice.images=0 ranks texts without images"),
        ({"choice": {"wrong_texts": 3}}, "leave those out"),
        ({"choice": {"images": 2}}, r"translation_retrieval.choice.images=2 is not valid: expected 0 or 1"),
    ],
)
def test_what_cannot_be_ranked_is_said(options, changes, said):
    changes = {f"translation_retrieval.{key}": value for key, value in changes.items()}
    with pytest.raises(UserError, match=said):
        tiny.settings(**options, tasks=["translation_retrieval"], **changes)


def test_hard_texts_are_of_all_languages(options):
    own = {"tasks": ["irtr_multi30k"], "irtr_multi30k.choice": {"hard_texts": 1}}
    with pytest.raises(
        UserError, match=r"choice\.hard_texts=1 draws texts .* within irtr_multi30k\.choice\.within=lang"
    ):
        tiny.settings(**options, **own)


def test_a_head_that_ranks_translations_starts_as_text_matching(options):
    own = options | {"pretraining_multi30k.batch_size": 4}
    pretrained = f"{run(tiny.settings('task_pretrain_multi30k', **own))['log_dir']}/checkpoints/last.ckpt"
    state = weights.read(pretrained).state
    for task, matching in (("translation_retrieval", "text_matching"), ("irtr_multi30k", "itm")):
        settings = tiny.settings(**options, tasks=[task], load_path=pretrained)
        (head,) = build_module(settings, build_data(settings)).objectives.values()
        for name, value in head.rank_output.state_dict().items():
            assert torch.equal(value, state[f"objectives.{matching}.fc.{name}"][1:])
