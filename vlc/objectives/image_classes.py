"""Classes of images alone, as MAE fine-tunes them (He et al. 2022, section 4.3)."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch.nn.functional as F
from timm.data import Mixup
from timm.layers import trunc_normal_
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch import Tensor, nn

from vlc.common.inputs import Images
from vlc.data.augmentation import seed_everything_drawn_from
from vlc.data.batch import Batch
from vlc.data.parts import Field, Part
from vlc.model.blocks import layer_norm
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import Answer, ModelContext, Objective, Outcome, Truth, mean_ratio, most_probable, with_records
from vlc.objectives.options import ImageClassesOptions

HEAD_STD = 2e-5  # for the weights of the new linear layer, as published: the first logits are almost equal
IMAGE = Pass(("image",))
TOP_K = (1, 5)


class ImageClasses(Objective[ImageClassesOptions]):
    """A linear classifier of the mean patch token, normalised after pooling, or of the class token; logits (B, C).

    In training, labels may be mixed: they are then probabilities (B, C) instead of numbers (B,). acc1 and acc5 are in
    percent, as in MAE. The vocabulary, if there is one, has the names of the classes.
    """

    metrics = ("loss", *(f"acc{k}" for k in TOP_K))
    headline = "acc1"
    reads_pooled = False
    images_alone = True
    starts_anew = True

    @classmethod
    def parts(cls, options: ImageClassesOptions) -> tuple[Part, ...]:
        return (Field("label"),)

    @classmethod
    def num_classes(cls, options: ImageClassesOptions) -> int:
        return options.num_classes

    @classmethod
    def options_of(cls, options: ImageClassesOptions, state: Mapping[str, Tensor]) -> ImageClassesOptions:
        num_classes = len(state["head.weight"]) if "head.weight" in state else options.num_classes
        return replace(options, num_classes=num_classes, global_pool="norm.weight" in state)

    def __init__(self, options: ImageClassesOptions, context: ModelContext):
        super().__init__(options, context)
        self.norm = layer_norm(context.width) if options.global_pool else nn.Identity()
        self.head = nn.Linear(context.width, options.num_classes)
        trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)
        self.reads_normalised = not options.global_pool
        self.smoothed = LabelSmoothingCrossEntropy(options.smoothing) if options.smoothing > 0 else F.cross_entropy
        self.mixup = None
        if options.mixes:  # Mixup smooths the labels itself
            self.mixup = Mixup(
                options.mixup,
                options.cutmix,
                options.cutmix_minmax,
                prob=options.mixup_prob,
                switch_prob=options.mixup_switch_prob,
                mode=options.mixup_mode,
                label_smoothing=options.smoothing,
                num_classes=options.num_classes,
            )

    def training_batch(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with mixed images and probabilities (B, C) as labels, where mixing is on."""
        seed_everything_drawn_from(rng)  # mixup's generator, and that of stochastic depth
        if self.mixup is None:
            return batch
        pixels, labels = self.mixup(batch.images_at(0)[0], batch.parts["label"])
        return replace(batch, images=Images(pixels[:, None])).with_parts(label=labels)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        return (IMAGE,)

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        tokens = encoded[IMAGE]["image"]
        pooled = tokens[:, 1:].mean(dim=1) if self.options.global_pool else tokens[:, 0]
        logits = self.head(self.norm(pooled)).float()  # on the CPU, autocast would leave label smoothing in bfloat16
        labels = batch.parts.get("label")
        if labels is None:
            return Outcome(None, {}, logits)
        if self.training:
            loss = SoftTargetCrossEntropy()(logits, labels) if labels.ndim == 2 else self.smoothed(logits, labels)
            return Outcome(loss, {"loss": mean_ratio(loss, len(labels))}, logits)
        total, size = F.cross_entropy(logits, labels, reduction="sum"), len(labels)
        return Outcome(total / size, {"loss": (total, size), **_hits(logits, labels)}, logits)

    def answers(self, outcome: Outcome, batch: Batch, token_name: Callable[[int], str] = str) -> list[Answer]:
        """Return the classes with their probabilities. A class without a name has its number instead."""
        names = dict(enumerate(self.context.vocabulary.answers))
        choices = most_probable(outcome.logits.softmax(1), lambda label: names.get(label) or str(label))
        return with_records(choices, None)

    def truths(self, outcome: Outcome, batch: Batch) -> list[Truth]:
        """The true classes. A class without a name has its number instead."""
        if outcome.loss is None:
            return []
        names, labels = dict(enumerate(self.context.vocabulary.answers)), batch.parts["label"]
        right = (outcome.logits.argmax(1) == labels).float().tolist()
        rows = zip(labels.tolist(), right, strict=True)
        return [Truth(names.get(label) or str(label), one) for label, one in rows]


def _hits(logits: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, int]]:
    """How often the label (B,) is among the 1 or 5 highest logits (B, C), times 100, and the number of labels."""
    best = logits.topk(min(max(TOP_K), logits.shape[1])).indices == labels[:, None]
    return {f"acc{k}": (100 * best[:, :k].sum(), len(labels)) for k in TOP_K}
