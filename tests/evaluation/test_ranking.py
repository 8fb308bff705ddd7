"""Ranking whole splits, against the published recalls."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests import golden_models, tiny
from tests.ranked import matrices, matrix, rank_all, recalls_of_all
from vlc.checkpoint.weights import load, read
from vlc.common.errors import NonFiniteMetric, UserError
from vlc.common.inputs import Text
from vlc.configuration.recipes import loss_weights
from vlc.data.corpus import Corpus
from vlc.data.samples import Samples
from vlc.evaluation.ranking import Ranking, evaluate
from vlc.evaluation.scorer import Scorer
from vlc.training.module import VLCModule
from vlc.training.run import build_data, build_module, run

NAMES = ("ir_r1", "ir_r5", "ir_r10", "tr_r1", "tr_r5", "tr_r10")
RECIPE = "task_finetune_irtr_coco_mae_randaug"


def test_published_recalls(golden):
    stored = np.load(golden / "eval/irtr_recall.npz")
    image_number = {image: number for number, image in enumerate(stored["image_ids"].tolist())}
    text_image = np.array([image_number[image] for image in stored["text_image_ids"].tolist()])
    values = recalls_of_all(stored["scores"], text_image)
    for name in NAMES:
        assert values[name] == pytest.approx(float(stored[name]), abs=1e-6), name


class _StoredCorpus(Corpus):
    """The images and texts of the published ranking."""

    def __init__(self, stored: dict):
        self.stored, self.text_image, self.languages = stored, stored["text_image_ids"].numpy(), None

    @property
    def num_rows(self) -> int:
        return len(self.stored["images"])

    @property
    def lengths(self) -> np.ndarray:
        return self.stored["text_masks"].sum(1).numpy()

    def image(self, number: int) -> torch.Tensor:
        return self.stored["images"][number]

    def texts(self, rows: np.ndarray, columns: np.ndarray) -> Text:
        length = self.lengths[columns].max()
        return Text(self.stored["text_ids"][columns, :length], self.stored["text_masks"][columns, :length])


@pytest.mark.parametrize("pairs_at_once", [7, 64])
def test_published_ranking_end_to_end(golden, pairs_at_once):
    stored = torch.load(golden / "eval/irtr_tiny_end_to_end.pt", weights_only=True)
    module = golden_models.load(golden, "irtr").module
    corpus = _StoredCorpus(stored)
    scorer = Scorer(module.encoder, corpus, torch.device("cpu"), score=module.objectives["irtr"].score)
    scores = matrix(scorer.exact(pairs_at_once))
    np.testing.assert_allclose(scores, stored["scores"].numpy(), atol=1e-5, rtol=1e-4)
    values = recalls_of_all(scores, corpus.text_image)
    for name in NAMES:
        if name in values:
            assert values[name] == pytest.approx(float(stored[name]), abs=1e-6), name


def test_ties_count_against_us():
    scores = np.zeros((3, 4), dtype=np.float32)
    ranks = rank_all(scores, np.array([0, 1, 2, 2]))
    assert ranks.of_rows.tolist() == [3, 3, 3, 3]
    assert ranks.of_columns.tolist() == [4, 4, 3], "an image's own texts are no rivals"


def test_a_cutoff_not_below_the_number_of_candidates_is_left_out():
    values = recalls_of_all(np.eye(4, dtype=np.float32), np.arange(4))
    assert values == {
        **{"ir_r1": 1.0, "ir_median_rank": 1.0, "ir_mean_rank": 1.0},
        **{"tr_r1": 1.0, "tr_median_rank": 1.0, "tr_mean_rank": 1.0},
    }


def test_folds_of_a_thousand():
    rng = np.random.default_rng(0)
    text_image = np.arange(5000)
    scores = rng.random((5000, 5000), dtype=np.float32)
    scores[text_image, text_image] = np.where(rng.random(5000) < 0.5, 2, -1)  # half of the right pairs win
    values = recalls_of_all(scores, text_image)
    assert values["ir_r1_1k"] == pytest.approx(0.5, abs=0.03)
    assert not [name for name in recalls_of_all(scores[:4000, :4000], text_image[:4000]) if name.endswith("_1k")]


@pytest.fixture
def options(arrows, tmp_path, small_vit) -> dict:
    return {"data_root": str(arrows), "log_dir": str(tmp_path), "vit": small_vit, "draw_false_text": 3}


def test_a_corpus_numbers_images_and_texts(options):
    data = build_data(tiny.settings(RECIPE, **options))
    corpus = Corpus(data.evaluation["val"])
    assert (corpus.num_rows, corpus.num_columns) == (tiny.ROWS, tiny.ROWS * tiny.TEXTS)
    assert corpus.text_image.tolist() == [number // tiny.TEXTS for number in range(corpus.num_columns)]
    seen = np.concatenate([numbers for numbers, _ in corpus.texts_by_length(5)])
    assert sorted(seen.tolist()) == list(range(corpus.num_columns))
    assert corpus.image(3).shape == (3, 32, 32)


def test_wrong_texts_are_never_the_images_own(options):
    data = build_data(tiny.settings(RECIPE, **options))
    encoder = data.train.preparation.text_encoder
    for epoch in range(5):
        batch = data.train[[(epoch, sample) for sample in range(8)]]
        wrong = batch.parts["wrong_texts"]
        for number, sample in enumerate(batch.index.tolist()):
            source, where = data.train.locate(sample)
            own = {tuple(encoder(text).ids) for text in source.texts(where)}
            for row in range(3 * number, 3 * number + 3):
                ids = wrong.ids[row][wrong.mask[row].bool()]
                assert tuple(ids.tolist()) not in own


def test_recalls_select_where_asked_and_are_written_when_tested(options):
    trained = run(tiny.settings(RECIPE, **options, get_recall_metric=True, max_steps=2))
    expected = trained["irtr/val/ir_r1"] + trained["irtr/val/tr_r1"]
    assert trained["val/the_metric"] == pytest.approx(expected)
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(RECIPE, **options, test_only=True, load_path=saved, save_scores=True))
    written = json.loads(Path(tested["log_dir"], "irtr_test_ranking.json").read_text())
    assert written["images"] == tiny.ROWS
    assert written["ir_r1"] == pytest.approx(tested["irtr/test/ir_r1"])
    assert np.load(Path(tested["log_dir"], "irtr_test_ranking.npz"))["scores"].shape == (tiny.ROWS, 2 * tiny.ROWS)


def test_joined_data_sets_are_ranked_each_within_itself(options):
    joined = run(tiny.settings(RECIPE, **options, get_recall_metric=True, datasets=["coco", "f30k"]))
    names = {name.split("/")[1] for name in joined if name.startswith("irtr/")}
    assert names == {"train", "val_coco", "val_f30k"}
    expected = [joined[f"irtr/val_{name}/{way}_r1"] for name in ("coco", "f30k") for way in ("ir", "tr")]
    assert joined["val/the_metric"] == pytest.approx(sum(expected))
    saved = f"{joined['log_dir']}/checkpoints/last.ckpt"
    tested = {
        names: run(tiny.settings(RECIPE, **options, datasets=list(names), test_only=True, load_path=saved))
        for names in (("coco", "f30k"), ("coco",), ("f30k",))
    }
    for name in ("coco", "f30k"):
        alone = {key: value for key, value in tested[(name,)].items() if key.startswith("irtr/test/")}
        assert "irtr/test/ir_r1" in alone
        for key, value in alone.items():
            assert tested["coco", "f30k"][key.replace("/test/", f"/test_{name}/")] == pytest.approx(value), key
        written = json.loads(Path(tested["coco", "f30k"]["log_dir"], f"irtr_test_{name}_ranking.json").read_text())
        assert (written["images"], written["texts"]) == (tiny.ROWS, tiny.ROWS * tiny.TEXTS)


def test_scores_that_are_nan_rank_last_and_fail_the_evaluation(options):
    scores = np.array([[np.nan, 1.0, 0.0], [0.0, 2.0, np.nan], [0.0, 0.0, np.nan]], dtype=np.float32)
    ranks = rank_all(scores, np.arange(3))
    assert ranks.of_rows.tolist() == [3, 1, 3]
    assert ranks.of_columns.tolist() == [3, 2, 3]
    settings = tiny.settings(RECIPE, **options)
    data = build_data(settings)
    module = build_module(settings, data).eval()
    with torch.no_grad():
        module.objectives["irtr"].rank_output.bias.fill_(float("nan"))
    scorer = Scorer(
        module.encoder, Corpus(data.evaluation["val"]), torch.device("cpu"), score=module.objectives["irtr"].score
    )
    with pytest.raises(NonFiniteMetric, match="the scores of a ranking"):
        evaluate(scorer, None)


def test_the_matching_head_ranks_without_fine_tuning(options):
    losses = {"datasets": ["coco"], "loss_names": loss_weights(itm=1)}
    trained = run(tiny.settings(**options, **losses))
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**options, **losses, test_only=True, load_path=saved, get_recall_metric=True))
    assert "itm/test/tr_r5" in tested


def test_the_ranking_head_starts_as_the_match_row(golden):
    expected = torch.load(golden / "posembed/result_irtr_rank_head.pt", weights_only=True)
    module = golden_models.build_module(golden_models.model_settings(loss_names=loss_weights(irtr=1)))
    report = load(module, read(golden / "posembed/vlc_pretrain_64.ckpt"))
    assert report.derived == ["objectives.irtr.rank_output.weight", "objectives.irtr.rank_output.bias"]
    head = module.objectives["irtr"].rank_output
    torch.testing.assert_close(head.weight.data, expected["rank_output.weight"])
    torch.testing.assert_close(head.bias.data, expected["rank_output.bias"])
    torch.testing.assert_close(head.weight.data, expected["itm_score.fc.weight"][1:])


def test_two_stages_agree_with_the_exact_ranking_where_everything_is_ranked_again(options):
    losses = {"loss_names": loss_weights(irtr=1, itc=1)}
    settings = tiny.settings(RECIPE, **options, **losses)
    data = build_data(settings)
    module = build_module(settings, data).eval()
    heads = {"score": module.objectives["irtr"].score, "itc": module.objectives["itc"]}
    scorer = Scorer(module.encoder, Corpus(data.evaluation["val"]), torch.device("cpu"), **heads)
    exact, corpus = matrix(scorer.exact()), scorer.corpus
    for scores in matrices(scorer.reranked(k=corpus.num_columns)):
        np.testing.assert_allclose(scores, exact, atol=1e-6)
    near, (by_text, by_image) = matrix(scorer.similarities()), matrices(scorer.reranked(k=2))
    for image in range(corpus.num_rows):
        best = np.argsort(-near[image], kind="stable")[:2]
        np.testing.assert_allclose(by_image[image, best], exact[image, best], atol=1e-6)
        others = np.setdiff1d(np.arange(corpus.num_columns), best)
        assert by_image[image, others].max() < by_image[image, best].min(), "the others stand behind"
    assert by_text.shape == exact.shape


@pytest.mark.parametrize(
    ("rows", "head", "left"),
    [
        (1, "itc", {"ir": (), "tr": (1,)}),
        (4, "itc", {"ir": (1,), "tr": (1, 5)}),
        (4, "irtr", {"ir": (1,), "tr": (1, 5)}),
    ],
)
def test_splits_of_a_few_images_are_ranked(options, tmp_path, rows, head, left):
    """Cutoffs that no ranking of so few can miss are left out; the checkpoint is selected all the same."""
    folder = tiny.write_dataset(tmp_path / "few", "coco", rows)
    few = options | {"data_root": str(folder), "loss_names": loss_weights(**{"itc": 1, head: 1})}
    metrics = run(tiny.settings(RECIPE, **few, get_recall_metric=True))
    for way, cutoffs in left.items():
        found = {int(name.rpartition("_r")[2]) for name in metrics if name.startswith(f"{head}/val/{way}_r")}
        assert found == set(cutoffs)
        assert 1 <= metrics[f"{head}/val/{way}_median_rank"] <= rows * tiny.TEXTS
    assert np.isfinite(metrics["val/the_metric"])


def test_one_image_has_no_texts_of_others_to_be_told_from(options, tmp_path):
    folder = tiny.write_dataset(tmp_path / "few", "coco", 1)
    with pytest.raises(UserError, match="No texts of other images found for .*: split 'val' has too few"):
        run(tiny.settings(RECIPE, **(options | {"data_root": str(folder)})))


def test_images_without_captions_are_no_candidates(options, tmp_path):
    folder = tiny.write_dataset(tmp_path / "few", "coco")
    path = folder / "coco_caption_karpathy_val.arrow"
    columns = pa.ipc.open_file(str(path)).read_all().to_pydict()
    columns["caption"][2] = []
    tiny.write_table(path, columns)
    corpus = Corpus(build_data(tiny.settings(RECIPE, **(options | {"data_root": str(folder)}))).evaluation["val"])
    assert (corpus.num_rows, corpus.num_columns) == (tiny.ROWS - 1, (tiny.ROWS - 1) * tiny.TEXTS)
    assert corpus.text_image.max() == tiny.ROWS - 2
    columns["caption"] = [[] for _ in columns["caption"]]
    tiny.write_table(path, columns)
    with pytest.raises(UserError, match=r"split 'val' of datasets=\['coco'\] has no samples"):
        build_data(tiny.settings(RECIPE, **(options | {"data_root": str(folder)})))


def test_embeddings_alone_rank_too(options):
    metrics = run(tiny.settings(RECIPE, **options, loss_names=loss_weights(itc=1), get_recall_metric=True, max_steps=1))
    assert "itc/val/ir_r1" in metrics
    assert metrics["val/the_metric"] == pytest.approx(metrics["itc/val/ir_r1"] + metrics["itc/val/tr_r1"])


def test_contrast_learns_to_tell_a_batch_apart(tmp_path):
    folder = tiny.write_scenes(tmp_path, train=16, val=4, test=4, held_out=4)
    settings = tiny.settings(
        "task_pretrain_emoji",
        data_root=str(folder),
        datasets=["emoji_scenes"],
        loss_names=loss_weights(itc=1),
        vit="mae_vit_tiny_patch16",
        image_size=64,
    )
    data = build_data(settings)
    torch.manual_seed(0)
    module = build_module(settings, data)
    first = {}
    for sample in range(len(data.train)):  # one caption of each image: two of one image would be right for each other
        _, where = data.train.locate(sample)
        first.setdefault((where.batch, where.row), sample)
    batch = module.normalised(data.train[[(0, sample) for sample in first.values()]])
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for _ in range(80):
        optimizer.zero_grad()
        module.total_loss(module.outcomes(batch)).backward()
        optimizer.step()
    right, count = module.outcomes(batch)["itc"].metrics["accuracy"]
    assert count == 2 * len(batch)
    assert right / count > 0.9


def test_an_evaluator_has_a_rhythm_and_selects_only_where_every_validation_has_its_values(options, monkeypatch):
    """Validated after each of three batches: at every second one the split is ranked, and the head's own metric selects."""
    own = {key: value for key, value in options.items() if key != "draw_false_text"}
    runs = {"tasks": ["irtr_coco"], "val_check_interval": 1, "max_steps": 3, "irtr_coco.choice": {"wrong_texts": 3}}
    ranked, plain = [], Ranking.__call__

    def counted(ranking: Ranking, model: VLCModule, samples: Samples, out: Path | None) -> dict[str, float]:
        ranked.append(model.validations["irtr_coco"])
        return plain(ranking, model, samples, out)

    monkeypatch.setattr(Ranking, "__call__", counted)
    metrics = run(tiny.settings(**own, **runs, **{"irtr_coco.evaluators": {"ranking": 2}}))
    assert ranked == [2]
    assert metrics["val/the_metric"] == metrics["irtr_coco/val/accuracy"]
    metrics = run(tiny.settings(**own, **runs, get_recall_metric=True))
    assert ranked == [2, 1, 2, 3]
    expected = metrics["irtr_coco/val/ir_r1"] + metrics["irtr_coco/val/tr_r1"]
    assert metrics["val/the_metric"] == pytest.approx(expected)
    with pytest.raises(
        UserError, match="irtr_coco.evaluators.ranking=-1 is not valid: expected a number n, for every n-th"
    ):
        tiny.settings(**own, **runs, **{"irtr_coco.evaluators": {"ranking": -1}})
    with pytest.raises(UserError, match=r"vqa\.evaluators\.ranking needs one of the objectives choice, itm, itc"):
        tiny.settings(**own, tasks=["vqa"], **{"vqa.evaluators": {"ranking": 1}})
