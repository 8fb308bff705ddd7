"""The golden models of tests/golden/tiny, built, loaded and fed with their batches."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlc.checkpoint import weights
from vlc.common.inputs import Images, Text
from vlc.configuration.aliases import ALIASES
from vlc.configuration.config import resolve
from vlc.configuration.groups import ModelSettings
from vlc.configuration.recipes import OBJECTIVE_NAMES
from vlc.configuration.task_settings import TaskSettings, configured_tasks, read_options
from vlc.data.batch import Batch
from vlc.data.kinds import padded_floats, padded_integers
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.wrong_images import WrongImageChoice
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.training.module import VLCModule

SIZE = EncoderConfig(64, 3, 4, 16, decoder_width=32, decoder_depth=2, decoder_heads=4)
NAMES = ("pretrain", "mlm", "itm", "mlm_full", "itm_full", "vqa", "nlvr2", "irtr")


@dataclass
class Golden:
    """A golden case: our module with the published weights, our batch of the published inputs, the published outputs."""

    module: VLCModule
    batch: Batch
    expected: dict[str, Any]
    report: weights.LoadReport


@dataclass(frozen=True)
class GoldenSettings:
    """Settings of a network, and the one task that its heads make."""

    model: ModelSettings
    task: TaskSettings


def model_settings(**values: Any) -> GoldenSettings:
    """Settings of the golden models, by flat keys; register SIZE as "golden_vit" before building."""
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
        "max_image_len": -1,
    }
    given = resolve(vqav2_label_size=17, draw_false_text=3)
    config = given | {key: values.pop(key) for key in ALIASES.keys() & values.keys()}
    model = ModelSettings(**(defaults | values))
    (task,) = configured_tasks(config | {"loss_names": model.loss_names}, read_options(config))
    return GoldenSettings(model, task)


def build_module(settings: GoldenSettings, image_size: int = 64, max_text_len: int = 12, **options: Any) -> VLCModule:
    ENCODERS["golden_vit"] = SIZE
    try:
        sizes = {"image_size": image_size, "max_text_len": max_text_len, "vocab_size": 211}
        return VLCModule(settings.model, (settings.task,), **sizes, **options).eval()
    finally:
        del ENCODERS["golden_vit"]


def load(golden: Path, name: str) -> Golden:
    source = golden / "tiny" / f"{name}.ckpt"
    config = torch.load(source, weights_only=True)["hyper_parameters"]["config"]
    losses = {objective: float(config["loss_names"].get(objective, 0) >= 1) for objective in OBJECTIVE_NAMES}
    module = build_module(
        model_settings(loss_names=losses, mask_ratio=config["mask_ratio"], is_pretrain=config["is_pretrain"]),
        splits={"": ("val",)},
        num_images=2 if name == "nlvr2" else 1,
    )
    report = weights.load(module, weights.read(source), complete=True)
    inputs = torch.load(golden / "tiny" / f"{name}_batch.pt", weights_only=True)
    expected = torch.load(golden / "tiny" / f"{name}_out.pt", weights_only=True)
    return Golden(module, build_batch(inputs, expected), expected, report)


def build_batch(inputs: dict[str, Any], expected: dict[str, Any]) -> Batch:
    labels = inputs["text_labels_mlm"].flatten()
    positions = (labels != -100).nonzero()[:, 0]
    masked = MaskedTokens(_text(inputs["text_ids_mlm"], inputs["text_masks"]), positions, labels[positions])
    parts = {"masked_text": masked} | _noise(inputs)
    if "vqa_labels" in inputs:
        parts["answer_labels"] = torch.from_numpy(padded_integers(inputs["vqa_labels"]))
        parts["answer_scores"] = torch.from_numpy(padded_floats(inputs["vqa_scores"]))
        parts["question_id"] = inputs["qid"]
    if "answers" in inputs:
        parts["truth"] = torch.tensor(inputs["answers"]).long()
        parts["identifier"] = [f"dev-0-{n}-0" for n in range(4)]
    if "itm_perm" in expected:
        wrong = Images(inputs["false_image_0"][:, None])
        parts["wrong_images"] = WrongImageChoice(expected["itm_perm"] / 4, images=wrong)
    if "false_text_0" in inputs:
        wrong = [torch.stack([inputs[f"false_text_{n}_{part}"] for n in range(3)], 1) for part in ("ids", "masks")]
        parts["wrong_texts"] = _text(*(part.flatten(0, 1) for part in wrong))
    pair = [inputs[name] for name in ("image", "image_0", "image_1") if name in inputs]
    return Batch(
        index=torch.arange(4),
        split="val",
        images=Images(torch.stack(pair, dim=1)),
        text=_text(inputs["text_ids"], inputs["text_masks"]),
        parts=parts,
    )


def _noise(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """(4, 16) each: row 0 is the noise of the masked-language pass, row 1 that of the matching pass."""
    if "noise_0" not in inputs:
        return {}
    return {"patch_noise_0": inputs["noise_0"], "patch_noise_1": inputs.get("noise_1", inputs["noise_0"])}


def _text(ids: Tensor, mask: Tensor) -> Text:
    return Text(ids, mask, int(mask.sum()))
