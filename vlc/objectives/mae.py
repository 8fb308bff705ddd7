"""Masked autoencoding: the dropped patches are reconstructed from the kept ones and the text (He et al. 2022)."""

from collections.abc import Mapping

import torch
from einops import rearrange
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Part, PatchNoise
from vlc.model.blocks import blocks, layer_norm
from vlc.model.embed import init_vit_weights, sincos_positions
from vlc.model.masking import PatchMask, restore_patches
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import ModelContext, Objective, Outcome, mean_ratio
from vlc.objectives.options import MAEOptions


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Images (B, 3, H, W) -> patches (B, P, patch_size ** 2 * 3), row by row; inside a patch row, column, channel."""
    return rearrange(images, "b c (rows p1) (columns p2) -> b (rows columns) (p1 p2 c)", p1=patch_size, p2=patch_size)


def unpatchify(patches: Tensor, patch_size: int) -> Tensor:
    """The inverse of `patchify` for square images."""
    side = round(patches.shape[1] ** 0.5)
    return rearrange(
        patches, "b (rows columns) (p1 p2 c) -> b c (rows p1) (columns p2)", rows=side, p1=patch_size, p2=patch_size
    )


def patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (unbiased variance + 1e-6) of each patch, (B, P, 1)."""
    return patches.mean(-1, keepdim=True), (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def reconstruction_loss(predicted: Tensor, patches: Tensor, dropped: Tensor, normalize: bool = True) -> Tensor:
    """Squared error, averaged in each patch (B, P, pixels), then over the dropped patches (B, P), 1 = dropped.

    normalize: the target of a patch is standardised by its own statistics, which VLC always does.
    """
    if normalize:
        mean, deviation = patch_statistics(patches)
        patches = (patches - mean) / deviation
    error = (predicted.float() - patches).square().mean(-1)
    return (error * dropped).sum() / dropped.sum()


def reconstruction(predicted: Tensor, images: Tensor, dropped: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Normalised images (B, 3, H, W) with the dropped patches (B, P) grey, and with them filled in.

    The decoder predicts standardised patches; they are shown with the true patch's mean and deviation, as MAE does.
    """
    patches, hidden = patchify(images, patch_size), dropped[..., None].bool()
    mean, deviation = patch_statistics(patches)
    masked = torch.where(hidden, torch.zeros_like(patches), patches)
    restored = torch.where(hidden, predicted * deviation + mean, patches)
    return unpatchify(masked, patch_size), unpatchify(restored, patch_size)


class MAE(Objective[MAEOptions]):
    """Owns the decoder: kept patches and mask tokens through a small ViT -> pixels (B, P, patch_size ** 2 * 3)."""

    reads_pooled = False
    pos_embed: Tensor

    @classmethod
    def parts(cls, options: MAEOptions) -> tuple[Part, ...]:
        return (PatchNoise(0),)

    def __init__(self, options: MAEOptions, context: ModelContext):
        super().__init__(options, context)
        size, width = context.size, context.size.decoder_width
        self.embed = nn.Linear(context.width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = sincos_positions(width, round(context.num_patches**0.5), size.temperature)
        self.register_buffer("pos_embed", positions)
        self.blocks = blocks(width, size.decoder_depth, size.decoder_heads, size.mlp_ratio)
        self.norm = layer_norm(width)
        self.pred = nn.Linear(width, size.patch_size**2 * 3)
        self.apply(init_vit_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    def decode(self, image: Tensor, mask: PatchMask) -> Tensor:
        """Encoded image tokens (B, 1 + kept, D), class token first -> predicted patches (B, P, pixels)."""
        tokens = self.embed(image)
        patches = restore_patches(tokens[:, 1:], self.mask_token, mask.restore)
        tokens = torch.cat([tokens[:, :1], patches], dim=1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.pred(self.norm(tokens)[:, 1:])

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        """The pass of masked language modelling; of a batch without texts the image alone, without noise none."""
        if "patch_noise_0" not in batch.parts:
            return ()
        text = ("masked_text",) if "masked_text" in batch.parts else ("text",) if batch.text is not None else ()
        return (Pass((*text, "image"), patch_noise=0),)

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if "patch_noise_0" not in batch.parts:
            return Outcome(None)
        (own,) = self.passes(batch)
        image, mask = encoded[own]["image"], encoded[own].patches
        assert mask is not None
        predicted = self.decode(image, mask)
        patches = patchify(batch.images_at(0)[0], self.context.size.patch_size)
        loss = self.options.weight * reconstruction_loss(predicted, patches, mask.dropped)
        return Outcome(loss, {"loss": mean_ratio(loss, len(batch))}, predicted, mask)
