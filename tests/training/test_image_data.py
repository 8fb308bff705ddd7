"""Transforms against torchvision's, their flags, and who evaluates what."""

import itertools
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.precision import Precision
from torchvision import transforms

from main_finetune import augmentation, translated
from tests import tiny
from tests.labelled_folders import arguments, write_folder
from tests.training.test_image_classifier import classifier
from vlc.common.inputs import Images
from vlc.data.batch import Batch
from vlc.data.transforms import MEAN, STD, normalize, transform
from vlc.training.moving_average import MovingAverage
from vlc.training.run import build_data


def _picture(width: int = 90, height: int = 70) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "resized"), [(56, 64), (384, 384)], ids=["up to 224", "above"])
def test_evaluation_sees_what_mae_does(size, resized):
    """MAE crops the central 224 of 256 pixels, at larger sizes the largest square, and then normalises floats."""
    published = transforms.Compose(
        [
            transforms.Resize(resized, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    found = normalize(transform("central_crop", size)(_picture(), np.random.default_rng(0)).pixels[None])[0]
    torch.testing.assert_close(found, published(_picture()), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {"aa": "none"}),
        ({"aa": "none"}, {"color_jitter": 0.4}),
        ({"aa": "none", "reprob": 0}, {"reprob": 1}),
        ({"aa": "none", "reprob": 1}, {"remode": "const"}),
        ({"aa": "none", "reprob": 1}, {"remode": "rand"}),
        ({"aa": "none", "reprob": 1}, {"recount": 4}),
        ({}, {"input_size": 48}),
    ],
    ids=lambda options: "-".join(options),
)
def test_flags_of_the_augmentation_change_what_is_seen(images, given, changed):
    seen = []
    for options in (given, given, {**given, **changed}):
        transform, rng = augmentation(arguments(images, **options)), np.random.default_rng(1)
        seen.append(torch.stack([transform(_picture(), rng).pixels for _ in range(8)]))
    assert torch.equal(seen[0], seen[1])
    assert seen[0].shape != seen[2].shape or not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize("dist_eval", [True, False])
@pytest.mark.parametrize("num_images", [2, 3, 4, 9, 11])
def test_each_process_evaluates_its_share(tmp_path, num_images, dist_eval):
    """Together each image is counted once, also where there are fewer than processes; without --dist_eval all by each."""
    root = write_folder(tmp_path, {"train": 8, "val": num_images}, ("one",))
    more = {"dist_eval": True} if dist_eval else {}
    data = build_data(translated(arguments(root, batch_size=2, nb_classes=1, **more), LightningEnvironment()))
    numbers = []
    for rank in range(3):
        data.trainer = Namespace(global_rank=rank, world_size=3, strategy=Namespace(root_device=torch.device("cpu")))
        loader = data.val_dataloader()
        batches = list(loader.sampler)
        assert batches, "Lightning refuses a process without batches"
        assert all(len(keys) <= 2 for _, keys in batches)
        numbers.append([key.sample for _, keys in batches for key in keys if not key.again])
        assert [loader.dataset[batch].again for batch in batches] == [batch[1][0].again for batch in batches]
    everything = list(range(num_images))
    if dist_eval:
        assert sorted(itertools.chain(*numbers)) == everything
    else:
        assert numbers == [everything] * 3


def test_a_batch_that_counts_elsewhere_is_not_counted(images):
    module = classifier(tiny.SMALL, 32, 3).eval()
    average = MovingAverage(0.9)
    average.setup(None, module, "fit")
    for again in (False, True):
        labels = {"label": torch.zeros(4, dtype=torch.int64)}
        pixels = Images(torch.zeros(4, 1, 3, 32, 32))
        of = {"split": "val", "task": "image_classification"}
        batch = Batch(index=torch.arange(4), images=pixels, parts=labels, again=again, **of)
        module.validation_step(batch, 0)
        average.on_validation_batch_end(Namespace(precision_plugin=Precision()), module, None, batch, 0)
    ratios = [*module.ratios.values(), *average.ratios.values()]
    assert len(ratios) == 6
    assert {int(ratio.count) for ratio in ratios} == {4}
