"""Fine-tuning of an image classifier as MAE does it: mixup, moving average, schedule by optimiser step, log.txt."""

import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities import rank_zero_info
from timm.data import Mixup
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from vlc.common.inputs import Images
from vlc.common.modules import Modules
from vlc.configuration.task_settings import HeadSettings, TaskSettings
from vlc.data.augmentation import seed_everything_drawn_from
from vlc.data.batch import Batch
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.model.sizes import EncoderConfig
from vlc.objectives.base import Outcome
from vlc.objectives.image_classes import ImageClasses
from vlc.objectives.options import ImageClassesOptions
from vlc.tasks.task import Report
from vlc.training.module import VLCModule
from vlc.training.optim import may_fuse
from vlc.training.trainer import LOG_EVERY

# Position and class token do not decay, as in MAE's and timm's fine-tuning.
UNDECAYED = ("encoder.pos_embed", "encoder.cls_token")
HEAD = "classes"


def image_encoder(size: EncoderConfig, image_size: int, *, global_pool: bool = True, drop_path: float = 0.0) -> Encoder:
    """The image half of the encoder; its positions are trained, as in the published fine-tuning.

    global_pool: tokens are not normalised, as their mean will be.

    Raises ValueError where image_size is not a multiple of the patch size.
    """
    encoder = Encoder(size, image_size, vocab_size=1, max_text_len=1, drop_path=drop_path)
    encoder.keep_images_only(final_norm=not global_pool)
    return encoder


def mixup_is_active(arguments: Namespace) -> bool:
    return arguments.mixup > 0 or arguments.cutmix > 0 or arguments.cutmix_minmax is not None


