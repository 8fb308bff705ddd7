"""The checkpoint layouts of other projects as tables of renames, for reading and exporting."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """How to recognise a project's file, and our names of its parameters.

    marker: a key that this project's files have.
    renames: (theirs, ours) pairs of whole names, or of prefixes that end in "."; * stands for a number. The first pair
        that fits wins.
    dropped: patterns of keys that a file may hold and that have no place here.
    image_only: whether the file holds no text half.
    unwrap: the key under which the parameters lie when exported.
    applies: whether a file with the marker is of this layout.
    parts: this project stores some tensors in pieces, e.g. ((".query.", ".key.", ".value."), ".qkv."): the names of the
        pieces, and our name for their concatenation.
    tied: parameters that a file may leave out, because they equal another parameter.
    hub: whether a config.json lies beside the file.
    answers: our name of the layer for whose rows config.json gives the names.
    """

    name: str
    marker: str
    renames: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    image_only: bool = False
    unwrap: str = "state_dict"
    applies: Callable[[Mapping[str, Tensor]], bool] = bool  # any file that has parameters
    parts: tuple[tuple[str, ...], str] = ((), "")
    tied: tuple[tuple[str, str], ...] = ()
    hub: bool = False
    answers: str = ""

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        return self.marker in state and self.applies(state)

    def ours(self, key: str) -> str | None:
        """Return our name of their parameter; None if it is dropped on purpose. Raises KeyError for an unknown one."""
        if any(re.match(pattern, key) for pattern in self.dropped):
            return None
        return _rename(key, self.renames)

    def theirs(self, key: str) -> str:
        """Return their name of our parameter. Raises KeyError if the layout has no place for it."""
        return _rename(key, tuple((ours, theirs) for theirs, ours in self.renames))

    def joined(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their parameters with pieces concatenated and ties filled in."""
        whole = dict(state)
        apart, together = self.parts
        for key in state:
            names = [key.replace(apart[0], part) for part in apart] if apart and apart[0] in key else []
            if names and all(name in whole for name in names):
                whole[key.replace(apart[0], together)] = torch.cat([whole.pop(name) for name in names])
        for name, source in self.tied:
            head = name.partition(".")[0] + "."
            if source in whole and any(key.startswith(head) for key in whole):
                whole.setdefault(name, whole[source])
        return whole

    def split(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return their parameters with the pieces of their files: the inverse of `joined`, but ties stay."""
        apart, together = self.parts
        split: dict[str, Tensor] = {}
        for key, tensor in state.items():
            if apart and together in key:
                pieces = tensor.chunk(len(apart))
                split |= {key.replace(together, part): piece for part, piece in zip(apart, pieces, strict=True)}
            else:
                split[key] = tensor
        return split


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
    parts=((".query.", ".key.", ".value."), ".qkv."),
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

LAYOUTS: dict[str, Layout] = {layout.name: layout for layout in (VLC, VLC_RELEASE, MAE, VILT_NLVR2, VILT, VILT_MODEL)}
