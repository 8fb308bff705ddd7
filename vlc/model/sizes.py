"""The sizes the encoder comes in. Pure data: the configuration reads it without importing torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderConfig:
    """width, depth, heads of the ViT; patch_size in pixels; mlp_ratio is hidden width over width.

    temperature: of the sin-cos positions. MAE's 10,000 leaves most channels constant on a grid of a few patches, where
    a small model then hardly finds places; see `vlc.model.embed.sincos_positions`.

    learned_grid: side in patches of a learned position table, which is stretched over each image, whatever its shape;
    None: fixed sin-cos positions, for square images. norm_eps: of the norms in and after the blocks. pixels: how images
    are normalised, a name of `vlc.data.transforms.PIXELS`. dropout: drop_rate applies to image tokens and blocks too.

    The decoder fields describe the masked-autoencoder decoder that goes with the encoder (He et al. 2022, section 4.1).
    """

    width: int
    depth: int
    heads: int
    patch_size: int
    mlp_ratio: float = 4
    temperature: float = 10_000
    learned_grid: int | None = None
    norm_eps: float = 1e-6
    pixels: str = "imagenet"
    dropout: bool = False
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    @property
    def preprocessing(self) -> dict[str, str]:
        """How whole images are prepared for a trained model; checkpoints keep it."""
        return {"pipeline": "mae_test" if self.learned_grid is None else "pixelbert", "pixels": self.pixels}

    def num_patches(self, image_size: int) -> int:
        return (image_size // self.patch_size) ** 2


ENCODERS: dict[str, EncoderConfig] = {
    "mae_vit_tiny_patch16": EncoderConfig(
        128, 4, 4, 16, temperature=10, decoder_width=64, decoder_depth=2, decoder_heads=4
    ),
    "mae_vit_base_patch16": EncoderConfig(768, 12, 12, 16),
    "mae_vit_large_patch16": EncoderConfig(1024, 24, 16, 16),
    "mae_vit_huge_patch14": EncoderConfig(1280, 32, 16, 14),
    # ViLT's. Its files on the model hub state this epsilon, its own code 1e-6.
    "vit_base_patch32_384": EncoderConfig(
        768, 12, 12, 32, learned_grid=12, norm_eps=1e-12, pixels="centred", dropout=True
    ),
}
