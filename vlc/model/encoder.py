"""The single-stream encoder: text tokens and image patches through one ViT.

Order of a sequence: text tokens, class token, patches. The pooled feature is read at the first text token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlc.model.blocks import blocks, key_mask, layer_norm
from vlc.model.embed import init_bert_weights, init_vit_weights, patch_embedding, sincos_positions, text_embedding
from vlc.model.masking import PatchMask, random_mask, take_patches
from vlc.model.packing import Packing
from vlc.model.sizes import EncoderSize


@dataclass(frozen=True)
class ImageTokens:
    """Embedded image, ready for the encoder: tokens (B, 1 + kept patches, D), class token first."""

    tokens: Tensor
    patches: PatchMask | None = None

    def __getitem__(self, rows: Tensor) -> "ImageTokens":
        """The images at `rows` (N,) of the batch; only for images that kept all patches."""
        assert self.patches is None
        return ImageTokens(self.tokens[rows])


@dataclass(frozen=True)
class Encoded:
    """What one pass returns, after the final norm.

    text (B, L, D); image (B, 1 + kept patches, D), class token first; pooled (B, D); patches: what was dropped.
    """

    text: Tensor
    image: Tensor
    pooled: Tensor
    patches: PatchMask | None = None


class Pooler(nn.Module):
    """First token (B, D) -> dense layer and tanh (B, D), as BERT pools."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dense(tokens[:, 0]).tanh()


