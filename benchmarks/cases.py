"""The figures of `benchmarks.step`: recipes of base/16, their inputs, and the products they need.

Imports numpy alone: the published implementation's process reads it too, beside another package that is called vlc.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WIDTH, DEPTH, HIDDEN, PATCH = 768, 12, 3072, 16
DECODER_WIDTH, DECODER_DEPTH = 512, 8
VOCABULARY, ANSWERS = 30_522, 3129
TEXT_TOKENS = (8, 20)  # of a caption, with [CLS] and [SEP]
FALSE_TEXTS = 15


_LARGE = {"vit": "mae_vit_large_patch16", "hidden_size": 1024, "num_heads": 16, "num_layers": 24}


@dataclass(frozen=True)
class Case:
    """recipe: a named config. batch: examples of a training step, or the texts that an image ranks if `evaluates`.

    large: whether the encoder is of the size large in place of base.
    """

    recipe: str
    image_size: int
    batch: int
    evaluates: bool = False
    large: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        sizes = {"image_size": self.image_size, "per_gpu_batchsize": self.batch, "batch_size": self.batch}
        return sizes | (_LARGE if self.large else {})

    @property
    def stack(self) -> tuple[int, int, int]:
        """Width, hidden width and depth of the encoder, as `stack_flops` takes them."""
        return (1024, 4096, 24) if self.large else (WIDTH, HIDDEN, DEPTH)


_PRETRAIN, _VQA = "task_mlm_itm_mae", "task_finetune_vqa_mae_randaug"
_NLVR2, _IRTR = "task_finetune_nlvr2_mae_randaug", "task_finetune_irtr_coco_mae_randaug"

CASES: dict[str, Case] = {
    "pretrain_224": Case(_PRETRAIN, 224, 8),
    "pretrain_384": Case(_PRETRAIN, 384, 4),
    "pretrain_large_224": Case(_PRETRAIN, 224, 8, large=True),
    "pretrain_large_384": Case(_PRETRAIN, 384, 4, large=True),
    "vqa_384": Case(_VQA, 384, 4),
    "vqa_576": Case(_VQA, 576, 2),
    "nlvr2_384": Case(_NLVR2, 384, 2),
    "irtr_224": Case(_IRTR, 224, 2),
    "irtr_384": Case(_IRTR, 384, 1),
    "ranking_224": Case(_IRTR, 224, 64, evaluates=True),
}


@dataclass(frozen=True)
class Inputs:
    """Random inputs of a case: images (B, 2, 3, H, W) uint8 (one to rank texts), token ids, and supervision by name.

    hidden: for each text the positions that masked language modelling predicts. false_texts: FALSE_TEXTS for each text.
    """

    images: np.ndarray
    texts: list[list[int]]
    hidden: list[list[int]]
    false_texts: list[list[int]]
    noise: np.ndarray
    fields: Mapping[str, np.ndarray] = field(default_factory=dict)


def inputs(case: Case, batch: int, text_tokens: tuple[int, int] = TEXT_TOKENS) -> Inputs:
    """Inputs of one repeat, the same on each call; text lengths are uniform from `text_tokens`, both included."""
    rng = np.random.default_rng(0)

    def text() -> list[int]:
        return [
            101,
            *rng.integers(1000, VOCABULARY, rng.integers(text_tokens[0], text_tokens[1] + 1) - 2).tolist(),
            102,
        ]

    texts = [text() for _ in range(batch)]
    images = 1 if case.evaluates else batch
    num_patches = (case.image_size // PATCH) ** 2
    return Inputs(
        images=rng.integers(0, 256, (images, 2, 3, case.image_size, case.image_size), dtype=np.uint8),
        texts=texts,
        hidden=[
            sorted(rng.permutation(np.arange(1, len(ids) - 1))[: round(0.15 * len(ids))].tolist()) for ids in texts
        ],
        false_texts=[text() for _ in range(FALSE_TEXTS * batch)] if case.recipe == _IRTR and not case.evaluates else [],
        noise=rng.random((batch, 2, num_patches), dtype=np.float32),
        fields={
            "answer_labels": rng.integers(0, ANSWERS, (batch, 3)),
            "answer_scores": rng.random((batch, 3), dtype=np.float32),
            "truth": rng.integers(0, 2, batch),
        },
    )


def stack_flops(lengths: list[int], width: int, hidden: int, depth: int) -> float:
    """Floating-point operations of a forward pass of sequences through `depth` blocks."""
    matrices = 2 * (4 * width**2 + 2 * width * hidden)
    return depth * sum(length * (matrices + 4 * length * width) for length in lengths)


def needed_flops(case: Case, batch: int, given: Inputs) -> float:
    """Floating-point operations of the matrix products that a repeat needs: no padding, nothing computed twice.

    2 * rows * columns for each token and matrix, attention 4 * tokens * width for each token and layer; a training step
    takes three times the forward pass. Heads of one token, embeddings and norms are left out.
    """
    patches, width = (case.image_size // PATCH) ** 2, case.stack[0]
    if case.recipe == _PRETRAIN:
        kept = int(patches * (1 - 0.6))
        lengths = 2 * [len(ids) + 1 + kept for ids in given.texts]
        predicted = sum(map(len, given.hidden))
        decoder = stack_flops([1 + patches] * batch, DECODER_WIDTH, 4 * DECODER_WIDTH, DECODER_DEPTH)
        pixels = 2 * batch * patches * DECODER_WIDTH * 3 * PATCH**2
        others = decoder + pixels + 2 * predicted * VOCABULARY * width
        images = 2 * batch
    else:
        texts = given.texts + given.false_texts if case.recipe == _IRTR else given.texts
        images = 1 if case.evaluates else 2 * batch if case.recipe == _NLVR2 else batch
        lengths = [len(ids) + 1 + patches for ids in texts] * (2 if case.recipe == _NLVR2 else 1)
        others = 0
    embedding = 2 * images * patches * 3 * PATCH**2 * width
    forward = stack_flops(lengths, *case.stack) + embedding + others
    return forward if case.evaluates else 3 * forward
