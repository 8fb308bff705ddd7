"""The single-stream encoder: text tokens and image patches through one ViT.

An image's segment is its class token and its patches. The pooled feature is read at the first token of the sequence.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlc.common.inputs import ImageSizes, Text
from vlc.model.attention import has_flash_attention
from vlc.model.blocks import blocks, layer_norm
from vlc.model.embed import (
    LanguageEmbeddings,
    TaskTokens,
    init_bert_weights,
    init_vit_weights,
    learned_positions,
    patch_embedding,
    sincos_positions,
    text_embedding,
)
from vlc.model.masking import leading_patches, random_mask, shown_patches, take_patches
from vlc.model.packing import Packing
from vlc.model.patterns import FULL, AttentionPattern, branched, grouped, padded
from vlc.model.regions import BoxTokens
from vlc.model.rotary import Rotary, RotatedAttention
from vlc.model.segments import Encoded, Segment, TokenSequence, aligned
from vlc.model.sizes import EncoderConfig


class Pooler(nn.Module):
    """First token (B, D) -> dense layer and tanh (B, D), as BERT pools."""

    def __init__(self, width: int):
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dense(tokens[:, 0]).tanh()


class Encoder(nn.Module):
    """Text embedding + patch embedding + token types -> ViT -> norm -> pooler.

    num_image_types: how many images an example can have. Row 0 of the token types is text, row i the i-th image.
    image_size: side of the square images. With learned positions, images may have any multiples of the patch size.
    max_patches: the most patches that an image keeps in training, drawn at random; None: all.
    num_box_tags: passes may have boxes as tokens, and texts so many tags that name them (`vlc.model.regions.BoxTokens`);
        None: no pass has boxes.
    num_box_classes: how many classes of objects in boxes have an embedding; 0: classes are not read.
    task_tokens: the names of the tasks whose token stands beside their texts; empty: no pass has such a token.
    languages: the names of the languages that have an embedding, which is added to the tokens of their texts.
    """

    def __init__(
        self,
        size: EncoderConfig,
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
        num_box_tags: int | None = None,
        num_box_classes: int = 0,
        task_tokens: Sequence[str] = (),
        languages: Sequence[str] = (),
    ):
        super().__init__()
        if image_size % size.patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of the patch size {size.patch_size}")
        self.size, self.image_size, self.max_patches = size, image_size, max_patches
        self.pad_token_id = pad_token_id
        width, dropout = size.width, text_dropout if size.dropout else 0.0
        self.text_embeddings = text_embedding(width, vocab_size, max_text_len, text_dropout, pad_token_id)
        self.token_types = nn.Embedding(1 + num_image_types, width)
        self.patch_embed = patch_embedding(width, size.patch_size, image_size, square=size.learned_grid is None)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.registers = nn.Parameter(torch.zeros(1, size.registers, width)) if size.registers else None
        self._add_positions()
        self.rotary = Rotary(size.rotary, width // size.heads) if size.rotary else None
        self.norm_pre: nn.Module = layer_norm(width, eps=size.norm_eps) if size.pre_norm else nn.Identity()
        self.image_dropout = nn.Dropout(dropout)
        self.blocks = blocks(
            width,
            size.depth,
            size.heads,
            size.mlp_ratio,
            drop_path,
            norm_eps=size.norm_eps,
            dropout=dropout,
            layer_scale=size.layer_scale,
            mlp=size.mlp,
            attention_norm=size.attention_norm,
            mlp_norm=size.mlp_norm,
        )
        self._checkpoints = activation_checkpointing
        self._may_pack = drop_path == 0 and not size.hides_class_token  # packing leaves out what no token attends to
        self.norm: nn.Module = layer_norm(width, eps=size.norm_eps)
        self.pooler: nn.Module = Pooler(width)
        self.regions = None if num_box_tags is None else BoxTokens(width, num_box_tags, num_box_classes)
        self.task_tokens = TaskTokens(task_tokens, width) if task_tokens else None
        self.languages = LanguageEmbeddings(languages, width) if languages else None
        self._init_weights()

    def _add_positions(self) -> None:
        size, grid = self.size, self.size.learned_grid or self.image_size // self.size.patch_size
        if size.learned_grid is not None or size.positions == "trained":
            self.pos_embed = nn.Parameter(torch.zeros(1, 1 + grid**2, size.width))
        elif size.positions == "sincos":
            self.register_buffer("pos_embed", sincos_positions(size.width, grid, size.temperature))
        else:
            self.register_buffer("pos_embed", torch.zeros(1, 1 + grid**2, size.width), persistent=False)

    def compile_blocks(self, **options) -> None:
        """Compile the blocks in place, with options of torch.compile. Lengths are multiples of 8, so there are few."""
        self._may_pack = False
        for block in self.blocks:
            block.compile(**options)

    def keep_images_only(self, *, final_norm: bool) -> None:
        """Remove parameters that only text or fusion reads, as they would get no gradients, and train the positions.

        final_norm: whether encoded tokens are normalised.
        """
        del self.text_embeddings, self.token_types
        if self.size.positions != "none":
            positions = self.pos_embed
            del self.pos_embed
            self.pos_embed = nn.Parameter(positions)
        self.pooler, self.task_tokens, self.languages = nn.Identity(), None, None
        if not final_norm:
            self.norm = nn.Identity()

    def _init_weights(self) -> None:
        for of_bert in (self.text_embeddings, self.token_types, self.pooler):
            of_bert.apply(init_bert_weights)
        if self.task_tokens is not None:
            self.task_tokens.apply(init_bert_weights)
        with torch.no_grad():  # image pairs start with both images alike (the published warm start)
            self.token_types.weight[2:] = self.token_types.weight[1]
        for of_vit in (self.patch_embed, self.blocks, self.norm):
            of_vit.apply(init_vit_weights)
        nn.init.normal_(self.cls_token, std=0.02)
        for vectors in (self.pos_embed, self.registers):
            if isinstance(vectors, nn.Parameter):
                nn.init.normal_(vectors, std=0.02)

    @property
    def num_patches(self) -> int:
        return self.patch_embed.num_patches

    def embed_text(self, text: Text, name: str = "text") -> Segment:
        """Text (B, L) -> a segment of that name."""
        words = self.embed_words(text.ids, text.segments, text.languages, text.positions)
        return Segment(name, words, text.mask, text.num_real, text.starts_group, text.branches)

    def embed_words(
        self,
        ids: Tensor,
        segments: Tensor | None = None,
        languages: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Token ids (B, L) int64 -> (B, L, D), text's token type added; the others as in `Text`."""
        words = self.text_embeddings(ids, segments, positions) + self.token_types.weight[0]
        if self.languages is None or languages is None:
            return words
        return words + self.languages.of_tokens(languages, segments)

    def embed_images(
        self,
        images: Tensor,
        *,
        sizes: ImageSizes | None = None,
        image_type: int | None = 1,
        mask_ratio: float = 0.0,
        noise: Tensor | None = None,
        name: str = "image",
    ) -> Segment:
        """Normalised images (B, 3, H, W) -> a segment of that name, the class token first.

        sizes: (B,), where images are padded; the segment then has as many patches as the largest image.
        image_type: row of the token-type table; None adds none, as in MAE and timm, whose ViT sees images alone.
        mask_ratio: share of patches that are dropped; without noise all stay.
        noise: (B, P); the patches with the largest noise are dropped.
        """
        tokens, patches, mask, indices = self.patch_embed(images), None, None, None
        grid = images.shape[-2] // self.size.patch_size, images.shape[-1] // self.size.patch_size
        if self.size.learned_grid is None:
            tokens = tokens + self.pos_embed[:, 1:]
        else:
            tokens, mask, indices = self._place(tokens, grid, sizes)
        if noise is not None and mask_ratio > 0:
            patches = random_mask(noise, mask_ratio)
            tokens = take_patches(tokens, patches.kept)
            indices = patches.kept if indices is None else indices.gather(1, patches.kept)
        cls_token = (self.cls_token + self.pos_embed[:, :1]).expand(len(tokens), -1, -1)
        tokens = self.norm_pre(self.image_dropout(torch.cat([cls_token.to(tokens.dtype), tokens], dim=1)))
        if self.size.hides_class_token:
            mask = torch.ones_like(tokens[..., 0], dtype=torch.bool)
            mask[:, 0] = False
        if image_type is not None:
            tokens = tokens + self.token_types.weight[image_type]
        return Segment(name, tokens, mask, patches=patches, grid=grid, patch_indices=indices)

    def _place(
        self, tokens: Tensor, grid: tuple[int, int], sizes: ImageSizes | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Add learned positions to patches (B, P, D); returns kept patches, and a segment's mask and patch_indices.

        Padding is left out, except where an image has fewer patches than the largest of the batch.
        """
        count, extents, shown = tokens.shape[1], None, tokens.new_ones(tokens.shape[:2], dtype=torch.bool)
        if sizes is not None:
            count, extents = sizes.largest // self.size.patch_size**2, sizes.height_width // self.size.patch_size
            shown = shown_patches(extents, grid)
        tokens, noise = tokens + learned_positions(self.pos_embed, grid, extents), None
        if self.training and self.max_patches is not None and self.max_patches < count:
            count, noise = self.max_patches, torch.rand(shown.shape, device=tokens.device)
        if sizes is None and noise is None:
            return tokens, None, None
        kept = leading_patches(shown, count, noise)
        mask = shown.gather(1, kept)
        return take_patches(tokens, kept), torch.cat([mask.new_ones(len(mask), 1), mask], dim=1), kept

    def embed_task(self, name: str, count: int) -> Segment:
        """Embed the token of a task as the text embedding embeds a word without position and segment: (count, 1, D)."""
        assert self.task_tokens is not None
        text, vectors = self.text_embeddings, self.task_tokens.vector(name).expand(count, 1, -1)
        return Segment("task_token", text.dropout(text.LayerNorm(vectors)) + self.token_types.weight[0])

    def placed(self, segments: Sequence[Segment], task: str = "") -> list[Segment]:
        """Return segments as they stand side by side in a pass.

        They have equally many rows. The token of the task and, behind the first image, the registers are among them.
        """
        placed = aligned(segments)
        images = [number for number, segment in enumerate(placed, 1) if segment.grid is not None]
        if self.registers is not None and images:
            registers = self.registers.expand(len(placed[0]), -1, -1)
            placed.insert(images[0], Segment("registers", registers.to(placed[0].tokens.dtype)))
        if self.task_tokens is not None and placed[0].grid is None:
            placed.insert(1, self.embed_task(task, len(placed[0])))
        return placed

    def encode(self, segments: Sequence[Segment], *, pooled_only: bool = False, task: str = "") -> Encoded:
        """Run segments side by side through the ViT; those with fewer rows are repeated (`vlc.model.segments.aligned`).

        Where the model has task tokens and the first segment is a text, the token of the task stands behind this segment.
        Attention knows no order, so that this equals the published place behind [CLS]. No position in the text moves, and
        the result does not have the token. Nor does it have the registers, which a pass has once if it has images.

        pooled_only: the result has the pooled feature alone. That costs less: the last block computes the first tokens
            only, and padding is left out.
        task: the name of the task of all rows.
        """
        placed = self.placed(segments, task)
        tokens = self.norm(self._run(TokenSequence.of(placed), self.rotation(placed), pooled_only))
        if pooled_only:
            return Encoded(self.pooler(tokens[:, None]))
        parts = tokens.split([segment.tokens.shape[1] for segment in placed], dim=1)
        own = [replace(segment, tokens=part) for segment, part in zip(placed, parts, strict=True)]
        kept = tuple(segment for segment in own if segment.name not in ("task_token", "registers"))
        return Encoded(self.pooler(tokens), kept, self.pooler)

    def rotation(self, placed: Sequence[Segment]) -> Tensor | None:
        """Return how `vlc.model.rotary` turns the tokens of segments side by side; None: the model does not turn any."""
        return None if self.rotary is None else self.rotary(placed)

    def turned(self, pattern: AttentionPattern, rotation: Tensor | None) -> AttentionPattern:
        """Return an attention pattern with queries and keys that are turned by `rotation`."""
        if rotation is None or self.rotary is None:
            return pattern
        return RotatedAttention(pattern, rotation, self.rotary.halves)

    def _run(self, sequence: TokenSequence, rotation: Tensor | None, pooled_only: bool) -> Tensor:
        """Run tokens (B, S, D) through all blocks; pooled_only: returns the first tokens (B, D) alone."""
        tokens, (pattern, packing) = sequence.tokens, self._pattern(sequence, pooled_only)
        if packing is not None:
            tokens = packing.pack(tokens)
            rotation = None if rotation is None else packing.pack(rotation)
        pattern = self.turned(pattern, rotation)
        for block in self.blocks[: -1 if pooled_only else None]:
            if self._checkpoints and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, pattern, use_reentrant=False)
            else:
                tokens = block(tokens, pattern)
        if pooled_only:
            # torch types the elements of a ModuleList as any module.
            tokens = self.blocks[-1].forward_first_token(tokens, pattern)  # type: ignore[operator]
            return tokens if packing is None else packing.in_order(tokens)
        return tokens if packing is None else packing.unpack(tokens)

    def _pattern(self, sequence: TokenSequence, pooled_only: bool) -> tuple[AttentionPattern, Packing | None]:
        """Return which tokens attend to which, and how the sequences are packed; None: they are not packed."""
        if sequence.starts_group is not None:
            return grouped(sequence.starts_group, sequence.mask), None
        if sequence.branches is not None:
            return branched(sequence.branches, sequence.mask), None
        packing = self._packing(sequence, pooled_only)
        if sequence.mask is None or (packing is not None and packing.is_full):
            return FULL, None
        return (padded(sequence.mask), None) if packing is None else (packing.pattern, packing)

    def _packing(self, sequence: TokenSequence, pooled_only: bool) -> Packing | None:
        """Return how to leave the padding out where its tokens are not read: in training, and if pooled_only.

        On a GPU the number of real tokens has to be known beforehand, as reading it would synchronise the device. We do
        not pack when blocks are compiled (every new length would recompile them), nor with stochastic depth (it drops
        whole rows of the batch, and packed input has none), nor in an exported graph.
        """
        if sequence.mask is None or not self._may_pack or not (pooled_only or self.training):
            return None
        if torch.compiler.is_exporting():
            return None
        if has_flash_attention(sequence.tokens.device) and sequence.num_real is not None:
            return Packing.on_device(sequence.mask, sequence.num_real)
        return Packing.on_host(sequence.mask) if sequence.tokens.is_cpu else None

    def forward(self, ids: Tensor, text_mask: Tensor, images: Tensor, *, task: str = "", **image_options) -> Encoded:
        """One pass over the segments "text" and "image": token ids (B, L), their mask (B, L), and images.

        task: as in `encode`.
        image_options: as in `embed_images`.
        """
        segments = [self.embed_text(Text(ids, text_mask)), self.embed_images(images, **image_options)]
        return self.encode(segments, task=task)
