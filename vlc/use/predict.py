"""`python run.py predict`: the answers of every head of a checkpoint to an image and a text."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell
from vlc.configuration.use_settings import UseSettings
from vlc.data.batch import Batch
from vlc.data.images import open_image, to_pil
from vlc.data.transforms import denormalize
from vlc.evaluation.drawing import with_boxes
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable, write_text
from vlc.objectives.base import Answer
from vlc.objectives.mae import reconstruction
from vlc.use.answers import write_answers
from vlc.use.forms import chooses, given_request
from vlc.use.model import Model, open_pretrained

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# The key of the text, for errors about a missing one.
_WANTS = 'text="..." (for words to fill in with [MASK] in their place)'


def predict(config: Mapping[str, Any], given: Collection[str]) -> list[dict[str, Any]] | dict[str, Any]:
    """Answer, print and write; returns a record for each text and head, as in the JSON file.

    Without image=FILE, but with image_folder or datasets, `vlc.use.answers.write_answers` writes tables of answers.

    Records have task (the name of the head), text (or the image, where the checkpoint reads no text), about (which word),
    unit, and answers: pairs of answer and value. Where answers are boxes, they also have boxes: their edges in pixels.
    """
    use = UseSettings.from_config(config)
    if not use.image and (use.image_folder or "datasets" in given):
        return write_answers(config, given)
    model = open_pretrained(config, given)
    if not use.image:
        raise UserError(
            "image=FILE is missing: what should be looked at? image_folder=FOLDER, or datasets=[...], with out=FOLDER "
            "answers about many"
        )
    images = [path for path in (use.image, use.image2) if path]
    texts = [use.text] if isinstance(use.text, str) else list(use.text or ())
    if not all(text.strip() for text in texts):
        raise UserError(f"text={use.text!r} holds a text without words: pass {_WANTS}")
    for key, path in (("picture", use.picture), ("out", use.out)):
        if path:
            require_writable(key, Path(path))
    if use.picture and Path(use.picture).suffix.lower() not in _PICTURES:
        raise UserError(
            f"picture={use.picture} is of no kind that is written here: name a file {' or '.join(_PICTURES)}"
        )
    asked = texts or (images if model.module.images_alone or model.describes_images else [])
    if not (asked or use.picture):
        raise UserError(
            f"There is nothing to answer: pass {_WANTS}, or picture=FILE.png of a checkpoint with a mae head"
        )
    if use.options:
        answers = _chosen(model, use, images, texts)
    else:
        answers = model.answer(images, texts or None, use.several_boxes) if asked else []
    records = [
        {"task": answer.head, "text": asked[answer.example], "about": answer.about, "unit": answer.unit}
        | {"answers": answer.choices}
        | ({"boxes": answer.boxes} if answer.boxes else {})
        for answer in answers
    ]
    meant = {f"{asked[answer.example]} ({answer.head})": answer.boxes[0] for answer in answers if answer.boxes}
    if use.picture and meant:
        _write_boxes(use.image, meant, Path(use.picture))
    elif use.picture:
        _write_reconstruction(model, model.prepared(use.image), texts[0] if texts else None, Path(use.picture))
    if use.out:
        write_text(Path(use.out), to_json(records))
    _print(records)
    return records


def _chosen(model: Model, use: UseSettings, images: Sequence[str], texts: Sequence[str]) -> list[Answer]:
    """What each head that chooses among options answers to each text. Raises UserError where there is none."""
    names = [name for name in model.forms if chooses(model.module.objectives[name])]
    if not (names and texts):
        lacking = f"{model.named_heads}, none of which chooses among any" if texts else 'text="..." is missing'
        raise UserError(f"options are given, but {lacking}")
    answers = []
    for number, text in enumerate(texts):
        for name in names:
            request = given_request(use, images, text, model.forms[name].fields(model, model.module.objectives[name]))
            ((answer,),) = model.ask(name, [model.prepare(name, request)])
            answers.append(replace(answer, example=number))
    return answers


def _write_boxes(image: str, meant: Mapping[str, tuple[float, ...]], path: Path) -> None:
    """Write the picture with the box that each text means."""
    picture = to_pil(open_image(pa.py_buffer(Path(image).read_bytes())))
    path.parent.mkdir(parents=True, exist_ok=True)
    with_boxes(picture, list(meant.values()), list(meant)).save(path)


@torch.inference_mode()
def _write_reconstruction(model: Model, image: Tensor, text: str | None, path: Path) -> None:
    """Write the image, the patches that the encoder saw, and the decoder's reconstruction, side by side."""
    if "mae" not in model.module.objectives:
        raise UserError(
            f"picture={path} wants a reconstruction, but {model.path} has no mae head. The boxes "
            "of pointing are drawn too, and need a text"
        )
    encoder, settings = model.module.encoder, model.settings
    noise = torch.rand(1, encoder.num_patches, generator=torch.Generator().manual_seed(settings.run.seed))
    images = model.stacked([[image]])
    batch = Batch(index=torch.arange(1), split="predict", images=images)
    if text and model.text_encoder:
        batch = replace(batch, text=model.text([text]))
    batch = batch.with_parts(patch_noise_0=noise).to(model.device)
    outcome = model.outcomes(["mae"], batch, settings.model.mask_ratio)["mae"]
    assert outcome.patches is not None
    check_finite({"the patches of mae": outcome.logits})
    pixels, _ = images.at(0)
    masked, restored = reconstruction(outcome.logits, pixels, outcome.patches.dropped, encoder.size.patch_size)
    shown = torch.cat([pixels, masked, restored], dim=-1)
    path.parent.mkdir(parents=True, exist_ok=True)
    to_pil_image(denormalize(shown, model.pixels)[0].cpu()).save(path)


def _print(records: list[dict[str, Any]]) -> None:
    console = Console()
    for text in dict.fromkeys(record["text"] for record in records):
        table = Table("task", "answer", "value", "", title=cell(text), title_justify="left", box=None)
        for record in (record for record in records if record["text"] == text):
            for place, (answer, value) in enumerate(record["answers"]):
                task = f"{record['task']} {record['about']}".strip() if place == 0 else ""
                table.add_row(cell(task), cell(answer), f"{value:.4f}", record["unit"])
        console.print(table)
