"""Forward differences of the image half against the projects of each family: `python -m benchmarks.families`.

A model of timm or transformers with random weights is stored as a file, the file is loaded into the encoder, and both
encode the same images. The table shows the largest difference of a value after the final norm. The packages
open_clip_torch and torchscale have to be installed.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from docs.tables import table
from vlc.checkpoint import weights
from vlc.model.encoder import Encoder
from vlc.model.sizes import ENCODERS, EncoderConfig


@dataclass(frozen=True)
class Reference:
    """A model of another project.

    project: who wrote the code.
    vit: the encoder with the same parts.
    build: from sizes and the side of images.
    tokens: images (B, 3, H, W) -> tokens (B, S, D) after the final norm, the patches last.
    """

    project: str
    vit: str
    build: Callable[[EncoderConfig, int], nn.Module]
    tokens: Callable[[Any, Tensor], Tensor]


def _timm_vit(size: EncoderConfig, image_size: int, **options: Any) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer  # here, as vlc lets torchvision import first

    return VisionTransformer(
        image_size,
        size.patch_size,
        num_classes=0,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        mlp_ratio=size.mlp_ratio,
        init_values=size.layer_scale,
        reg_tokens=size.registers,
        pre_norm=size.pre_norm,
        norm_layer=partial(nn.LayerNorm, eps=size.norm_eps),
        act_layer=size.mlp,
        **options,
    )


def _of_transformers(name: str, size: EncoderConfig, image_size: int, **options: Any) -> nn.Module:
    config = getattr(transformers, f"{name}Config")(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        image_size=image_size,
        patch_size=size.patch_size,
        **options,
    )
    return getattr(transformers, f"{name}Model")(config)


def _clip(size: EncoderConfig, image_size: int) -> nn.Module:
    hidden = int(size.width * size.mlp_ratio)
    return _of_transformers("CLIPVision", size, image_size, intermediate_size=hidden, hidden_act=size.mlp)


def _features(model: Any, images: Tensor) -> Tensor:
    return model.forward_features(images)


def _last_state(model: Any, images: Tensor) -> Tensor:
    return model(pixel_values=images).last_hidden_state


def _normalised_state(model: Any, images: Tensor) -> Tensor:
    parts = getattr(model, "vision_model", model)  # which older versions have
    return parts.post_layernorm(_last_state(model, images))


def _timm_eva(size: EncoderConfig, image_size: int, **options: Any) -> nn.Module:
    from timm.models.eva import Eva

    gated, packed = size.mlp != "gelu", size.mlp == "packed_swiglu"
    return Eva(
        image_size,
        size.patch_size,
        num_classes=0,
        embed_dim=size.width,
        depth=size.depth,
        num_heads=size.heads,
        mlp_ratio=size.mlp_ratio / (2 if packed else 1),
        swiglu_mlp=gated,
        scale_mlp=size.mlp_norm,
        scale_attn_inner=size.attention_norm,
        use_rot_pos_emb=True,
        norm_layer=partial(nn.LayerNorm, eps=size.norm_eps),
        **options,
    )


def _eva02(size: EncoderConfig, image_size: int) -> nn.Module:
    return _timm_eva(size, image_size, qkv_fused=size.mlp == "packed_swiglu", ref_feat_shape=(16, 16))


def _dinov3(size: EncoderConfig, image_size: int) -> nn.Module:
    return _timm_eva(
        size,
        image_size,
        qkv_bias=False,
        init_values=size.layer_scale,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_abs_pos_emb=False,
        num_reg_tokens=size.registers,
        use_fc_norm=False,
        swiglu_align_to=8 if size.mlp == "swiglu" else 0,
    )


def _siglip(size: EncoderConfig, image_size: int) -> nn.Module:
    hidden = int(size.width * size.mlp_ratio)
    return _of_transformers("SiglipVision", size, image_size, intermediate_size=hidden)


def _dinov3_of_transformers(size: EncoderConfig, image_size: int) -> nn.Module:
    hidden, gated = int(size.width * size.mlp_ratio), size.mlp == "swiglu"
    options = {"intermediate_size": hidden, "use_gated_mlp": gated, "hidden_act": "silu" if gated else "gelu"}
    return _of_transformers("DINOv3ViT", size, image_size, num_register_tokens=size.registers, **options)


def _beit3(size: EncoderConfig, image_size: int) -> nn.Module:
    from torchscale.architecture.config import EncoderConfig as BEiT3Config
    from torchscale.model.BEiT3 import BEiT3

    return BEiT3(
        BEiT3Config(
            img_size=image_size,
            patch_size=size.patch_size,
            vocab_size=8,
            multiway=True,
            layernorm_embedding=False,
            normalize_output=True,
            no_output_layer=True,
            encoder_embed_dim=size.width,
            encoder_attention_heads=size.heads,
            encoder_ffn_embed_dim=int(size.width * size.mlp_ratio),
            encoder_layers=size.depth,
            dropout=0.0,
        )
    )


def _open_clip(size: EncoderConfig, image_size: int) -> nn.Module:
    from open_clip.transformer import QuickGELU
    from open_clip.transformer import VisionTransformer as Tower

    act = QuickGELU if size.mlp == "quick_gelu" else nn.GELU
    sizes = (size.patch_size, size.width, size.depth, size.heads, size.mlp_ratio)
    return nn.ModuleDict({"visual": Tower(image_size, *sizes, output_dim=32, act_layer=act)})


def _of_tower(model: Any, images: Tensor) -> Tensor:
    tower = model["visual"]
    return tower.ln_post(tower.transformer(tower._embeds(images)))


def _fused(model: Any, images: Tensor) -> Tensor:
    return model(visual_tokens=images)["encoder_out"]


def _fc_normalised(model: Any, images: Tensor) -> Tensor:
    return model.fc_norm(model.forward_features(images))


_no_class_row = partial(_timm_vit, no_embed_class=True)
REFERENCES = (
    Reference("timm", "deit3_vit_base_patch16", _no_class_row, _features),
    Reference("timm", "dinov2_vit_base_patch14", _timm_vit, _features),
    Reference("timm", "dinov2_vit_base_patch14_reg", _no_class_row, _features),
    Reference("timm", "clip_vit_base_patch16", _timm_vit, _features),
    Reference("timm", "openclip_vit_base_patch16", _timm_vit, _features),
    Reference("timm", "siglip_vit_base_patch16", partial(_timm_vit, class_token=False, global_pool="map"), _features),
    Reference("timm", "eva02_vit_small_patch14", _eva02, _fc_normalised),
    Reference("timm", "eva02_vit_base_patch14", _eva02, _fc_normalised),
    Reference("timm", "eva02_clip_vit_base_patch16", _eva02, _fc_normalised),
    Reference("timm", "dinov3_vit_base_patch16", _dinov3, _features),
    Reference("timm", "dinov3_vit_small_plus_patch16", _dinov3, _features),
    Reference("transformers", "dinov2_vit_base_patch14", partial(_of_transformers, "Dinov2"), _last_state),
    Reference(
        "transformers", "dinov2_vit_base_patch14_reg", partial(_of_transformers, "Dinov2WithRegisters"), _last_state
    ),
    Reference(
        "transformers",
        "dinov2_vit_giant_patch14",
        partial(_of_transformers, "Dinov2", use_swiglu_ffn=True),
        _last_state,
    ),
    Reference("transformers", "clip_vit_base_patch16", _clip, _normalised_state),
    Reference("transformers", "openclip_vit_base_patch16", _clip, _normalised_state),
    Reference("transformers", "siglip_vit_base_patch16", _siglip, _last_state),
    Reference("transformers", "dinov3_vit_base_patch16", _dinov3_of_transformers, _last_state),
    Reference("transformers", "dinov3_vit_small_plus_patch16", _dinov3_of_transformers, _last_state),
    Reference("open_clip", "clip_vit_base_patch16", _open_clip, _of_tower),
    Reference("open_clip", "openclip_vit_base_patch16", _open_clip, _of_tower),
    Reference("torchscale", "beit3_vit_base_patch16", _beit3, _fused),
)


class Holder(nn.Module):
    """An encoder where a checkpoint looks for it."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder


