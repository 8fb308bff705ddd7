"""The golden models of tests/golden/tiny, built, loaded and fed with their batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlc.checkpoint import weights
from vlc.common.inputs import Text
from vlc.configuration.recipes import OBJECTIVE_NAMES
from vlc.configuration.settings import ModelSettings
from vlc.data.batch import Batch, MaskedText
from vlc.data.values import padded_floats, padded_integers
from vlc.model.sizes import ENCODERS, EncoderSize
from vlc.training.module import VLCModule

SIZE = EncoderSize(64, 3, 4, 16, decoder_width=32, decoder_depth=2, decoder_heads=4)
NAMES = ("pretrain", "mlm", "itm", "mlm_full", "itm_full", "vqa", "nlvr2", "irtr")


@dataclass
class Golden:
    """A golden case: our module with the published weights, our batch of the published inputs, the published outputs."""

    module: VLCModule
    batch: Batch
    expected: dict[str, Any]
    report: weights.LoadReport


def model_settings(**values: Any) -> ModelSettings:
    """Model settings of the golden models; register SIZE as "golden_vit" before building."""
    defaults = {
        "vit": "golden_vit",
        "patch_size": SIZE.patch_size,
        "hidden_size": SIZE.width,
        "num_heads": SIZE.heads,
        "num_layers": SIZE.depth,
        "mlp_ratio": SIZE.mlp_ratio,
        "vocab_size": 211,
        "drop_rate": 0.0,
        "compile": False,
        "activation_checkpointing": False,
        "loss_names": dict.fromkeys(OBJECTIVE_NAMES, 0),
        "mask_ratio": 0.6,
        "is_pretrain": True,
        "use_mae": False,
        "mae_weight": 1.0,
        "wpa_weight": 0.1,
        "vqav2_label_size": 17,
        "hard_negatives": False,
        "max_image_len": -1,
    }
    return ModelSettings(**(defaults | values))


def build_module(settings: ModelSettings, image_size: int = 64, max_text_len: int = 12, **options: Any) -> VLCModule:
    ENCODERS["golden_vit"] = SIZE
    try:
        return VLCModule(settings, image_size=image_size, max_text_len=max_text_len, vocab_size=211, **options).eval()
    finally:
        del ENCODERS["golden_vit"]


def load(golden: Path, name: str) -> Golden:
    source = golden / "tiny" / f"{name}.ckpt"
    config = torch.load(source, weights_only=True)["hyper_parameters"]["config"]
    losses = {objective: float(config["loss_names"].get(objective, 0) >= 1) for objective in OBJECTIVE_NAMES}
    module = build_module(
        model_settings(loss_names=losses, mask_ratio=config["mask_ratio"], is_pretrain=config["is_pretrain"]),
        splits=("val",),
        num_images=2 if name == "nlvr2" else 1,
    )
    report = weights.load(module, weights.read(source), complete=True)
    inputs = torch.load(golden / "tiny" / f"{name}_batch.pt", weights_only=True)
    expected = torch.load(golden / "tiny" / f"{name}_out.pt", weights_only=True)
    return Golden(module, build_batch(inputs, expected), expected, report)


def build_batch(inputs: dict[str, Any], expected: dict[str, Any]) -> Batch:
    labels = inputs["text_labels_mlm"].flatten()
    positions = (labels != -100).nonzero()[:, 0]
    fields = {}
    if "vqa_labels" in inputs:
        fields = {
            "answer_labels": torch.from_numpy(padded_integers(inputs["vqa_labels"])),
            "answer_scores": torch.from_numpy(padded_floats(inputs["vqa_scores"])),
            "question_id": inputs["qid"],
        }
    if "answers" in inputs:
        fields = {"truth": torch.tensor(inputs["answers"]).long(), "identifier": [f"dev-0-{n}-0" for n in range(4)]}
    false_text = None
    if "false_text_0" in inputs:
        parts = [torch.stack([inputs[f"false_text_{n}_{part}"] for n in range(3)], 1) for part in ("ids", "masks")]
        false_text = _text(*(part.flatten(0, 1) for part in parts))
    pair = [inputs[name] for name in ("image", "image_0", "image_1") if name in inputs]
    return Batch(
        images=torch.stack(pair, dim=1),
        index=torch.arange(4),
        split="val",
        text=_text(inputs["text_ids"], inputs["text_masks"]),
        masked_text=MaskedText(_text(inputs["text_ids_mlm"], inputs["text_masks"]), positions, labels[positions]),
        noise=_noise(inputs, expected),
        negative_images=inputs["false_image_0"][:, None] if "false_image_0" in inputs else None,
        match_draw=expected["itm_perm"] / 4 if "itm_perm" in expected else None,
        false_text=false_text,
        fields=fields,
    )


def _noise(inputs: dict[str, Tensor], expected: dict[str, Any]) -> Tensor | None:
    """(4, 2, 16): row 0 is the noise of the masked-language pass, row 1 that of the matching pass."""
    if "noise_0" not in inputs:
        return None
    return torch.stack([inputs["noise_0"], inputs.get("noise_1", inputs["noise_0"])], dim=1)


def _text(ids: Tensor, mask: Tensor) -> Text:
    return Text(ids, mask, int(mask.sum()))
