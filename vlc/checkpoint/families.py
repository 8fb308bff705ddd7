"""Which encoders a file fits: the parts of its ViT, compared with the table of sizes."""

from collections.abc import Mapping

from torch import Tensor

from vlc.model.sizes import ENCODERS, EncoderConfig


def fitting(state: Mapping[str, Tensor], heads: int | None = None, activation: str | None = None) -> list[str]:
    """Return the names of the encoders that have the parts and sizes of a file.

    state: parameters by our names.
    heads, activation: as the file's config.json states them; None: it states none.
    """
    if "encoder.patch_embed.proj.weight" not in state:
        return []
    own = _parts(state)
    return [
        name
        for name, size in ENCODERS.items()
        if own == _expected(size) and heads in (None, size.heads) and activation in (None, size.mlp)
    ]


def _parts(state: Mapping[str, Tensor]) -> tuple:
    def sizes(name: str) -> tuple[int, ...]:
        return tuple(state[f"encoder.{name}"].shape) if f"encoder.{name}" in state else ()

    width, _, *patch = sizes("patch_embed.proj.weight")
    blocks = {name.split(".")[2] for name in state if name.startswith("encoder.blocks.")}
    hidden, gated = sizes("blocks.0.mlp.fc2.weight")[-1:], "encoder.blocks.0.mlp.fc1_g.weight" in state
    packed = hidden != () and sizes("blocks.0.mlp.fc1.weight")[:1] == (2 * hidden[0],)
    names = ["cls_token", "pos_embed", "norm_pre.weight", "blocks.0.ls1.gamma"]
    names += ["blocks.0.attn.norm.weight", "blocks.0.mlp.norm.weight"]
    has = [f"encoder.{name}" in state for name in names]
    return width, patch, len(blocks), hidden, gated, packed, sizes("registers")[1:2], has


def _expected(size: EncoderConfig) -> tuple:
    gated, packed = size.mlp == "swiglu", size.mlp == "packed_swiglu"
    hidden = int(size.width * size.mlp_ratio) // (2 if packed else 1)
    registers = (size.registers,) if size.registers else ()
    has = [not size.hides_class_token, size.positions != "none", size.pre_norm, size.layer_scale is not None]
    has += [size.attention_norm, size.mlp_norm]
    return size.width, [size.patch_size] * 2, size.depth, (hidden,), gated, packed, registers, has