class Encoder(nn.Module):
    """Text embedding + patch embedding + token types -> ViT -> norm -> pooler.

    num_image_types: how many images an example can have; row 0 of the token types is text, row i the i-th image.
    """

    def __init__(
        self,
        size: EncoderSize,
        image_size: int,
        *,
        vocab_size: int,
        max_text_len: int,
        text_dropout: float = 0.0,
        pad_token_id: int = 0,
        num_image_types: int = 1,
        drop_path: float = 0.0,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        if image_size % size.patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch size {size.patch_size}")
        self.size, self.image_size = size, image_size
        width = size.width
        self.text_embeddings = text_embedding(width, vocab_size, max_text_len, text_dropout, pad_token_id)
        self.token_types = nn.Embedding(1 + num_image_types, width)
        self.patch_embed = patch_embedding(width, size.patch_size, image_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        positions = sincos_positions(width, image_size // size.patch_size, size.temperature)
        self.register_buffer("pos_embed", positions)
        self.blocks = blocks(width, size.depth, size.heads, size.mlp_ratio, drop_path)
        self._checkpoints, self._may_pack = activation_checkpointing, drop_path == 0
        self.norm = layer_norm(width)
        self.pooler = Pooler(width)
        self._init_weights()

    def compile_blocks(self, **options) -> None:
        """Compile the blocks in place, with options of torch.compile. Lengths are multiples of 8, and so few."""
        self._may_pack = False
        for block in self.blocks:
            block.compile(**options)

    def _init_weights(self) -> None:
        for part in (self.text_embeddings, self.token_types, self.pooler):
            part.apply(init_bert_weights)
        with torch.no_grad():  # image pairs start with both images alike (the published warm start)
            self.token_types.weight[2:] = self.token_types.weight[1]
        for part in (self.patch_embed, self.blocks, self.norm):
            part.apply(init_vit_weights)
        nn.init.normal_(self.cls_token, std=0.02)

    @property
    def num_patches(self) -> int:
        return self.patch_embed.num_patches

    def embed_text(self, ids: Tensor) -> Tensor:
        """Token ids (B, L) int64 -> (B, L, D), text's token type added."""
        return self.text_embeddings(ids) + self.token_types.weight[0]

    def embed_images(
        self,
        images: Tensor,
        *,
        image_type: int | None = 1,
        mask_ratio: float = 0.0,
        noise: Tensor | None = None,
    ) -> ImageTokens:
        """Normalised images (B, 3, H, W) -> tokens; patches are dropped where `noise` (B, P) is large.

        image_type: row of the token-type table; None adds none (the image alone, as MAE and timm see it).
        Without noise all patches stay, whatever mask_ratio is.
        """
        tokens = self.patch_embed(images) + self.pos_embed[:, 1:]
        patches = None
        if noise is not None and mask_ratio > 0:
            patches = random_mask(noise, mask_ratio)
            tokens = take_patches(tokens, patches.kept)
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = torch.cat([cls_token.to(tokens.dtype), tokens], dim=1)
        if image_type is not None:
            tokens = tokens + self.token_types.weight[image_type]
        return ImageTokens(tokens, patches)

    def fuse(self, text: Tensor | None, text_mask: Tensor | None, image: ImageTokens | None) -> Encoded:
        """Embedded text (B, L, D) with its mask (B, L), and an embedded image, through the ViT.

        text=None runs the image alone, and `pooled` then reads the class token; image=None runs the text alone.
        """
        sequence, attention_mask, num_text = self._sequence(text, text_mask, image)
        sequence = self.norm(self._run(sequence, attention_mask))
        patches = image.patches if image is not None else None
        return Encoded(sequence[:, :num_text], sequence[:, num_text:], self.pooler(sequence), patches)

    def fuse_pooled(self, text: Tensor | None, text_mask: Tensor | None, image: ImageTokens | None) -> Tensor:
        """`fuse(...).pooled` (B, D) for less: the last block computes the first tokens alone, and padding costs nothing."""
        sequence, attention_mask, _ = self._sequence(text, text_mask, image)
        return self.pooler(self.norm(self._run(sequence, attention_mask, pooled=True))[:, None])

    @staticmethod
    def _sequence(
        text: Tensor | None, text_mask: Tensor | None, image: ImageTokens | None
    ) -> tuple[Tensor, Tensor | None, int]:
        """Tokens (B, S, D), which of them are keys (B, 1, 1, S), and how many are text."""
        if image is None:
            return text, key_mask(text_mask), text.shape[1]
        if text is None:
            return image.tokens, None, 0
        sequence = torch.cat([text.to(image.tokens.dtype), image.tokens], dim=1)
        image_mask = text_mask.new_ones(image.tokens.shape[:2])
        return sequence, key_mask(torch.cat([text_mask, image_mask], dim=1)), text.shape[1]

    def _run(self, sequence: Tensor, attention_mask: Tensor | None, *, pooled: bool = False) -> Tensor:
        """Tokens (B, S, D) through all blocks; pooled: only the first ones (B, D) come out.

        Packed where nobody reads the tokens at padding (in training, and if pooled), but on CPUs alone: another device
        would have to tell the host how long the sequences are, compiled blocks would be compiled for all their lengths,
        and stochastic depth goes by rows.
        """
        packing = None
        if attention_mask is not None and self._may_pack and (pooled or self.training) and sequence.is_cpu:
            packing = Packing.of(attention_mask[:, 0, 0])
        if packing is None or packing.is_full:
            run = {"attn_mask": None if packing is not None else attention_mask}
        else:
            sequence, run = packing.pack(sequence), {"lengths": packing.lengths}
        for block in self.blocks[: -1 if pooled else None]:
            if self._checkpoints and torch.is_grad_enabled():
                sequence = checkpoint(block, sequence, use_reentrant=False, **run)
            else:
                sequence = block(sequence, **run)
        if pooled:
            first = self.blocks[-1].first(sequence, **run)
            return packing.in_order(first) if "lengths" in run else first
        return packing.unpack(sequence) if "lengths" in run else sequence

    def forward(self, ids: Tensor, text_mask: Tensor, images: Tensor, **image_options) -> Encoded:
        """One pass over token ids (B, L), their mask (B, L) and images; image_options as in `embed_images`."""
        return self.fuse(self.embed_text(ids), text_mask, self.embed_images(images, **image_options))
