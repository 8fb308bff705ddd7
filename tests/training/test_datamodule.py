"""Opening the data of a run."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import ClassVar

import pyarrow as pa
import pytest
import torch

from tests import tiny
from vlc.common.errors import MissingFile, UserError
from vlc.configuration.recipes import loss_weights
from vlc.data.catalog import CATALOG
from vlc.data.parts import Part
from vlc.data.vocabulary import data_vocabulary
from vlc.training.datamodule import TaskData, TaskNeeds
from vlc.training.run import build_data


def _data(arrows, small_vit, *named, **values):
    return build_data(tiny.settings(*named, data_root=str(arrows), vit=small_vit, **values))


def test_training_joins_data_sets_and_their_shards(arrows, small_vit):
    data = _data(arrows, small_vit, datasets=["coco", "sbu"])
    assert len(data.train) == 4 * tiny.ROWS * tiny.TEXTS, "two tables of coco, two shards of sbu"
    assert list(data.evaluation) == ["val"]


def test_a_split_that_several_data_sets_have_is_evaluated_apart(arrows, small_vit):
    data = _data(arrows, small_vit, datasets=["coco", "vg", "f30k"])
    assert list(data.evaluation) == ["val_coco", "val_f30k"]
    assert data.tasks[""].evaluated_splits == ["val"]
    assert data.tasks[""].selecting == {"val_coco", "val_f30k"}
    for name, dataset in data.evaluation.items():
        (source,) = dataset.sources
        assert f"val_{source.dataset}" == name
        assert len(dataset) == tiny.ROWS * tiny.TEXTS
        assert dataset[[(0, 0), (0, 1)]].split == name
    assert len(data.train) == (2 + 1 + 1) * tiny.ROWS * tiny.TEXTS


def test_splits_that_one_of_the_data_sets_has_keep_their_names(arrows, small_vit):
    data = _data(
        arrows, small_vit, datasets=["emoji_scenes", "emoji"], test_only=True, load_path="x", tokenizer="emoji"
    )
    assert list(data.evaluation) == ["test_emoji_scenes", "test_emoji", "held_out"]


def test_the_split_that_selects_as_published_is_that_of_each_data_set(arrows, small_vit):
    named = ("task_finetune_nlvr2_mae_randaug", "data_published_splits")
    data = _data(arrows, small_vit, *named, datasets=["nlvr2", "emoji_nlvr2"])
    assert list(data.evaluation) == ["dev", "test1", "val"]
    assert data.tasks[""].selecting == {"test1", "val"}


def test_testing_opens_the_test_splits_alone(arrows, small_vit):
    data = _data(arrows, small_vit, "task_finetune_vqa_emoji", test_only=True, load_path="x")
    assert data.train is None
    assert list(data.evaluation) == ["test", "held_out"]


def test_published_splits(arrows, small_vit):
    usual, published = (
        _data(arrows, small_vit, *named, datasets=["f30k"]) for named in ((), ("data_published_splits",))
    )
    (table,) = {path.stem for source in usual.evaluation["val"].sources for path in source.paths}
    assert table == "f30k_caption_karpathy_val"
    (table,) = {path.stem for source in published.evaluation["val"].sources for path in source.paths}
    assert table == "f30k_caption_karpathy_test"
    assert len(published.train) == 2 * len(usual.train)


def test_answers_are_collected_by_label(arrows, small_vit):
    settings = tiny.settings("task_finetune_vqa_mae_randaug", data_root=str(arrows), vit=small_vit)
    assert data_vocabulary(settings.data.datasets, str(arrows)).answers == ("yes", "yes", "no")


def test_a_field_that_a_data_set_lacks_is_told_before_training(arrows, small_vit):
    with pytest.raises(
        UserError, match=r"need batch field 'answer_labels', which data set 'coco' does not provide.*vqa"
    ):
        _data(arrows, small_vit, datasets=["coco"], loss_names=loss_weights(vqa=1))


def test_proposals_that_the_files_lack_are_told_before_training(small_vit, tmp_path):
    tiny.write_dataset(tmp_path, "refcoco")
    for path in tmp_path.glob("refcoco_*.arrow"):
        columns = pa.ipc.open_file(str(path)).read_all().to_pydict()
        tiny.write_table(path, {name: cells for name, cells in columns.items() if not name.startswith("proposal")})
    options = {"data_root": str(tmp_path), "vit": small_vit}
    assert len(build_data(tiny.settings("task_finetune_refcoco", **options)).train) == 2 * tiny.ROWS
    with pytest.raises(UserError, match=r"lacks column proposal_boxes, which data set 'refcoco' reads"):
        build_data(tiny.settings("task_finetune_refcoco", **options, **{"refcoco.pointing.candidates": "proposals"}))


def test_texts_alone_have_no_images_and_only_what_reads_texts_takes_them(arrows, small_vit):
    losses = loss_weights(mlm=1)
    data = _data(arrows, small_vit, datasets=["text"], loss_names=losses)
    batch = data.train[[(0, sample) for sample in range(4)]]
    assert batch.images is None
    assert len(data.train) == 2 * tiny.ROWS, "two shards, a text a row"
    assert len(batch.text.ids) == 4
    with pytest.raises(UserError, match=r"need 1 image\(s\) for each text, data set 'text' has 0"):
        _data(arrows, small_vit, datasets=["text"], loss_names=loss_weights(mlm=1, itm=1))
    with pytest.raises(UserError, match="cannot be joined: text has no images, the others have"):
        _data(arrows, small_vit, datasets=["coco", "text"], loss_names=losses)


def test_texts_alone_are_validated_where_the_folder_has_texts_for_it(small_vit, tmp_path):
    for stem in ("text_0", "coco_caption_karpathy_train", "coco_caption_karpathy_restval", "coco_caption_karpathy_val"):
        split = stem.removeprefix("coco_caption_karpathy_")
        tiny.write_table(tmp_path / f"{stem}.arrow", tiny.rows(CATALOG["text" if stem == "text_0" else "coco"], split))
    named = {"data_root": str(tmp_path), "vit": small_vit, "tasks": ["pretraining", "pretraining_text"]}
    named["pretraining.datasets"] = ["coco"]
    data = build_data(tiny.settings(**named))
    assert set(data.evaluation) == {"pretraining/val"}
    assert not data.text_only, "one of the tasks reads images"
    assert data.tasks["pretraining_text"].text_only
    with pytest.raises(UserError, match=r"test_only=True, but datasets=\['text'\] .* have no test split"):
        build_data(tiny.settings(data_root=str(tmp_path), vit=small_vit, tasks=["pretraining_text"], test_only=True))
    tiny.write_table(tmp_path / "text_val_0.arrow", tiny.rows(CATALOG["text"], "val"))
    data = build_data(tiny.settings(**named))
    assert set(data.evaluation) == {"pretraining/val", "pretraining_text/val"}
    assert len(data.tasks["pretraining_text"].train) == tiny.ROWS, "text_val_0 is no shard of text_*"


def test_data_without_test_split_cannot_be_tested(arrows, small_vit):
    with pytest.raises(UserError, match="have no test split"):
        _data(arrows, small_vit, datasets=["vg"], test_only=True, load_path="x")


def test_a_missing_folder_names_itself_and_the_command(small_vit, tmp_path):
    with pytest.raises(MissingFile, match=r"data_root='' is not a folder.*python -m write_arrow coco"):
        _data("", small_vit)
    with pytest.raises(MissingFile, match=r"needs .*vg\.arrow, which does not exist.*python -m write_arrow vg"):
        _data(tiny.write_dataset(tmp_path, "coco"), small_vit, datasets=["coco", "vg"])


def test_an_empty_split_is_refused(small_vit, tmp_path):
    tiny.write_table(tmp_path / "vg.arrow", {"image": [b"x"], "caption": [[]]})
    with pytest.raises(UserError, match="has no samples"):
        _data(tmp_path, small_vit, datasets=["vg"])


SPELLINGS = {
    "booleans": [[True, False], [False, True]],
    "letters": [["true", "false"], ["FALSE", "True"]],
    "integers": [[1, 0], [0, 1]],
    "numbers": [[1.0, 0.0], [0.0, 1.0]],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_truths_in_all_known_spellings(small_vit, tmp_path, spelling):
    """Only "True" was read as true before, and everything else as false."""
    for stem in ("nlvr2_train", "nlvr2_dev"):
        rows = tiny.rows(CATALOG["nlvr2"], "train", num_rows=2)
        tiny.write_table(tmp_path / f"{stem}.arrow", rows | {"answers": SPELLINGS[spelling]})
    data = _data(tmp_path, small_vit, "task_finetune_nlvr2_mae_randaug")
    assert data.train[[(0, sample) for sample in range(4)]].parts["truth"].tolist() == [1, 0, 0, 1]


@pytest.mark.parametrize(
    ("named", "stem", "columns", "message"),
    [
        ("nlvr2", "nlvr2_dev", {"answers": [["yes", "no"]] * 2}, "answers holds 'yes', expected true or false"),
        ("nlvr2", "nlvr2_train", {"identifiers": [[None, "x"]] * 2}, "identifiers holds null, expected an integer, or"),
        ("vqa", "vqav2_train", {"answer_labels": [[[1, 2], [1, -2]]] * 2}, "answer_labels holds -2, expected"),
        ("vqa", "vqav2_rest_val", {"question_id": [[1.5, 2.0]] * 2}, "question_id holds 1.5, expected an integer"),
        ("vqa", "vqav2_train", {"questions": [["a", None]] * 2}, "questions holds null, expected a string"),
    ],
)
def test_annotations_that_nobody_understands_are_told_before_training(
    small_vit, tmp_path, named, stem, columns, message
):
    tiny.write_dataset(tmp_path, named, num_rows=2)
    path = tmp_path / f"{stem}.arrow"
    tiny.write_table(path, tiny.rows(CATALOG[named], "train", num_rows=2) | columns)
    with pytest.raises(UserError, match=f"Row 0 of {path}: {message}"):
        _data(tmp_path, small_vit, f"task_finetune_{named}_mae_randaug")


def test_captions_that_are_null_are_left_out_of_training(small_vit, tmp_path):
    rows = tiny.rows(CATALOG["vg"], "train", num_rows=4)
    tiny.write_table(tmp_path / "vg.arrow", rows | {"caption": [["a", None], None, [None], ["b", "c"]]})
    with pytest.warns(UserWarning, match=r"Left out 2 texts of .*vg\.arrow: column caption holds null there"):
        data = _data(tmp_path, small_vit, datasets=["vg"])
    assert len(data.train) == 3
    data.train[[(0, 0), (0, 1), (0, 2)]]
    tiny.write_dataset(tmp_path, "coco", num_rows=2)
    rows = tiny.rows(CATALOG["coco"], "val", num_rows=2)
    tiny.write_table(tmp_path / "coco_caption_karpathy_val.arrow", rows | {"caption": [["a"], [None]]})
    with pytest.raises(UserError, match=r"Row 1 of .*coco_caption_karpathy_val\.arrow: caption holds null"):
        _data(tmp_path, small_vit, datasets=["coco"])


def test_ids_that_stand_twice_in_a_tested_split_are_told(small_vit, tmp_path):
    tiny.write_dataset(tmp_path, "vqa", num_rows=2)
    path = tmp_path / "vqav2_test.arrow"
    tiny.write_table(path, tiny.rows(CATALOG["vqa"], "test", num_rows=2) | {"question_id": [[7, 8], [9, 7]]})
    with pytest.raises(UserError, match=rf"row 0 of {path} and row 1 of {path} both have the question_id '7'"):
        _data(tmp_path, small_vit, "task_finetune_vqa_mae_randaug", test_only=True, load_path="x")


def test_labels_withheld_with_nulls_are_withheld(small_vit, tmp_path):
    tiny.write_dataset(tmp_path, "nlvr2", num_rows=2)
    rows = tiny.rows(CATALOG["nlvr2"], "train", num_rows=2)
    tiny.write_table(
        tmp_path / "nlvr2_test1.arrow", rows | {"answers": pa.array([[None, None]] * 2, pa.list_(pa.string()))}
    )
    data = _data(tmp_path, small_vit, "task_finetune_nlvr2_mae_randaug", test_only=True, load_path="x")
    assert set(data.evaluation["test1"][[(0, 0)]].parts) == {"identifier"}
    assert "truth" in data.evaluation["dev"][[(0, 0)]].parts


def test_weights_are_those_of_the_data_sets_named_beside_them(arrows, small_vit):
    data = _data(arrows, small_vit, datasets=["coco", "sbu"], dataset_weights=[1, 3])
    assert data.train.sizes == [2 * tiny.ROWS * tiny.TEXTS] * 2
    data.trainer = SimpleNamespace(
        global_rank=0, world_size=1, strategy=SimpleNamespace(root_device=torch.device("cpu"))
    )
    drawn = [key.sample for batch in data.train_dataloader().sampler for key in batch]
    split = 2 * tiny.ROWS * tiny.TEXTS
    assert (sum(sample < split for sample in drawn), sum(sample >= split for sample in drawn)) == (split // 3, split)


@pytest.mark.parametrize("weights", [[1], [1, 0], [1, -2], [1, "x"], 3, []])
def test_weights_that_fit_no_data_sets_are_refused(weights):
    with pytest.raises(UserError, match="dataset_weights"):
        tiny.settings(datasets=["coco", "sbu"], dataset_weights=weights)


@dataclass(frozen=True)
class _Places(Part):
    """Where the pictures lie in the images of a batch."""

    name: ClassVar[str] = "places"
    needs_placements = True

    def of(self, sample, samples):
        (placement,) = sample.placements
        return placement.size

    def collate(self, cells, samples):
        return cells


def _with_places(arrows, small_vit, train_transform=None, **values) -> TaskData:
    settings = tiny.settings(data_root=str(arrows), vit=small_vit, datasets=["coco"], **values)
    data = replace(settings.data, train_transform=train_transform)
    (task,) = settings.tasks
    needs = TaskNeeds(frozenset({_Places()}))
    return TaskData(task, data, None, needs, num_patches=4, seed=0, test_only=False)


def test_a_part_reads_where_pictures_lie_in_the_images(arrows, small_vit):
    data = _with_places(arrows, small_vit, train_transform_keys=["keep_shape"], image_size=48)
    assert [max(size) for size in data.train[[(0, 0), (0, 5)]].parts["places"]] == [48, 48]
    with pytest.raises(UserError, match=r"'places', but timm's augmentation .* run.py .*train_transform_keys="):
        _with_places(arrows, small_vit, train_transform=lambda picture, rng: None)


def test_sides_follow_the_mirror_in_new_pipelines_and_wherever_there_are_boxes(arrows, small_vit):
    """As published, `mae` leaves the texts of mirrored images alone."""
    for pipeline, follows in (("mae", False), ("mae_randaug", False), ("keep_shape_flip", True)):
        data = _data(arrows, small_vit, datasets=["coco"], train_transform_keys=[pipeline])
        assert data.train.preparation.follows_mirror is follows
    assert not data.evaluation["val"].preparation.follows_mirror, "of the pipeline `mae`"
    assert _with_places(arrows, small_vit).train.preparation.follows_mirror


@pytest.mark.parametrize(
    ("recipe", "stays"),
    [
        ("task_finetune_vqa", "answer_labels of data set 'vqa'"),
        ("task_finetune_nlvr2", "two images of data set 'nlvr2'"),
    ],
)
def test_a_mirror_is_refused_where_left_and_right_cannot_change_places(arrows, small_vit, recipe, stays):
    for key in ("train_transform_keys", "val_transform_keys"):
        with pytest.raises(UserError, match=rf"{key}=\['keep_shape_flip'\].*{stays}: pass {key}=\['keep_shape'\]"):
            _data(arrows, small_vit, f"{recipe}_mae_randaug", **{key: ["keep_shape_flip"]})
