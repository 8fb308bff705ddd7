"""`python run.py predict`: what every head of a checkpoint says of an image and a text."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell
from vlc.data.batch import Batch
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.transforms import denormalize
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable, write_text
from vlc.model.passes import encode_passes
from vlc.objectives.mae import reconstruction
from vlc.use.pretrained import Pretrained, open_image_file, open_pretrained

# How a text gets to the head, for those that are not answered without it.
_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_WANTS = 'text="..." (for words to fill in with [MASK] in their place)'


def predict(config: Mapping[str, Any], given: Collection[str]) -> list[dict[str, Any]]:
    """Answer, print, and write what was asked for; returns a record for each text and head, as in the JSON file."""
    model = open_pretrained(config, given)
    use = model.settings.use
    if not use.image:
        raise UserError("image=FILE is missing: what should be looked at?")
    images = [open_image_file(model, path) for path in (use.image, use.image2) if path]
    texts = [use.text] if isinstance(use.text, str) else use.text or []
    if not all(text.strip() for text in texts):
        raise UserError(f"text={use.text!r} holds a text without words: pass {_WANTS}")
    for key, path in (("picture", use.picture), ("out", use.out)):
        if path:
            require_writable(key, Path(path))
    if use.picture and Path(use.picture).suffix.lower() not in _PICTURES:
        raise UserError(
            f"picture={use.picture} is of no kind that is written here: name a file {' or '.join(_PICTURES)}"
        )
    records = [record for text in texts for record in answers(model, images, text)]
    if use.picture:
        _write_reconstruction(model, images, texts[0] if texts else None, Path(use.picture))
    elif not texts:
        raise UserError(
            f"There is nothing to answer: pass {_WANTS}, or picture=FILE.png of a checkpoint with a mae head"
        )
    if use.out:
        write_text(Path(use.out), to_json(records))
    _print(records)
    return records


@torch.inference_mode()
def answers(model: Pretrained, images: list[Tensor], text: str) -> list[dict[str, Any]]:
    """A record for each answer of the heads that take so many images; images (3, H, W) uint8.

    Records have task, text, about (which word), unit, and answers: pairs of answer and value. Raises UserError where no
    head can answer, NonFiniteMetric where a value is NaN or infinite.
    """
    if model.text_encoder is None:
        raise UserError(f"{model.path} was trained on images alone and reads no text")
    batch = _with_text(model, _batch(model, images), text).to(model.device)
    count = len(images)
    heads = {name: head for name, head in model.module.objectives.items() if head.num_images(head.options) == count}
    token_name, records = model.tokenizer.convert_ids_to_tokens, []
    with model.forward_context():
        passes = [one for head in heads.values() for one in head.passes(batch)]
        encoded = encode_passes(model.module.encoder, batch, passes)
        for name, head in heads.items():
            for answer in head.answers(head(encoded, batch), batch, token_name):
                check_finite({f"the {answer.unit} of {name}": torch.tensor([value for _, value in answer.choices])})
                records.append({"task": name, "text": text, "about": answer.about, "unit": answer.unit})
                records[-1]["answers"] = answer.choices
    if not records:
        raise UserError(_why_nothing(model, len(images)))
    return records


def _batch(model: Pretrained, images: list[Tensor]) -> Batch:
    """A batch of one example, without a text."""
    return Batch(index=torch.zeros(1, dtype=torch.int64), split="predict", images=model.stacked([images]))


def _with_text(model: Pretrained, batch: Batch, text: str) -> Batch:
    """The batch with its text, and where this has [MASK] with these as its hidden tokens."""
    encoder = model.text_encoder
    padded = encoder.pad([encoder(text).ids])
    positions = (padded.ids.flatten() == encoder.mask_id).nonzero()[:, 0]
    batch = replace(batch, text=padded)
    if not len(positions):
        return batch
    return batch.with_parts(masked_text=MaskedTokens(padded, positions, torch.zeros_like(positions)))


def _why_nothing(model: Pretrained, num_images: int) -> str:
    heads = list(model.module.objectives)
    fitting = any(head.num_images(head.options) == num_images for head in model.module.objectives.values())
    if fitting:
        return f"{model.path} has the heads {', '.join(heads)}, which say nothing of this text: pass {_WANTS}"
    wanted = "a second image (image2=FILE)" if num_images == 1 else "one image (leave image2 out)"
    return f"{model.path} has the heads {', '.join(heads)}, which take {wanted}"


@torch.inference_mode()
def _write_reconstruction(model: Pretrained, images: list[Tensor], text: str | None, path: Path) -> None:
    """The image, what the encoder saw of it, and what the decoder made of that, side by side."""
    if "mae" not in model.module.objectives:
        raise UserError(f"picture={path} wants a reconstruction, but {model.path} has no mae head")
    encoder, settings = model.module.encoder, model.settings
    generator = torch.Generator().manual_seed(settings.run.seed)
    batch = _batch(model, images[:1])
    if text and model.text_encoder:
        batch = replace(batch, text=_with_text(model, batch, text).text)
    noise = torch.rand(1, encoder.num_patches, generator=generator)
    batch = batch.with_parts(patch_noise_0=noise).to(model.device)
    head = model.module.objectives["mae"]
    outcome = head(encode_passes(encoder, batch, head.passes(batch), settings.model.mask_ratio), batch)
    predicted, dropped = outcome.logits, outcome.patches.dropped
    check_finite({"the patches of mae": predicted})
    pixels, _ = batch.images.at(0)
    masked, restored = reconstruction(predicted, pixels, dropped, encoder.size.patch_size)
    shown = torch.cat([pixels, masked, restored], dim=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(denormalize(shown, encoder.size.pixels)[0].cpu()).save(path)


def _print(records: list[dict[str, Any]]) -> None:
    console = Console()
    for text in dict.fromkeys(record["text"] for record in records):
        table = Table("task", "answer", "value", "", title=cell(text), title_justify="left", box=None)
        for record in (record for record in records if record["text"] == text):
            for place, (answer, value) in enumerate(record["answers"]):
                task = f"{record['task']} {record['about']}".strip() if place == 0 else ""
                table.add_row(cell(task), cell(answer), f"{value:.4f}", record["unit"])
        console.print(table)
