"""The checkpoint layouts of other projects as tables of renames, for reading and exporting."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How to recognise a project's file, and our names of its parameters.

    marker: a key that this project's files have, perhaps behind one of `prefixes`.
    renames: (theirs, ours) pairs of whole names, or of prefixes that end in "."; * stands for a number. The first pair
        that fits wins.
    dropped: patterns of keys that a file may hold and that have no place here.
    image_only: whether the file holds no text half.
    text_only: whether the file holds the embeddings of texts alone.
    unwrap: the key under which the parameters lie when exported.
    applies: whether a file with the marker is of this layout.
    prefixes: what stands before the names of the image half where a file has other halves too.
    parts: this project stores some tensors in pieces, e.g. ((".query.", ".key.", ".value."), ".qkv."): the names of the
        pieces, and our name for their concatenation.
    zeros: (".key.weight", ".key.bias"): this project has no such bias beside this weight, so that it is zero.
    bare_positions: whether position tables may lack the row of the class token; oblong ones are then not found out.
    rows_before: how many unused rows stand in the position table before that of the class token.
    tied: parameters that a file may leave out, because they equal another parameter.
    hub: whether a config.json of ViLT lies beside the file.
    vision: whether a config.json of another model of transformers may lie beside the file.
    read_only: whether no file is written in this layout.
    answers: our name of the layer for whose rows config.json gives the names.
    """

    name: str
    marker: str
    renames: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    image_only: bool = False
    text_only: bool = False
    unwrap: str = "state_dict"
    applies: Callable[[Mapping[str, Tensor]], bool] = bool  # any file that has parameters
    prefixes: tuple[str, ...] = ()
    parts: tuple[tuple[tuple[str, ...], str], ...] = ()
    zeros: tuple[tuple[str, str], ...] = ()
    bare_positions: bool = False
    rows_before: int = 0
    tied: tuple[tuple[str, str], ...] = ()
    hub: bool = False
    vision: bool = False
    read_only: bool = False
    answers: str = ""

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        marked = any(f"{prefix}{self.marker}" in state for prefix in ("", *self.prefixes))
        return marked and self.applies(self._plain(state))

    def _plain(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their parameters without prefixes. A name that another parameter has without a prefix keeps its own."""
        plain: dict[str, Tensor] = {}
        for name, tensor in state.items():
            prefix = next((prefix for prefix in self.prefixes if name.startswith(prefix)), "")
            bare = name.removeprefix(prefix)
            plain[name if bare != name and bare in state else bare] = tensor
        return plain

    def ours(self, key: str) -> str | None:
        """Return our name of their parameter; None if it is dropped on purpose. Raises KeyError for an unknown one."""
        if any(re.match(pattern, key) for pattern in self.dropped):
            return None
        return _rename(key, self.renames)

    def theirs(self, key: str) -> str:
        """Return their name of our parameter. Raises KeyError if the layout has no place for it."""
        return _rename(key, tuple((ours, theirs) for theirs, ours in self.renames))

    def joined(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their parameters without prefixes, with pieces concatenated, and zeros and ties filled in."""
        whole = self._plain(state)
        for key, weight in list(whole.items()):
            for there, absent in self.zeros:
                if key.endswith(there):
                    whole.setdefault(key.removesuffix(there) + absent, weight.new_zeros(weight.shape[:1]))
        for mask in [key for key in whole if key.endswith(".bias_mask")]:  # DINOv3's release masks the bias of keys
            whole[mask.removesuffix("_mask")] = whole[mask.removesuffix("_mask")] * whole.pop(mask)
        for apart, together in self.parts:
            for key in [key for key in whole if apart[0] in key]:
                names = [key.replace(apart[0], part) for part in apart]
                if all(name in whole for name in names):
                    whole[key.replace(apart[0], together)] = torch.cat([whole.pop(name) for name in names])
        for name, source in self.tied:
            head = name.partition(".")[0] + "."
            if source in whole and any(key.startswith(head) for key in whole):
                whole.setdefault(name, whole[source])
        return whole

    def split(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their parameters with the pieces of their files: the inverse of `joined`, but ties stay."""
        split = dict(state)
        for apart, together in self.parts:
            for key in [key for key in split if together in key]:
                pieces = split.pop(key).chunk(len(apart))
                split |= {key.replace(together, part): piece for part, piece in zip(apart, pieces, strict=True)}
        for key in list(split):
            for there, absent in self.zeros:
                if key.endswith(absent) and not split[key].any() and key.removesuffix(absent) + there in split:
                    del split[key]
        return split

    def shaped(self, name: str, value: Tensor) -> Tensor:
        """Return a parameter of our name in our shape: (1, 1, D) the class token, (1, 1 + P, D) a table of positions.

        With bare_positions, a table of a square grid without a row for the class token gets a row of zeros.
        """
        if name == "encoder.cls_token" and value.ndim == 1:
            return value[None, None]
        if name != "encoder.pos_embed" or value.ndim not in (2, 3):
            return value
        value = (value[None] if value.ndim == 2 else value)[:, self.rows_before :]
        if self.bare_positions and math.isqrt(value.shape[1]) ** 2 == value.shape[1]:
            return torch.cat([value.new_zeros(len(value), 1, value.shape[2]), value], dim=1)
        return value


def _rename(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for source, target in renames:
        pattern = _pattern(source)
        if pattern.match(key):
            return pattern.sub(target.replace("*", r"\1"), key, count=1)
    raise KeyError(key)


@cache
def _pattern(name: str) -> re.Pattern[str]:
    """Return the pattern of a whole name, or of a prefix; * matches digits."""
    whole = name and not name.endswith(".")
    return re.compile(re.escape(name).replace(r"\*", r"(\d+)") + ("$" if whole else ""))


_MAE_DECODER = (
    ("mask_token", "objectives.mae.mask_token"),
    ("decoder_pos_embed", "objectives.mae.pos_embed"),
    ("decoder_embed.", "objectives.mae.embed."),
    ("decoder_blocks.", "objectives.mae.blocks."),
    ("decoder_norm.", "objectives.mae.norm."),
    ("decoder_pred.", "objectives.mae.pred."),
)
_IMAGE_HALF = (
    ("cls_token", "encoder.cls_token"),
    ("pos_embed", "encoder.pos_embed"),
    ("patch_embed.", "encoder.patch_embed."),
    ("blocks.", "encoder.blocks."),
    ("norm.", "encoder.norm."),
)

_TEXT_TOWER = (  # open_clip's text tower, and what its contrast learns
    *(r"text\.", r"transformer\.", r"token_embedding\.", r"positional_embedding$", r"ln_final\.", r"text_projection$"),
    *(r"logit_(scale|bias)$", r"attn_mask$"),
)

VLC = Layout("vlc", "encoder.patch_embed.proj.weight", (("", ""),))

VLC_RELEASE = Layout(  # and ViLT's, which VLC's code grew from
    "vlc_release",
    "transformer.patch_embed.proj.weight",
    (
        *((f"transformer.{theirs}", ours) for theirs, ours in _IMAGE_HALF + _MAE_DECODER),
        ("text_embeddings.", "encoder.text_embeddings."),
        ("token_type_embeddings.", "encoder.token_types."),
        ("pooler.", "encoder.pooler."),
        ("mlm_score.bias", "objectives.mlm.decoder.bias"),
        ("mlm_score.", "objectives.mlm."),
        ("itm_score.", "objectives.itm."),
        ("vqa_classifier.", "objectives.vqa.classifier."),
        ("nlvr2_classifier.", "objectives.nlvr2.classifier."),
        ("rank_output.", "objectives.irtr.rank_output."),
    ),
    # Buffers (positions, metric states), and the head of ViLT's masked patches.
    dropped=(r"text_embeddings\.position_ids$", r"(train|val|dev|test)_", r"mpp_score\."),
)

MAE = Layout(  # MAE's release, with or without decoder, and timm's ViT, which names its encoder alike
    "mae",
    "patch_embed.proj.weight",
    (
        *_IMAGE_HALF,
        *_MAE_DECODER,
        ("head.", "objectives.classes.head."),  # an image classifier, and its norm after pooling
        ("fc_norm.", "objectives.classes.norm."),
    ),
    image_only=True,
    unwrap="model",
)


def _is_of_a_family(state: Mapping[str, Tensor]) -> bool:
    """Whether a ViT has parts that MAE's lacks."""
    return any(name in state for name in ("blocks.0.ls1.gamma", "norm_pre.weight", "attn_pool.latent", "reg_token"))


def _is_of_eva(state: Mapping[str, Tensor]) -> bool:
    return any(
        f"blocks.0.{name}" in state for name in ("gamma_1", "attn.q_proj.weight", "attn.q_bias", "mlp.fc1_g.weight")
    )


VIT = Layout(  # DINOv2's release, and timm's ViT with parts that MAE's lacks: DINOv2, DeiT III, CLIP, SigLIP
    "vit",
    "patch_embed.proj.weight",
    (
        *_IMAGE_HALF,
        ("register_tokens", "encoder.registers"),
        ("reg_token", "encoder.registers"),
        ("storage_tokens", "encoder.registers"),  # DINOv3's release
        ("norm_pre.", "encoder.norm_pre."),
        ("head.", "objectives.classes.head."),
        ("fc_norm.", "objectives.classes.norm."),
    ),
    dropped=(r"mask_token$", r"attn_pool\.", r"rope_embed\.periods$", *_TEXT_TOWER),
    image_only=True,
    unwrap="model",
    applies=_is_of_a_family,
    prefixes=("visual.trunk.",),  # open_clip's, of a model of timm
    bare_positions=True,
    zeros=(("patch_embed.proj.weight", "patch_embed.proj.bias"),),
)

VIT_GATED = replace(  # DINOv2's giant in its release
    VIT,
    name="vit_gated",
    marker="blocks.0.mlp.w12.weight",
    renames=(
        ("blocks.*.mlp.w12.", "encoder.blocks.*.mlp.fc1."),
        ("blocks.*.mlp.w3.", "encoder.blocks.*.mlp.fc2."),
        *VIT.renames,
    ),
    prefixes=(),
    read_only=True,
)

EVA = Layout(  # timm's Eva: EVA-02, DINOv3
    "eva",
    "patch_embed.proj.weight",
    (
        ("blocks.*.gamma_1", "encoder.blocks.*.ls1.gamma"),
        ("blocks.*.gamma_2", "encoder.blocks.*.ls2.gamma"),
        *_IMAGE_HALF,
        ("reg_token", "encoder.registers"),
        ("fc_norm.", "encoder.norm."),  # behind the mean of all patches, where there is no norm before it
        ("head.", "objectives.classes.head."),
    ),
    dropped=_TEXT_TOWER,
    image_only=True,
    applies=_is_of_eva,
    prefixes=("visual.trunk.",),
    parts=(((".q_proj.", ".k_proj.", ".v_proj."), ".qkv."), ((".q_bias", ".k_bias", ".v_bias"), ".qkv.bias")),
    zeros=((".k_proj.weight", ".k_proj.bias"), (".q_bias", ".k_bias"), (".qkv.weight", ".qkv.bias")),
    read_only=True,
)

DINOV2 = Layout(  # transformers' Dinov2Model and Dinov2WithRegistersModel
    "dinov2",
    "embeddings.patch_embeddings.projection.weight",
    (
        ("embeddings.cls_token", "encoder.cls_token"),
        ("embeddings.register_tokens", "encoder.registers"),
        ("embeddings.position_embeddings", "encoder.pos_embed"),
        ("embeddings.patch_embeddings.projection.", "encoder.patch_embed.proj."),
        ("encoder.layer.*.attention.attention.qkv.", "encoder.blocks.*.attn.qkv."),
        ("encoder.layer.*.attention.output.dense.", "encoder.blocks.*.attn.proj."),
        ("encoder.layer.*.layer_scale1.lambda1", "encoder.blocks.*.ls1.gamma"),
        ("encoder.layer.*.layer_scale2.lambda1", "encoder.blocks.*.ls2.gamma"),
        ("encoder.layer.*.", "encoder.blocks.*."),  # norms and MLP
        ("layernorm.", "encoder.norm."),
    ),
    dropped=(r"embeddings\.mask_token$", r"classifier\."),
    image_only=True,
    applies=lambda state: "encoder.layer.0.layer_scale1.lambda1" in state,
    prefixes=("dinov2.", "dinov2_with_registers."),
    parts=(((".query.", ".key.", ".value."), ".qkv."),),
    vision=True,
)

DINOV2_GATED = replace(  # its giant
    DINOV2,
    name="dinov2_gated",
    renames=(
        ("encoder.layer.*.mlp.weights_in.", "encoder.blocks.*.mlp.fc1."),
        ("encoder.layer.*.mlp.weights_out.", "encoder.blocks.*.mlp.fc2."),
        *DINOV2.renames,
    ),
    applies=lambda state: "encoder.layer.0.mlp.weights_in.weight" in state,
    read_only=True,
)

_DINOV3 = (
    ("embeddings.cls_token", "encoder.cls_token"),
    ("embeddings.register_tokens", "encoder.registers"),
    ("embeddings.patch_embeddings.", "encoder.patch_embed.proj."),
    ("layer.*.attention.qkv.", "encoder.blocks.*.attn.qkv."),
    ("layer.*.attention.o_proj.", "encoder.blocks.*.attn.proj."),
    ("layer.*.layer_scale1.lambda1", "encoder.blocks.*.ls1.gamma"),
    ("layer.*.layer_scale2.lambda1", "encoder.blocks.*.ls2.gamma"),
)
DINOV3 = Layout(  # transformers' DINOv3ViTModel
    "dinov3",
    "embeddings.patch_embeddings.weight",
    (
        *_DINOV3,
        ("layer.*.mlp.up_proj.", "encoder.blocks.*.mlp.fc1."),
        ("layer.*.mlp.down_proj.", "encoder.blocks.*.mlp.fc2."),
        ("layer.*.", "encoder.blocks.*."),
        ("norm.", "encoder.norm."),
    ),
    dropped=(r"embeddings\.mask_token$",),
    image_only=True,
    parts=(((".q_proj.", ".k_proj.", ".v_proj."), ".qkv."),),
    zeros=tuple((f".{part}_proj.weight", f".{part}_proj.bias") for part in "qkv"),
    vision=True,
    read_only=True,
)
DINOV3_GATED = replace(
    DINOV3,  # its small and huge "plus"
    name="dinov3_gated",
    renames=(
        *_DINOV3,
        ("layer.*.mlp.gate_proj.", "encoder.blocks.*.mlp.fc1_g."),
        ("layer.*.mlp.up_proj.", "encoder.blocks.*.mlp.fc1_x."),
        ("layer.*.mlp.down_proj.", "encoder.blocks.*.mlp.fc2."),
        ("layer.*.", "encoder.blocks.*."),
        ("norm.", "encoder.norm."),
    ),
    applies=lambda state: "layer.0.mlp.gate_proj.weight" in state,
)

BEIT3 = Layout(  # the half of BEiT-3's release that images pass (A); that of texts (B) has no place here
    "beit3",
    "vision_embed.proj.weight",
    (
        ("vision_embed.cls_token", "encoder.cls_token"),
        ("vision_embed.proj.", "encoder.patch_embed.proj."),
        ("encoder.embed_positions.A.weight", "encoder.pos_embed"),
        ("encoder.layers.*.self_attn.qkv.A.", "encoder.blocks.*.attn.qkv."),
        ("encoder.layers.*.self_attn.out_proj.A.", "encoder.blocks.*.attn.proj."),
        ("encoder.layers.*.self_attn.inner_attn_ln.A.", "encoder.blocks.*.attn.norm."),
        ("encoder.layers.*.self_attn_layer_norm.A.", "encoder.blocks.*.norm1."),
        ("encoder.layers.*.final_layer_norm.A.", "encoder.blocks.*.norm2."),
        ("encoder.layers.*.ffn.A.ffn_layernorm.", "encoder.blocks.*.mlp.norm."),
        ("encoder.layers.*.ffn.A.", "encoder.blocks.*.mlp."),
        ("encoder.layer_norm.A.", "encoder.norm."),
    ),
    dropped=(
        *(r"text_embed\.", r"vision_embed\.mask_token$", r".*\.B\."),
        *(
            r"(mlm|mim|itc)_",
            r"(language|vision)_head\.",
            r"(head|pooler|score|mlm_head|classifier)\.",
            r"logit_scale$",
        ),
    ),
    image_only=True,
    unwrap="model",
    prefixes=("beit3.",),
    parts=(((".q_proj.", ".k_proj.", ".v_proj."), ".qkv."),),
    rows_before=2,  # fairseq's, which stand for padding
    read_only=True,
)

CLIP = Layout(  # transformers' CLIPVisionModel and SiglipVisionModel, alone or beside a text tower
    "clip",
    "embeddings.patch_embedding.weight",
    (
        ("embeddings.class_embedding", "encoder.cls_token"),
        ("embeddings.position_embedding.weight", "encoder.pos_embed"),
        ("embeddings.patch_embedding.", "encoder.patch_embed.proj."),
        ("pre_layrnorm.", "encoder.norm_pre."),
        ("encoder.layers.*.layer_norm1.", "encoder.blocks.*.norm1."),
        ("encoder.layers.*.self_attn.qkv.", "encoder.blocks.*.attn.qkv."),
        ("encoder.layers.*.self_attn.out_proj.", "encoder.blocks.*.attn.proj."),
        ("encoder.layers.*.layer_norm2.", "encoder.blocks.*.norm2."),
        ("encoder.layers.*.mlp.", "encoder.blocks.*.mlp."),
        ("post_layernorm.", "encoder.norm."),
    ),
    dropped=(
        *(r"text_model\.", r"(visual|text)_projection\.", r"logit_(scale|bias)$"),
        *(r"embeddings\.position_ids$", r"head\."),
    ),
    image_only=True,
    prefixes=("vision_model.",),
    bare_positions=True,
    parts=(((".q_proj.", ".k_proj.", ".v_proj."), ".qkv."),),
    zeros=(("embeddings.patch_embedding.weight", "embeddings.patch_embedding.bias"),),
    vision=True,
    read_only=True,
)

OPEN_CLIP = Layout(
    "open_clip",
    "visual.conv1.weight",
    (
        ("visual.class_embedding", "encoder.cls_token"),
        ("visual.positional_embedding", "encoder.pos_embed"),
        ("visual.conv1.", "encoder.patch_embed.proj."),
        ("visual.ln_pre.", "encoder.norm_pre."),
        ("visual.transformer.resblocks.*.ln_1.", "encoder.blocks.*.norm1."),
        ("visual.transformer.resblocks.*.attn.in_proj_weight", "encoder.blocks.*.attn.qkv.weight"),
        ("visual.transformer.resblocks.*.attn.in_proj_bias", "encoder.blocks.*.attn.qkv.bias"),
        ("visual.transformer.resblocks.*.attn.out_proj.", "encoder.blocks.*.attn.proj."),
        ("visual.transformer.resblocks.*.ln_2.", "encoder.blocks.*.norm2."),
        ("visual.transformer.resblocks.*.mlp.c_fc.", "encoder.blocks.*.mlp.fc1."),
        ("visual.transformer.resblocks.*.mlp.c_proj.", "encoder.blocks.*.mlp.fc2."),
        ("visual.ln_post.", "encoder.norm."),
    ),
    dropped=(r"visual\.proj$", *_TEXT_TOWER),
    image_only=True,
    zeros=(("visual.conv1.weight", "visual.conv1.bias"),),
    read_only=True,
)

_VILT_MODEL = (  # transformers' ViltModel
    ("embeddings.cls_token", "encoder.cls_token"),
    ("embeddings.position_embeddings", "encoder.pos_embed"),
    ("embeddings.patch_embeddings.projection.", "encoder.patch_embed.proj."),
    ("embeddings.text_embeddings.", "encoder.text_embeddings."),
    ("embeddings.token_type_embeddings.", "encoder.token_types."),
    ("encoder.layer.*.layernorm_before.", "encoder.blocks.*.norm1."),
    ("encoder.layer.*.attention.attention.qkv.", "encoder.blocks.*.attn.qkv."),
    ("encoder.layer.*.attention.output.dense.", "encoder.blocks.*.attn.proj."),
    ("encoder.layer.*.layernorm_after.", "encoder.blocks.*.norm2."),
    ("encoder.layer.*.intermediate.dense.", "encoder.blocks.*.mlp.fc1."),
    ("encoder.layer.*.output.dense.", "encoder.blocks.*.mlp.fc2."),
    ("layernorm.", "encoder.norm."),
    ("pooler.", "encoder.pooler."),
)

VILT_MODEL = Layout(
    "vilt_model",
    "embeddings.patch_embeddings.projection.weight",
    _VILT_MODEL,
    dropped=(r".*text_embeddings\.position_ids$",),
    parts=(((".query.", ".key.", ".value."), ".qkv."),),
    hub=True,
)


def _vilt_renames(task: str) -> tuple[tuple[str, str], ...]:
    """Return the renames of transformers' ViLT models with a head, whose classifier belongs to the task."""
    return (
        *((f"vilt.{theirs}", ours) for theirs, ours in _VILT_MODEL),
        ("mlm_score.decoder.", "objectives.mlm.decoder."),
        ("mlm_score.bias", "objectives.mlm.decoder.bias"),
        ("mlm_score.", "objectives.mlm."),
        ("itm_score.", "objectives.itm."),
        ("rank_output.", "objectives.irtr.rank_output."),
        ("classifier.", f"objectives.{task}.classifier."),
    )


def _classifies_pairs(state: Mapping[str, Tensor]) -> bool:
    """Whether the classifier of a file reads two images: its hidden layer is then as wide as its input."""
    weight = state.get("classifier.0.weight")
    return weight is not None and weight.ndim == 2 and weight.shape[0] == weight.shape[1]


VILT = replace(
    VILT_MODEL,
    name="vilt",
    marker=f"vilt.{VILT_MODEL.marker}",
    renames=_vilt_renames("vqa"),
    answers="objectives.vqa.classifier.3",
    tied=(("mlm_score.decoder.weight", "vilt.embeddings.text_embeddings.word_embeddings.weight"),),
)
VILT_NLVR2 = replace(VILT, name="vilt_nlvr2", renames=_vilt_renames("nlvr2"), answers="", applies=_classifies_pairs)

BERT = Layout(  # the embeddings of transformers' BertModel; its blocks have no place here
    "bert",
    "embeddings.word_embeddings.weight",
    (("embeddings.", "encoder.text_embeddings."),),
    dropped=(r"embeddings\.position_ids$", r"(encoder|pooler|cls|classifier|qa_outputs)\."),
    text_only=True,
    prefixes=("bert.",),
    read_only=True,
)

# Where two have the same marker, the more special one comes first.
_ALL = (
    *(VLC, VLC_RELEASE, EVA, VIT_GATED, VIT, MAE, VILT_NLVR2, VILT, DINOV2_GATED, DINOV2, VILT_MODEL),
    *(DINOV3_GATED, DINOV3, CLIP, OPEN_CLIP, BEIT3, BERT),
)
LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in _ALL}
WRITTEN = tuple(name for name, layout in LAYOUTS.items() if not layout.read_only)
