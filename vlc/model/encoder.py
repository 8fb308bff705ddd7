"""The single-stream encoder: text tokens and image patches through one ViT.

Order of a sequence: text tokens, class token, patches. The pooled feature is read at the first text token.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlc.common.inputs import Sizes, Text
from vlc.model.attention import has_flash_attention
from vlc.model.blocks import blocks, layer_norm
from vlc.model.embed import (
    init_bert_weights,
    init_vit_weights,
    learned_positions,
    patch_embedding,
    sincos_positions,
    text_embedding,
)
from vlc.model.embedded import ImageTokens, TextTokens
from vlc.model.masking import PatchMask, leading_patches, random_mask, shown_patches, take_patches
from vlc.model.packing import Packing
from vlc.model.patterns import FULL, AttentionPattern, padded
from vlc.model.sizes import EncoderSize


@dataclass(frozen=True)
class Encoded:
    """What one pass returns, after the final norm.

    text (B, L, D); image (B, 1 + kept patches, D), class token first; pooled (B, D); patches: what was dropped;
    image_mask: as in `ImageTokens`.
    """

    text: Tensor
    image: Tensor
    pooled: Tensor
    patches: PatchMask | None = None
    image_mask: Tensor | None = None

    def split(self, count: int) -> list["Encoded"]:
        """The parts of `count` joined passes."""
        patches = [None] * count
        if self.patches is not None:
            patches = [PatchMask(*part) for part in zip(*(part.chunk(count) for part in self.patches), strict=True)]
        masks = [None] * count if self.image_mask is None else self.image_mask.chunk(count)
        tensors = (part.chunk(count) for part in (self.text, self.image, self.pooled))
        return [Encoded(*parts) for parts in zip(*tensors, patches, masks, strict=True)]


@dataclass(frozen=True)
class _Sequence:
    """tokens (B, S, D); mask (B, S) bool, True = real, None: all are; num_real: how many are, as in `Text`."""

    tokens: Tensor
    mask: Tensor | None
    num_real: int | None = None


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
    image_size: of square images; with learned positions any multiples of the patch size will do. max_patches: in training
    an image keeps at most so many of its patches, drawn at random.
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
        max_patches: int | None = None,
        activation_checkpointing: bool = False,
    ):
        super().__init__()
        if image_size % size.patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch size {size.patch_size}")
        self.size, self.image_size, self.max_patches = size, image_size, max_patches
        width, dropout = size.width, text_dropout if size.dropout else 0.0
        self.text_embeddings = text_embedding(width, vocab_size, max_text_len, text_dropout, pad_token_id)
        self.token_types = nn.Embedding(1 + num_image_types, width)
        self.patch_embed = patch_embedding(width, size.patch_size, image_size, square=size.learned_grid is None)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        if size.learned_grid is None:
            positions = sincos_positions(width, image_size // size.patch_size, size.temperature)
            self.register_buffer("pos_embed", positions)
        else:
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + size.learned_grid**2, width))
        self.image_dropout = nn.Dropout(dropout)
        self.blocks = blocks(
            width, size.depth, size.heads, size.mlp_ratio, drop_path, norm_eps=size.norm_eps, dropout=dropout
        )
        self._checkpoints, self._may_pack = activation_checkpointing, drop_path == 0
        self.norm = layer_norm(width, eps=size.norm_eps)
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
        if self.size.learned_grid is not None:
            nn.init.normal_(self.pos_embed, std=0.02)

    @property
    def num_patches(self) -> int:
        return self.patch_embed.num_patches

    def embed_text(self, text: Text) -> TextTokens:
        """Text (B, L) -> tokens."""
        return TextTokens(self.embed_words(text.ids, text.segments), text.mask, text.num_real)

    def embed_words(self, ids: Tensor, segments: Tensor | None = None) -> Tensor:
        """Token ids (B, L) int64 -> (B, L, D), text's token type added; segments as in `Text`."""
        return self.text_embeddings(ids, segments) + self.token_types.weight[0]

    def embed_images(
        self,
        images: Tensor,
        *,
        sizes: Sizes | None = None,
        image_type: int | None = 1,
        mask_ratio: float = 0.0,
        noise: Tensor | None = None,
    ) -> ImageTokens:
        """Normalised images (B, 3, H, W) -> tokens; patches are dropped where `noise` (B, P) is large.

        sizes (B,): of padded images; there are then as many tokens as the largest image has patches. image_type: row of
        the token-type table; None adds none (the image alone, as MAE and timm see it). Without noise all patches stay,
        whatever mask_ratio is.
        """
        tokens, patches, mask = self.patch_embed(images), None, None
        if self.size.learned_grid is None:
            tokens = tokens + self.pos_embed[:, 1:]
        else:
            tokens, mask = self._place(tokens, (images.shape[-2], images.shape[-1]), sizes)
        if noise is not None and mask_ratio > 0:
            patches = random_mask(noise, mask_ratio)
            tokens = take_patches(tokens, patches.kept)
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = self.image_dropout(torch.cat([cls_token.to(tokens.dtype), tokens], dim=1))
        if image_type is not None:
            tokens = tokens + self.token_types.weight[image_type]
        return ImageTokens(tokens, patches, mask)

    def _place(self, tokens: Tensor, shape: tuple[int, int], sizes: Sizes | None) -> tuple[Tensor, Tensor | None]:
        """Patches (B, P, D) of padded images with their learned positions, and `ImageTokens.mask`.

        Padding is left out but for what makes up for images with fewer patches than the largest.
        """
        grid = (shape[0] // self.size.patch_size, shape[1] // self.size.patch_size)
        extents = None if sizes is None else sizes.pixels // self.size.patch_size
        tokens = tokens + learned_positions(self.pos_embed, grid, extents)
        num_patches = tokens.shape[1] if sizes is None else sizes.largest // self.size.patch_size**2
        drawn = self.training and self.max_patches is not None and self.max_patches < num_patches
        if sizes is None and not drawn:
            return tokens, None
        if sizes is None:
            shown = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        else:
            shown = shown_patches(extents, grid)
        noise = torch.rand(shown.shape, device=tokens.device) if drawn else None
        kept = leading_patches(shown, self.max_patches if drawn else num_patches, noise)
        mask = shown.gather(1, kept)
        return take_patches(tokens, kept), torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)

    def fuse(self, text: TextTokens | None, image: ImageTokens | None) -> Encoded:
        """Embedded text and an embedded image through the ViT.

        text=None runs the image alone, and `pooled` then reads the class token; image=None runs the text alone.
        """
        sequence = self._sequence(text, image)
        tokens, num_text = self.norm(self._run(sequence)), 0 if text is None else text.tokens.shape[1]
        patches, mask = (image.patches, image.mask) if image is not None else (None, None)
        return Encoded(tokens[:, :num_text], tokens[:, num_text:], self.pooler(tokens), patches, mask)

    def fuse_pooled(self, text: TextTokens | None, image: ImageTokens | None) -> Tensor:
        """`fuse(...).pooled` (B, D) for less: the last block computes the first tokens alone, and padding costs nothing."""
        return self.pooler(self.norm(self._run(self._sequence(text, image), pooled=True))[:, None])

    @staticmethod
    def _sequence(text: TextTokens | None, image: ImageTokens | None) -> _Sequence:
        """What is given, side by side."""
        if image is None:
            return _Sequence(text.tokens, text.mask.bool(), text.num_real)
        if text is None:
            return _Sequence(image.tokens, image.mask)
        tokens = torch.cat([text.tokens.to(image.tokens.dtype), image.tokens], dim=1)
        shown = text.mask.new_ones(image.tokens.shape[:2]) if image.mask is None else image.mask
        known = text.num_real is not None and image.mask is None
        num_real = text.num_real + shown.numel() if known else None
        return _Sequence(tokens, torch.cat([text.mask, shown], dim=1).bool(), num_real)

    def _run(self, sequence: _Sequence, *, pooled: bool = False) -> Tensor:
        """Tokens (B, S, D) through all blocks; pooled: only the first ones (B, D) come out."""
        tokens, (pattern, packing) = sequence.tokens, self._pattern(sequence, pooled)
        if packing is not None:
            tokens = packing.pack(tokens)
        for block in self.blocks[: -1 if pooled else None]:
            if self._checkpoints and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, pattern, use_reentrant=False)
            else:
                tokens = block(tokens, pattern)
        if pooled:
            tokens = self.blocks[-1].forward_first_token(tokens, pattern)
            return tokens if packing is None else packing.in_order(tokens)
        return tokens if packing is None else packing.unpack(tokens)

    def _pattern(self, sequence: _Sequence, pooled: bool) -> tuple[AttentionPattern, Packing | None]:
        """How the sequence attends to itself, and how it is packed, if it is."""
        packing = self._packing(sequence, pooled)
        if sequence.mask is None or (packing is not None and packing.is_full):
            return FULL, None
        return (padded(sequence.mask), None) if packing is None else (packing.pattern, packing)

    def _packing(self, sequence: _Sequence, pooled: bool) -> Packing | None:
        """How to leave the padding out, where nobody reads the tokens there: in training, and if pooled.

        A GPU must not be asked how long sequences are, so their number of tokens has to be known. Not with compiled
        blocks, which would be compiled for all lengths, nor with stochastic depth, which goes by rows.
        """
        if sequence.mask is None or not self._may_pack or not (pooled or self.training):
            return None
        if has_flash_attention(sequence.tokens.device) and sequence.num_real is not None:
            return Packing.on_device(sequence.mask, sequence.num_real)
        return Packing.on_host(sequence.mask) if sequence.tokens.is_cpu else None

    def forward(self, ids: Tensor, text_mask: Tensor, images: Tensor, **image_options) -> Encoded:
        """One pass over token ids (B, L), their mask (B, L) and images; image_options as in `embed_images`."""
        return self.fuse(self.embed_text(Text(ids, text_mask)), self.embed_images(images, **image_options))
