"""Whether a head needs image and text: it is measured with wrong images, and with empty texts."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch

from tests import tiny
from vlc.common.errors import UserError
from vlc.data.batch import Batch
from vlc.evaluation.inputs import Inputs
from vlc.objectives.base import Outcome
from vlc.training.run import build_data, build_module, run


class _Head:
    headline = "score"


@dataclass
class _Model:
    """Answers rightly where both the image and the text of a sample are its own."""

    own: Mapping[int, Batch]
    objectives: Mapping[str, _Head] = field(default_factory=lambda: {"vqa": _Head()})
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    encoder: None = None

    def normalised(self, batch: Batch) -> Batch:
        return batch

    def outcomes(self, batch: Batch) -> dict[str, Outcome]:
        right, read = 0, 0
        for row, number in enumerate(batch.index.tolist()):
            own = self.own[number]
            words = own.text.ids[0][own.text.mask[0].bool()]
            right += bool((batch.images.pixels[row] == own.images.pixels[0]).all())
            read += torch.equal(batch.text.ids[row][batch.text.mask[row].bool()], words)
        # 10 for each right image, 1 for each right text
        return {"vqa": Outcome(None, {"score": (torch.tensor(10 * right + read), len(batch))})}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> str:
    return str(tiny.write_scenes(tmp_path_factory.mktemp("scenes"), train=4, val=5, test=5, held_out=2))


def _settings(scenes: str, **updates):
    return tiny.settings(tasks=["vqa_emoji"], data_root=scenes, **updates)


def test_images_are_of_other_rows_and_texts_are_empty(scenes, small_vit):
    samples = build_data(_settings(scenes)).tasks["vqa_emoji"].evaluation["val"]
    own = {number: samples[[(0, number)]] for number in range(len(samples))}
    values = Inputs("vqa", batch_size=4)(_Model(own), samples, None)
    assert values == {"score_with_wrong_images": 1.0, "score_without_text": 10.0}
    assert len(samples[[(0, 0)]].text.ids[0]) > 2, "the samples themselves keep their texts"


def test_a_test_reports_both_beside_the_metric(scenes, small_vit, tmp_path):
    settings = _settings(scenes, log_dir=str(tmp_path), **{"vqa_emoji": {"evaluators": {"inputs": 0}}})
    checkpoint = f"{run(settings)['log_dir']}/checkpoints/last.ckpt"
    tested = run(
        _settings(
            scenes,
            log_dir=str(tmp_path),
            load_path=checkpoint,
            test_only=True,
            **{"vqa_emoji": {"evaluators": {"inputs": 0}}},
        )
    )
    for split in ("test", "held_out"):
        names = [name for name in tested if name.startswith(f"vqa_emoji/{split}/score")]
        wanted = {f"vqa_emoji/{split}/score{suffix}" for suffix in ("", "_with_wrong_images", "_without_text")}
        assert wanted <= set(names)


def test_a_task_without_such_a_metric_is_refused(scenes, small_vit):
    settings = tiny.settings(
        tasks=["pretraining_emoji"],
        data_root=scenes,
        **{
            "pretraining_emoji": {
                "objectives": {"itm": 0, "mlm": 0, "mae": 1},
                "datasets": ["emoji_scenes"],
                "evaluators": {"inputs": 0},
            }
        },
    )
    with pytest.raises(UserError, match=r"pretraining_emoji\.evaluators\.inputs"):
        build_module(settings, build_data(settings))
