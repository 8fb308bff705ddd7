"""Other projects' checkpoints as tables of renames. One table serves reading and exporting."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """How to recognise a project's file and how its parameters are called here.

    marker: a key that this project's files have. image_only: the file holds no text half. unwrap: under which key
    the parameters lie when exported. renames: (theirs, ours) pairs of whole names or of prefixes that end in ".";
    the first that fits wins. dropped: what the file may hold that has no place here.
    """

    name: str
    marker: str
    renames: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    image_only: bool = False
    unwrap: str = "state_dict"

    def ours(self, key: str) -> str | None:
        """Our name for a parameter of theirs; None if it is dropped on purpose. Raises KeyError for an unknown one."""
        if any(re.match(pattern, key) for pattern in self.dropped):
            return None
        return _rename(key, self.renames)

    def theirs(self, key: str) -> str:
        """Their name for a parameter of ours. Raises KeyError if the layout has no place for it."""
        return _rename(key, tuple((ours, theirs) for theirs, ours in self.renames))


def _rename(key: str, renames: tuple[tuple[str, str], ...]) -> str:
    for source, target in renames:
        if key == source or (key.startswith(source) and (source.endswith(".") or not source)):
            return target + key[len(source) :]
    raise KeyError(key)


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

VLC = Format("vlc", "encoder.patch_embed.proj.weight", (("", ""),))

VLC_RELEASE = Format(
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
    dropped=(r"text_embeddings\.position_ids$", r"(train|val|dev|test)_"),  # buffers: positions and metric states
)

MAE = Format(  # MAE's release, with or without decoder, and timm's ViT, which names its encoder alike
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

FORMATS: dict[str, Format] = {layout.name: layout for layout in (VLC, VLC_RELEASE, MAE)}
