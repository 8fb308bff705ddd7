"""The image half of the encoder with a linear classifier, as MAE fine-tunes it (He et al. 2022, section 4.3)."""

from collections.abc import Mapping
from typing import Any

from timm.layers import trunc_normal_
from torch import Tensor, nn

from vlc.model.blocks import layer_norm
from vlc.model.encoder import Encoder
from vlc.model.sizes import EncoderSize
from vlc.training.optim import LAYERS

# Position and class token do not decay, as in MAE's and timm's fine-tuning.
UNDECAYED = ("encoder.pos_embed", "encoder.cls_token")

HEAD_STD = 2e-5  # of the new linear layer's weights, as published: the first logits are almost equal


class ClassHead(nn.Module):
    """Pooled features (B, D), norm, linear layer -> logits (B, C). norm=False for features that are normalised."""

    def __init__(self, width: int, num_classes: int, norm: bool):
        super().__init__()
        self.norm = layer_norm(width) if norm else nn.Identity()
        self.head = nn.Linear(width, num_classes)
        trunc_normal_(self.head.weight, std=HEAD_STD)
        nn.init.zeros_(self.head.bias)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.head(self.norm(pooled))


class Classifier(nn.Module):
    """Normalised images (B, 3, H, W) -> logits (B, C).

    global_pool: the mean of the patch tokens, normalised after pooling; otherwise the class token after the encoder's
    norm. Positions are trained, as in the published fine-tuning. Parameters have the names that `vlc.checkpoint` reads
    from every layout.
    """

    def __init__(
        self, size: EncoderSize, image_size: int, num_classes: int, *, global_pool: bool = True, drop_path: float = 0.0
    ):
        super().__init__()
        self.num_classes, self.global_pool = num_classes, global_pool
        self.encoder = Encoder(size, image_size, vocab_size=1, max_text_len=1, drop_path=drop_path)
        positions = self.encoder.pos_embed
        # What only text or fusion reads would be parameters without gradients, for which DDP waits.
        for part in ("text_embeddings", "token_types", "pos_embed"):
            delattr(self.encoder, part)
        self.encoder.pos_embed = nn.Parameter(positions)
        self.encoder.pooler = nn.Identity()
        if global_pool:
            self.encoder.norm = nn.Identity()
        self.objectives = nn.ModuleDict({"classes": ClassHead(size.width, num_classes, norm=global_pool)})

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.encoder.encode([self.encoder.embed_images(images, image_type=None)])["image"]
        pooled = tokens[:, 1:].mean(dim=1) if self.global_pool else tokens[:, 0]
        return self.objectives["classes"](pooled)

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """The layers, for timm's parameter groups: embeddings 0, block i at i + 1, then norm and head."""
        return LAYERS