class ImageClassifier(VLCModule):
    """The image half of the encoder and one head. learning_rate: the peak one; the last layer has it, those below less.

    Checkpoints hold the moving average, if there is one, in "ema".
    """

    def __init__(self, encoder: Encoder, arguments: Namespace, learning_rate: float):
        options = ImageClassesOptions(arguments.nb_classes, arguments.smoothing, arguments.global_pool)
        head = HeadSettings(HEAD, "image_classes", 1.0, options, Report())
        task = TaskSettings(
            name="",
            heads=(head,),
            datasets=(),  # the data are those of --data_path
            dataset_weights=None,
            max_text_len=0,
            train_transform_keys=(),
            val_transform_keys=(),
            learning_rate=learning_rate,
            composer="plain",
            evaluators={},
        )
        super().__init__(
            None,
            [task],
            image_size=arguments.input_size,
            max_text_len=1,
            vocab_size=1,
            encoder=encoder,
            splits={"": ("val",)},
        )
        self.arguments, self.learning_rate = arguments, learning_rate
        self.extras = {"arguments": vars(arguments)}
        self.ema = None
        if arguments.ema is not None:
            self.ema = ModelEmaV3(self.parts(), decay=arguments.ema).requires_grad_(False)
            self.ema_ratios: Modules[Ratio] = Modules({name: Ratio() for name in ImageClasses.metrics})
        self.mixup = self._mixup() if mixup_is_active(arguments) else None
        self.train_ratios: Modules[Ratio] = Modules({name: Ratio() for name in ("loss", "lr")})
        self.test_metrics: dict[str, float] = {}

    def parts(self) -> nn.ModuleDict:
        """What is averaged, and what a checkpoint of weights is loaded into."""
        return nn.ModuleDict({"encoder": self.encoder, "objectives": self.objectives})

    def _mixup(self) -> Mixup:
        """Mixup smooths the labels itself."""
        given = vars(self.arguments)
        options = {name: given[f"mixup_{name}"] for name in ("prob", "switch_prob", "mode")}
        options |= {"label_smoothing": given["smoothing"], "num_classes": given["nb_classes"]}
        return Mixup(given["mixup"], given["cutmix"], given["cutmix_minmax"], **options)

    # -- training

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Mixup and stochastic depth draw from global generators: seeded here, a resumed run draws as an uninterrupted one.
        place = (self.arguments.seed, self.current_epoch, batch_idx, self.global_rank)
        seed_everything_drawn_from(np.random.default_rng(place))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(torch.initial_seed())
        loss = self.outcomes(self._mixed(batch))[HEAD].loss
        self.train_ratios["loss"].update(loss.detach(), 1)
        return loss

    def _mixed(self, batch: Batch) -> Batch:
        """The batch with mixed images and probabilities (B, C) as labels, where mixup is on."""
        if self.mixup is None:
            return batch
        pixels, labels = self.mixup(batch.images.pixels[:, 0], batch.parts["label"])
        return replace(batch, images=Images(pixels[:, None])).with_parts(label=labels)

    def _optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def on_train_start(self) -> None:
        optimizer = self._optimizer().optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate  # where the schedule starts from, in a resumed run too
        self.schedule = half_cosine(
            optimizer, self.arguments, self.trainer.num_training_batches // self.arguments.accum_iter
        )

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if batch_idx % self.arguments.accum_iter == 0:
            self.schedule.step_update(self._step(batch_idx))

    def on_train_batch_end(self, outputs, batch: Batch, batch_idx: int) -> None:
        rate = max(group["lr"] for group in self._optimizer().param_groups)
        self.train_ratios["lr"].update(torch.tensor(rate, dtype=torch.float64), 1)
        self.log("lr", rate, prog_bar=True, logger=False)
        self.log("loss", outputs["loss"].detach() * self.arguments.accum_iter, prog_bar=True, logger=False)
        if (batch_idx + 1) % LOG_EVERY == 0 and self.logger is not None:
            epoch_1000x = int((self.current_epoch + batch_idx / self.trainer.num_training_batches) * 1000)
            loss = float(outputs["loss"]) * self.arguments.accum_iter
            self.logger.log_metrics({"loss": loss, "lr": rate}, step=epoch_1000x)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.ema is not None:
            self.ema.update(self.parts())

    def _step(self, batch_idx: int) -> int:
        """Number of the optimiser step that a batch of this epoch belongs to."""
        batches = self.current_epoch * self.trainer.num_training_batches + batch_idx
        return batches // self.arguments.accum_iter

    def on_train_epoch_end(self) -> None:
        """One line of log.txt, with the names of MAE's, and TensorBoard's.

        What is said of the training is that since the run was started or resumed.
        """
        counted = {name: ratio for name, ratio in self.train_ratios.items() if ratio.update_called}
        train = {f"train_{name}": _value(ratio) for name, ratio in counted.items()}
        sizes = [parameter.numel() for parameter in self.parameters() if parameter.requires_grad]
        line = {**train, **self.test_metrics, "epoch": self.current_epoch, "n_parameters": sum(sizes)}
        if self.logger is not None:
            perf = {f"perf/{name}": value for name, value in self.test_metrics.items()}
            self.logger.log_metrics(perf, step=self.current_epoch)
        if self.arguments.output_dir and self.trainer.is_global_zero:
            with open(Path(self.arguments.output_dir) / "log.txt", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    # -- evaluation

    def _evaluate(self, batch: Batch) -> dict[str, Outcome]:
        outcomes = super()._evaluate(batch)
        if outcomes and self.ema is not None:
            averaged = self.ema.module["objectives"][HEAD]
            encoded = encode_passes(self.ema.module["encoder"], batch, averaged.passes(batch))
            for name, ratio in averaged(encoded, batch).metrics.items():
                self.ema_ratios[name].update(*ratio)
        return outcomes

    def on_validation_epoch_end(self) -> None:
        ratios = {f"test_{self.measured[name].metric}": ratio for name, ratio in self.ratios.items()}
        if self.ema is not None:
            ratios |= {f"test_ema_{name}": ratio for name, ratio in self.ema_ratios.items()}
        self.test_metrics = {name: _value(ratio) for name, ratio in ratios.items()}
        check_finite(self.test_metrics)
        self.log_dict(self.test_metrics, logger=False)
        for prefix in ("", "ema_") if self.ema is not None else ("",):
            acc1, acc5, loss = (self.test_metrics[f"test_{prefix}{name}"] for name in ("acc1", "acc5", "loss"))
            name = "EMA " if prefix else ""
            rank_zero_info(f"\n* {name}Acc@1 {acc1:.3f} Acc@5 {acc5:.3f} loss {loss:.3f}")

    # -- optimiser and checkpoints

    def configure_optimizers(self) -> torch.optim.Optimizer:
        arguments = self.arguments
        groups = param_groups_layer_decay(
            self, arguments.weight_decay, no_weight_decay_list=UNDECAYED, layer_decay=arguments.layer_decay
        )
        fused = may_fuse(self.trainer.precision, clips=bool(arguments.clip_grad))
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=fused)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        averaged = {name: state.pop(name) for name in list(state) if name.startswith("ema.module.")}
        if self.ema is not None:
            checkpoint["ema"] = {name.removeprefix("ema.module."): value for name, value in averaged.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        if self.ema is not None:
            averaged = checkpoint.get("ema") or state  # --ema that begins with a resumed run
            checkpoint["state_dict"] = state | {f"ema.module.{name}": value for name, value in averaged.items()}


def half_cosine(optimizer: torch.optim.Optimizer, arguments: Namespace, steps_per_epoch: int) -> CosineLRScheduler:
    """MAE's schedule by optimiser step: linear from 0 over warmup_epochs, then half a cosine down to min_lr."""
    warmup = arguments.warmup_epochs * steps_per_epoch
    return CosineLRScheduler(
        optimizer,
        t_initial=max(arguments.epochs * steps_per_epoch - warmup, 1),
        lr_min=arguments.min_lr,
        warmup_t=warmup,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def _value(ratio: Ratio) -> float:
    """The ratio over all processes, reset; NaN where nothing was counted."""
    value = ratio.compute()
    ratio.reset()
    return math.nan if value is None else float(value)
