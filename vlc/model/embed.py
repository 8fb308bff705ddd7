"""Embeddings of text (as BERT's) and of image patches, and the positions of patches, fixed or learned."""

import math
from collections.abc import Sequence

import torch
from timm.layers import PatchEmbed, build_sincos2d_pos_embed, resample_abs_pos_embed
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertConfig, BertEmbeddings


def text_embedding(width: int, vocab_size: int, max_text_len: int, dropout: float, pad_token_id: int) -> BertEmbeddings:
    """BERT's word, position and token-type embeddings with their layer norm (eps 1e-12) and dropout."""
    config = BertConfig(
        vocab_size=vocab_size,
        hidden_size=width,
        num_attention_heads=1,  # read by the layers of BERT that are not built here
        max_position_embeddings=max_text_len,
        hidden_dropout_prob=dropout,
        pad_token_id=pad_token_id,
    )
    return BertEmbeddings(config)


class TaskTokens(nn.Embedding):
    """A vector for each task, by name. The token of a batch's task tells a shared encoder which task it computes.

    Multi-task training by Lu et al. 2020 (12-in-1) has such tokens.
    """

    def __init__(self, names: Sequence[str], width: int):
        super().__init__(len(names), width)
        self.names = tuple(names)

    def vector(self, name: str) -> Tensor:
        """Return the vector (D,) of a task. Raises ValueError for a name without a vector.

        name: empty: the only task of the model, which the run does not name.
        """
        if not name and len(self.names) == 1:
            return self.weight[0]
        if name not in self.names:
            raise ValueError(f"task {name!r} has no token; the tasks {', '.join(self.names)} have one")
        return self.weight[self.names.index(name)]


class LanguageEmbeddings(nn.Embedding):
    """A vector for each language, by name, which is added to the tokens of texts in it. All start as zero."""

    def __init__(self, names: Sequence[str], width: int):
        super().__init__(len(names), width)
        self.names = tuple(names)
        nn.init.zeros_(self.weight)

    def of_tokens(self, languages: Tensor, segments: Tensor | None = None) -> Tensor:
        """Return what is added to tokens, (B, L, D); (B, 1, D) where a text is one sequence.

        languages: (B, 2) int64, the numbers of the languages of segments 0 and 1; below 0: none, for which it is zero.
        segments: (B, L) int64, 0 or 1; None: a text is one sequence.
        """
        vectors = self(languages.clamp(min=0)) * (languages >= 0)[:, :, None]
        if segments is None:
            return vectors[:, :1]
        return vectors.gather(1, segments[:, :, None].expand(-1, -1, vectors.shape[2]))


def patch_embedding(width: int, patch_size: int, image_size: int, *, square: bool = True) -> PatchEmbed:
    """Images (B, 3, H, W) -> patch tokens (B, P, D), row by row. square: only images of image_size are accepted."""
    return PatchEmbed(img_size=image_size, patch_size=patch_size, in_chans=3, embed_dim=width, strict_img_size=square)


def sincos_positions(width: int, grid_size: int, temperature: float = 10_000) -> Tensor:
    """Fixed position table (1, 1 + grid_size ** 2, width) float32; the class token's row is zero.

    The first half of the channels encodes the column, the second half the row, each as all sines, then all cosines
    (MAE's layout; timm's builder puts the row first). Wave lengths run from 2 pi to 2 pi * temperature patches.
    """
    table = build_sincos2d_pos_embed([grid_size, grid_size], width, temperature, interleave_sin_cos=True)
    table = table.roll(width // 2, dims=1)
    return torch.cat([table.new_zeros(1, width), table]).unsqueeze(0)


def learned_positions(table: Tensor, grid: tuple[int, int], extents: Tensor | None = None) -> Tensor:
    """Stretch a learned table (1, 1 + G * G, D) over images: (1, P, D), or (B, P, D) with extents.

    The resizing is bilinear with the table's corners on the image's corners, as in ViLT (Kim et al. 2021). It is computed
    in float32 without a device synchronisation. Values at padding are undefined.

    grid: rows and columns of the (padded) images in patches.
    extents: (B, 2) int64, rows and columns of each image without padding; None: there is no padding.
    """
    side = math.isqrt(table.shape[1] - 1)
    if extents is None:
        if grid == (side, side):
            return table[:, 1:]
        # Filled on the device, as it would wait for a copy.
        extents = torch.stack([torch.full((1,), length, device=table.device) for length in grid], dim=1)
    rows, columns = (_linear_interpolation_weights(length, extents[:, axis], side) for axis, length in enumerate(grid))
    with torch.autocast(table.device.type, enabled=False):
        places = table[0, 1:].float().unflatten(0, (side, side))
        return torch.einsum("brg,bch,ghd->brcd", rows, columns, places).flatten(1, 2)


def _linear_interpolation_weights(length: int, extents: Tensor, side: int) -> Tensor:
    """Return the weights (B, length, side) of `side` points, spread evenly over the first extents (B,) of `length`."""
    steps = (side - 1) / (extents - 1).clamp(min=1)
    places = torch.arange(length, device=extents.device) * steps[:, None]
    return (1 - (places[:, :, None] - torch.arange(side, device=extents.device)).abs()).clamp(min=0)


def resize_positions(table: Tensor, num_patches: int) -> Tensor:
    """Resize a position table (1, 1 + P, D) of a square grid to another square grid of num_patches.

    The row of the class token is kept. The grid is resized bicubically, without antialiasing and without corner alignment,
    as DeiT and the published VLC do it. Raises ValueError if the table has another shape, or a grid is not a square.
    """
    old, new = (math.isqrt(max(count, 0)) for count in (table.shape[1] - 1, num_patches))
    if len(table) != 1 or old == 0 or old**2 != table.shape[1] - 1 or new**2 != num_patches:
        raise ValueError(f"position tables need square grids, got {table.shape[1] - 1} and {num_patches} patches")
    return resample_abs_pos_embed(table, [new, new], [old, old], antialias=False)


def init_bert_weights(module: nn.Module) -> None:
    """Initialise as BERT does, with Normal(0, 0.02) matrices, zero biases and unit norms: all parts but the ViT."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    _reset_norms_and_biases(module)


def init_vit_weights(module: nn.Module) -> None:
    """Initialise the ViT and its decoder as MAE does, with Xavier-uniform matrices, zero biases and unit norms."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
    elif isinstance(module, PatchEmbed):  # as a linear layer; the bias keeps torch's initialisation
        nn.init.xavier_uniform_(module.proj.weight.flatten(1))
    _reset_norms_and_biases(module)


def _reset_norms_and_biases(module: nn.Module) -> None:
    if isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
    if isinstance(module, nn.Linear | nn.LayerNorm) and module.bias is not None:
        nn.init.zeros_(module.bias)
