"""The configurations of the encoder. Pure data: they are read without importing torch."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder's sizes, its kind of positions, and the normalisation of its images.

    width, depth, heads: of the ViT.
    patch_size: in pixels.
    mlp_ratio: the hidden width of the MLP over the width.
    temperature: of the sin-cos positions (`vlc.model.embed.sincos_positions`). With MAE's 10,000 most channels are constant
        on a grid of a few patches, and a small model hardly learns positions.
    learned_grid: side in patches of a learned position table, which is stretched over each image, whatever its shape;
        None: the positions are for square images.
    positions: of square images: "sincos" are fixed, "trained" are a table of their own for each image_size, and with "none"
        patches are placed by `rotary` alone.
    rotary: a name of `vlc.model.rotary.ROTARY`, by which queries and keys of patches are rotated; None: they are not.
    registers: how many tokens without content stand beside an image (Darcet et al. 2024).
    hides_class_token: no other token attends to the class token of an image, for families whose ViT has none. It reads the
        patches, and the patches compute what they compute without it.
    pre_norm: whether image tokens are normalised before the first block, as in CLIP.
    layer_scale: the start of the factors of each channel of a block's outputs (Touvron et al. 2021, CaiT); None: none.
    mlp: a name of `vlc.model.blocks.MLPS`.
    attention_norm, mlp_norm: whether a block normalises mixed values before their projection, and the hidden layer of its
        MLP (sub-LN, Wang et al. 2022, Magneto).
    norm_eps: epsilon of the norms in and after the blocks.
    pixel_normalization: a name of `vlc.data.transforms.PIXELS`.
    dropout: whether drop_rate applies to image tokens and blocks too.
    decoder_*: the masked-autoencoder decoder that goes with the encoder (He et al. 2022, section 4.1).
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    mlp_ratio: float = 4
    temperature: float = 10_000
    learned_grid: int | None = None
    positions: str = "sincos"
    rotary: str | None = None
    registers: int = 0
    hides_class_token: bool = False
    pre_norm: bool = False
    layer_scale: float | None = None
    mlp: str = "gelu"
    attention_norm: bool = False
    mlp_norm: bool = False
    norm_eps: float = 1e-6
    pixel_normalization: str = "imagenet"
    dropout: bool = False
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    @property
    def preprocessing(self) -> dict[str, str]:
        """How a trained model's images are prepared, whole; checkpoints store this dictionary."""
        pipeline = "mae_test" if self.learned_grid is None else "pixelbert"
        return {"pipeline": pipeline, "pixels": self.pixel_normalization}

    def num_patches(self, image_size: int) -> int:
        return (image_size // self.patch_size) ** 2


# What the encoders of a family have in common.
_DEIT3: dict[str, Any] = {"positions": "trained", "layer_scale": 1e-6}
_DINOV2: dict[str, Any] = {"positions": "trained", "layer_scale": 1e-5}
_CLIP: dict[str, Any] = {
    "positions": "trained",
    "pre_norm": True,
    "norm_eps": 1e-5,
    "pixel_normalization": "clip",
}
_SIGLIP: dict[str, Any] = {
    "positions": "trained",
    "hides_class_token": True,
    "mlp": "gelu_tanh",
    "pixel_normalization": "centred",
}
# A third of the parameters of a gated MLP are its gates, so that it is narrower.
_EVA02: dict[str, Any] = {
    "mlp_ratio": 4 * 2 / 3,
    "positions": "trained",
    "rotary": "eva02",
    "pixel_normalization": "clip",
}
# `packed_swiglu` counts the gates too.
_EVA02_SMALL: dict[str, Any] = {**_EVA02, "mlp": "packed_swiglu", "mlp_ratio": 2 * 4 * 2 / 3}
_EVA02_LARGE: dict[str, Any] = {**_EVA02, "mlp": "swiglu", "mlp_norm": True}
_DINOV3: dict[str, Any] = {
    "positions": "none",
    "rotary": "dinov3",
    "registers": 4,
    "layer_scale": 1e-5,
    "norm_eps": 1e-5,
}
_BEIT3: dict[str, Any] = {
    "positions": "trained",
    "attention_norm": True,
    "mlp_norm": True,
    "norm_eps": 1e-5,
    "pixel_normalization": "centred",
}

ENCODERS: dict[str, EncoderConfig] = {
    "mae_vit_tiny_patch16": EncoderConfig(
        128, 4, 4, 16, temperature=10, decoder_width=64, decoder_depth=2, decoder_heads=4
    ),
    "mae_vit_base_patch16": EncoderConfig(768, 12, 12, 16),
    "mae_vit_large_patch16": EncoderConfig(1024, 24, 16, 16),
    "mae_vit_huge_patch14": EncoderConfig(1280, 32, 16, 14),
    # ViLT's. Its files on the model hub state this epsilon, its own code 1e-6.
    "vit_base_patch32_384": EncoderConfig(
        768, 12, 12, 32, learned_grid=12, norm_eps=1e-12, pixel_normalization="centred", dropout=True
    ),
    "deit3_vit_small_patch16": EncoderConfig(384, 12, 6, 16, **_DEIT3),
    "deit3_vit_base_patch16": EncoderConfig(768, 12, 12, 16, **_DEIT3),
    "deit3_vit_large_patch16": EncoderConfig(1024, 24, 16, 16, **_DEIT3),
    "deit3_vit_huge_patch14": EncoderConfig(1280, 32, 16, 14, **_DEIT3),
    "dinov2_vit_small_patch14": EncoderConfig(384, 12, 6, 14, **_DINOV2),
    "dinov2_vit_base_patch14": EncoderConfig(768, 12, 12, 14, **_DINOV2),
    "dinov2_vit_large_patch14": EncoderConfig(1024, 24, 16, 14, **_DINOV2),
    "dinov2_vit_small_patch14_reg": EncoderConfig(384, 12, 6, 14, registers=4, **_DINOV2),
    "dinov2_vit_base_patch14_reg": EncoderConfig(768, 12, 12, 14, registers=4, **_DINOV2),
    "dinov2_vit_large_patch14_reg": EncoderConfig(1024, 24, 16, 14, registers=4, **_DINOV2),
    "dinov2_vit_giant_patch14": EncoderConfig(1536, 40, 24, 14, mlp="packed_swiglu", mlp_ratio=16 / 3, **_DINOV2),
    "dinov2_vit_giant_patch14_reg": EncoderConfig(
        1536, 40, 24, 14, mlp="packed_swiglu", mlp_ratio=16 / 3, registers=4, **_DINOV2
    ),
    # OpenAI's, DFN's and MetaCLIP's. Most other CLIP models, those of LAION among them, have the usual GELU.
    "clip_vit_base_patch32": EncoderConfig(768, 12, 12, 32, mlp="quick_gelu", **_CLIP),
    "clip_vit_base_patch16": EncoderConfig(768, 12, 12, 16, mlp="quick_gelu", **_CLIP),
    "clip_vit_large_patch14": EncoderConfig(1024, 24, 16, 14, mlp="quick_gelu", **_CLIP),
    "openclip_vit_base_patch32": EncoderConfig(768, 12, 12, 32, **_CLIP),
    "openclip_vit_base_patch16": EncoderConfig(768, 12, 12, 16, **_CLIP),
    "openclip_vit_large_patch14": EncoderConfig(1024, 24, 16, 14, **_CLIP),
    "openclip_vit_huge_patch14": EncoderConfig(1280, 32, 16, 14, **_CLIP),
    # The first SigLIP and SigLIP 2.
    "siglip_vit_base_patch16": EncoderConfig(768, 12, 12, 16, **_SIGLIP),
    "siglip_vit_large_patch16": EncoderConfig(1024, 24, 16, 16, **_SIGLIP),
    "siglip_vit_so400m_patch14": EncoderConfig(1152, 27, 16, 14, mlp_ratio=3.7362, **_SIGLIP),
    "siglip_vit_so400m_patch16": EncoderConfig(1152, 27, 16, 16, mlp_ratio=3.7362, **_SIGLIP),
    "eva02_vit_tiny_patch14": EncoderConfig(192, 12, 3, 14, **_EVA02_SMALL),
    "eva02_vit_small_patch14": EncoderConfig(384, 12, 6, 14, **_EVA02_SMALL),
    "eva02_vit_base_patch14": EncoderConfig(768, 12, 12, 14, **_EVA02_LARGE),
    "eva02_vit_large_patch14": EncoderConfig(1024, 24, 16, 14, **_EVA02_LARGE),
    # EVA-CLIP's.
    "eva02_clip_vit_base_patch16": EncoderConfig(768, 12, 12, 16, attention_norm=True, **_EVA02_LARGE),
    "eva02_clip_vit_large_patch14": EncoderConfig(1024, 24, 16, 14, attention_norm=True, **_EVA02_LARGE),
    "dinov3_vit_small_patch16": EncoderConfig(384, 12, 6, 16, **_DINOV3),
    "dinov3_vit_small_plus_patch16": EncoderConfig(384, 12, 6, 16, mlp="swiglu", **_DINOV3),
    "dinov3_vit_base_patch16": EncoderConfig(768, 12, 12, 16, **_DINOV3),
    "dinov3_vit_large_patch16": EncoderConfig(1024, 24, 16, 16, **_DINOV3),
    "dinov3_vit_huge_plus_patch16": EncoderConfig(1280, 32, 20, 16, mlp="swiglu", **_DINOV3),
    "beit3_vit_base_patch16": EncoderConfig(768, 12, 12, 16, **_BEIT3),
    "beit3_vit_large_patch16": EncoderConfig(1024, 24, 16, 16, **_BEIT3),
}
