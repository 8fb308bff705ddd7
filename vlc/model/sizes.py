"""The configurations of the encoder. Pure data: they are read without importing torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderConfig:
    """The encoder's sizes, its kind of positions, and the normalisation of its images.

    width, depth, heads: of the ViT.
    patch_size: in pixels.
    mlp_ratio: the hidden width of the MLP over the width.
    temperature: of the sin-cos positions (`vlc.model.embed.sincos_positions`). With MAE's 10,000 most channels are constant
        on a grid of a few patches, and a small model hardly learns positions.
    learned_grid: side in patches of a learned position table, which is stretched over each image, whatever its shape;
        None: fixed sin-cos positions, for square images.
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
}
