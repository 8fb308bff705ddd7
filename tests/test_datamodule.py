"""Opening the data of a run."""

from types import SimpleNamespace

import pytest
import torch

from tests import tiny
from vlc.datamodule import answer_vocabulary
from vlc.errors import MissingFile, UserError
from vlc.recipes import loss_weights
from vlc.run import build_data


def _data(arrows, small_vit, *named, **values):
    return build_data(tiny.settings(*named, data_root=str(arrows), vit=small_vit, **values))


def test_training_joins_data_sets_and_their_shards(arrows, small_vit):
    data = _data(arrows, small_vit, datasets=["coco", "sbu"])
    assert len(data.train) == 4 * tiny.ROWS * tiny.TEXTS, "two tables of coco, two shards of sbu"
    assert list(data.evaluation) == ["val"]


def test_a_split_that_several_data_sets_have_is_evaluated_apart(arrows, small_vit):
    data = _data(arrows, small_vit, datasets=["coco", "vg", "f30k"])
    assert list(data.evaluation) == ["val_coco", "val_f30k"]
    assert data.evaluated_splits == ["val"]
    assert data.selecting == {"val_coco", "val_f30k"}
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
    assert data.selecting == {"test1", "val"}


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
    assert answer_vocabulary(settings.data) == ["yes", "yes", "no"]


def test_a_field_that_a_data_set_lacks_is_told_before_training(arrows, small_vit):
    with pytest.raises(
        UserError, match=r"need batch field 'answer_labels', which data set 'coco' does not provide.*vqa"
    ):
        _data(arrows, small_vit, datasets=["coco"], loss_names=loss_weights(vqa=1))


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