def randomised(model: nn.Module) -> nn.Module:
    """Return a model in evaluation mode whose parameters, those of norms too, all differ from their start."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()


def stored(model: Any, folder: Path) -> Path:
    """Store a model as its project does, and return the path that pretrain_path would name."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder)
        return folder
    torch.save(model.state_dict(), folder / "model.pth")
    return folder / "model.pth"


def loaded(size: EncoderConfig, image_size: int, path: Path) -> Encoder:
    """Return an encoder in evaluation mode with the weights of a file."""
    encoder = Encoder(size, image_size, vocab_size=8, max_text_len=4)
    weights.load(Holder(encoder), weights.read(path))
    return encoder.eval()


@torch.no_grad()
def difference(encoder: Encoder, reference: Reference, model: nn.Module, images: Tensor) -> float:
    """Return the largest difference of patches, and of the class token where the other model has one."""
    ours = encoder.encode([encoder.embed_images(images, image_type=None)])["image"]
    theirs, count = reference.tokens(model, images), ours.shape[1] - 1
    gap = float((ours[:, 1:] - theirs[:, -count:]).abs().max())
    return gap if encoder.size.hides_class_token else max(gap, float((ours[:, 0] - theirs[:, 0]).abs().max()))


def measured(reference: Reference, size: EncoderConfig, image_size: int) -> float:
    """Return the difference from a model with random weights, for two random images."""
    torch.manual_seed(0)
    model, images = randomised(reference.build(size, image_size)), torch.randn(2, 3, image_size, image_size)
    with TemporaryDirectory() as folder:
        encoder = loaded(size, image_size, stored(model, Path(folder)))
    return difference(encoder, reference, model, images)


def _rows(chosen: str) -> Iterator[tuple[str, str, str]]:
    for one in (one for one in REFERENCES if chosen in one.vit):
        size = ENCODERS[one.vit]
        yield f"`{one.vit}`", one.project, f"{measured(one, size, 16 * size.patch_size):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--vit", default="", help="a part of the names of the encoders to measure")
    print(table("`vit=` | against | largest difference", _rows(parser.parse_args().vit), "llr"))


if __name__ == "__main__":
    main()
