"""Training and evaluation of the classifier as a Lightning module: loss, schedule, metrics, log.txt."""

import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities import rank_zero_info
from timm.data import Mixup
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from vlc.classification.data import LabelledImages, seed_everything_drawn_from
from vlc.classification.model import UNDECAYED, Classifier
from vlc.data.transforms import normalize
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.training.optim import may_fuse

TOP_K = (1, 5)
LOG_EVERY = 10  # batches


def mixup_is_active(arguments: Namespace) -> bool:
    return arguments.mixup > 0 or arguments.cutmix > 0 or arguments.cutmix_minmax is not None


class ClassificationModule(LightningModule):
    """The classifier in training. learning_rate: the peak one; the last layer has it, those below less.

    Checkpoints hold the classifier's parameters under their own names in "state_dict", those of the moving average, if
    there is one, in "ema".
    """

    def __init__(self, classifier: Classifier, arguments: Namespace, learning_rate: float):
        super().__init__()
        self.classifier, self.arguments, self.learning_rate = classifier, arguments, learning_rate
        self.ema = None
        if arguments.ema is not None:
            self.ema = ModelEmaV3(classifier, decay=arguments.ema).requires_grad_(False)
        self.mixup, self.criterion = self._mixup_and_criterion()
        self.train_ratios = nn.ModuleDict({name: Ratio() for name in ("loss", "lr")})
        names = [f"{prefix}{name}" for prefix in self.evaluated for name in ("loss", *(f"acc{k}" for k in TOP_K))]
        self.test_ratios = nn.ModuleDict({name: Ratio() for name in names})
        self.test_metrics: dict[str, float] = {}

    @property
    def evaluated(self) -> dict[str, nn.Module]:
        """What is evaluated, by the prefix of its metrics."""
        return {"": self.classifier} | ({"ema_": self.ema.module} if self.ema is not None else {})

    def _mixup_and_criterion(self) -> tuple[Mixup | None, nn.Module]:
        """The loss; with mixup, which smooths the labels itself, that of soft targets."""
        arguments = self.arguments
        if mixup_is_active(arguments):
            mixup = Mixup(
                mixup_alpha=arguments.mixup,
                cutmix_alpha=arguments.cutmix,
                cutmix_minmax=arguments.cutmix_minmax,
                prob=arguments.mixup_prob,
                switch_prob=arguments.mixup_switch_prob,
                mode=arguments.mixup_mode,
                label_smoothing=arguments.smoothing,
                num_classes=arguments.nb_classes,
            )
            return mixup, SoftTargetCrossEntropy()
        if arguments.smoothing > 0:
            return None, LabelSmoothingCrossEntropy(arguments.smoothing)
        return None, nn.CrossEntropyLoss()

    # -- training

    def training_step(self, batch: LabelledImages, batch_idx: int) -> Tensor:
        # Mixup and stochastic depth draw from global generators: seeded here, a resumed run draws as an uninterrupted one.
        place = (self.arguments.seed, self.current_epoch, batch_idx, self.global_rank)
        seed_everything_drawn_from(np.random.default_rng(place))
        if self.device.type == "cuda":
            torch.cuda.manual_seed(torch.initial_seed())
        images, targets = batch.images, batch.labels
        if self.mixup is not None:
            images, targets = self.mixup(images, targets)
        logits = self.classifier(images).float()  # on the CPU, autocast would leave label smoothing in bfloat16
        loss = self.criterion(logits, targets)
        self.train_ratios["loss"].update(loss.detach(), 1)
        return loss

    def on_train_start(self) -> None:
        optimizer = self.optimizers().optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate  # where the schedule starts from, in a resumed run too
        self.schedule = half_cosine(
            optimizer, self.arguments, self.trainer.num_training_batches // self.arguments.accum_iter
        )

    def on_train_batch_start(self, batch: LabelledImages, batch_idx: int) -> None:
        if batch_idx % self.arguments.accum_iter == 0:
            self.schedule.step_update(self._step(batch_idx))

    def on_train_batch_end(self, outputs, batch: LabelledImages, batch_idx: int) -> None:
        rate = max(group["lr"] for group in self.optimizers().param_groups)
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
            self.ema.update(self.classifier)

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
        sizes = [parameter.numel() for parameter in self.classifier.parameters() if parameter.requires_grad]
        line = {**train, **self.test_metrics, "epoch": self.current_epoch, "n_parameters": sum(sizes)}
        if self.logger is not None:
            perf = {f"perf/{name}": value for name, value in self.test_metrics.items()}
            self.logger.log_metrics(perf, step=self.current_epoch)
        if self.arguments.output_dir and self.trainer.is_global_zero:
            with open(Path(self.arguments.output_dir) / "log.txt", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    # -- evaluation

    def validation_step(self, batch: LabelledImages, batch_idx: int) -> None:
        if batch.again:
            return
        for prefix, classifier in self.evaluated.items():
            logits = classifier(batch.images).float()
            size = len(batch)
            self.test_ratios[f"{prefix}loss"].update(F.cross_entropy(logits, batch.labels, reduction="sum"), size)
            best = logits.topk(min(max(TOP_K), logits.shape[1])).indices == batch.labels[:, None]
            for k in TOP_K:
                self.test_ratios[f"{prefix}acc{k}"].update(100 * best[:, :k].sum(), size)

    def on_validation_epoch_end(self) -> None:
        self.test_metrics = {f"test_{name}": _value(ratio) for name, ratio in self.test_ratios.items()}
        check_finite(self.test_metrics)
        self.log_dict(self.test_metrics, logger=False)
        for prefix in self.evaluated:
            acc1, acc5, loss = (self.test_metrics[f"test_{prefix}{name}"] for name in ("acc1", "acc5", "loss"))
            name = "EMA " if prefix else ""
            rank_zero_info(f"\n* {name}Acc@1 {acc1:.3f} Acc@5 {acc5:.3f} loss {loss:.3f}")

    # -- batches, optimiser and checkpoints

    def on_after_batch_transfer(self, batch: LabelledImages, dataloader_idx: int) -> LabelledImages:
        return replace(batch, images=normalize(batch.images))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        arguments = self.arguments
        groups = param_groups_layer_decay(
            self.classifier, arguments.weight_decay, no_weight_decay_list=UNDECAYED, layer_decay=arguments.layer_decay
        )
        fused = may_fuse(self.trainer.precision, clips=bool(arguments.clip_grad))
        return torch.optim.AdamW(groups, lr=self.learning_rate, fused=fused)

    def checkpoint_bytes(self) -> int:
        """The least room a checkpoint takes: float32 weights, and what the optimiser keeps of those it trains."""
        return sum(4 * value.numel() * (1 + 2 * value.requires_grad) for value in self.parameters())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = _without_prefix(state, "classifier.")
        if self.ema is not None:
            checkpoint["ema"] = _without_prefix(state, "ema.module.")
        checkpoint["vlc"] = {"arguments": vars(self.arguments)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        averaged = checkpoint.get("ema") or checkpoint["state_dict"]  # --ema that begins with a resumed run
        state = {f"classifier.{name}": value for name, value in checkpoint["state_dict"].items()}
        if self.ema is not None:
            state |= {f"ema.module.{name}": value for name, value in averaged.items()}
        checkpoint["state_dict"] = state


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


def _without_prefix(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def _value(ratio: Ratio) -> float:
    """The ratio over all processes, reset; NaN where nothing was counted."""
    value = ratio.compute()
    ratio.reset()
    return math.nan if value is None else float(value)
