"""The labelled images of a run of `main_finetune.py`."""

from argparse import Namespace
from functools import partial
from typing import Any

from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from vlc.common.errors import UserError
from vlc.data.augmentation import Augmentation, central_crop
from vlc.data.labelled.source import LabelledImages
from vlc.data.labelled.splits import check_classes, open_split
from vlc.data.parts import Field
from vlc.data.sample import Preparation
from vlc.data.sampler import EvalSampler, Position, TrainSampler
from vlc.data.samples import Samples
from vlc.data.workers import loader_options


def augmentation(arguments: Namespace) -> Augmentation:
    """The pipeline of training. Raises UserError for an --aa that timm does not know."""
    options = (arguments.aa, arguments.color_jitter, arguments.reprob, arguments.remode, arguments.recount)
    try:
        return Augmentation(arguments.input_size, *options)
    except ValueError as error:
        raise UserError(f"--aa {arguments.aa}: timm has no such policy ({error})") from error


class ImageData(LightningDataModule):
    """Opens the splits of a run; mistakes in them show here, before anything else is built.

    With --eval the evaluated split alone is opened. `start` is where training begins.
    """

    def __init__(self, arguments: Namespace, world_size: int = 1):
        super().__init__()
        self.arguments, self.start = arguments, Position(0, 0)
        splits = [arguments.eval_split] if arguments.eval else ["train", arguments.eval_split]
        verified = {split: split == arguments.eval_split for split in splits}
        if arguments.verify is not None:
            verified = dict.fromkeys(splits, arguments.verify)
        sources = {split: open_split(arguments.data_path, split, verify=verified[split]) for split in splits}
        check_classes(sources, arguments.nb_classes)
        self.train = None
        if not arguments.eval:
            self.train = self._samples("train", sources["train"])
            step = arguments.batch_size * arguments.accum_iter * world_size
            if len(self.train) < step:
                raise UserError(
                    f"Split 'train' has {len(self.train)} images, fewer than one step takes: {step} (--batch_size "
                    f"{arguments.batch_size} x --accum_iter {arguments.accum_iter} x {world_size} processes)"
                )
        self.evaluation = self._samples("val", sources[arguments.eval_split])

    def _samples(self, name: str, source: LabelledImages) -> Samples:
        training = name == "train"
        size = self.arguments.input_size
        transform = augmentation(self.arguments) if training else partial(central_crop, size=size)
        preparation = Preparation(transform, num_patches=0, text_encoder=None)
        return Samples(name, [source], {Field("label")}, preparation, training=training, seed=self.arguments.seed)

    def facts(self, world_size: int) -> dict[str, Any]:
        """What a position in the training data depends on: samples a step over all processes, samples of the data."""
        return {"global_batch": self.arguments.batch_size * world_size, "num_samples": [len(self.train)]}

    def train_dataloader(self) -> DataLoader:
        sampler = TrainSampler(
            [len(self.train)],
            self.arguments.batch_size,
            seed=self.arguments.seed,
            rank=self.trainer.global_rank,
            world_size=self.trainer.world_size,
            whole_steps=self.arguments.accum_iter,
            start=self.start,
        )
        return DataLoader(self.train, sampler=sampler, **self._loader_options())

    def val_dataloader(self) -> DataLoader:
        """With --dist_eval whole batches are dealt out to the processes; without, each evaluates everything."""
        shared = self.arguments.dist_eval
        sampler = EvalSampler(
            len(self.evaluation),
            self.arguments.batch_size,
            rank=self.trainer.global_rank if shared else 0,
            world_size=self.trainer.world_size if shared else 1,
        )
        return DataLoader(self.evaluation, sampler=sampler, **self._loader_options())

    def _loader_options(self) -> dict[str, Any]:
        pinned = self.arguments.pin_mem and self.trainer.strategy.root_device.type == "cuda"
        return loader_options(self.arguments.num_workers, pinned=pinned)
