"""`python run.py explain`: why the heads of a checkpoint answer as they do, as pictures, arrays and a page."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell
from vlc.configuration.use_settings import UseSettings
from vlc.data.images import to_pil
from vlc.evaluation.drawing import with_boxes
from vlc.evaluation.predictions import write_text
from vlc.objectives.base import Answer
from vlc.use.explain.explain import explain, explainable
from vlc.use.explain.explanation import Explanation
from vlc.use.explain.methods import DEFAULT
from vlc.use.explain.over_data import write_explanations
from vlc.use.explain.page import explanation_page
from vlc.use.explain.sheets import attention_sheet, word_sheet
from vlc.use.explain.views import views
from vlc.use.forms import given_request
from vlc.use.images import picture_of, read_image
from vlc.use.model import Model, open_pretrained


def explain_image(config: Mapping[str, Any], given: Collection[str]) -> list[Explanation] | dict[str, Any]:
    """Explain the best answer of each head to each text; print what matters, and write files where out=FOLDER is given.

    Without image=FILE, but with image_folder or datasets, `over_data.write_explanations` writes tables of explanations.
    Raises UserError where no head can be asked this, and for what `explain` refuses.
    """
    use = UseSettings.from_config(config)
    if not use.image and (use.image_folder or "datasets" in given):
        return write_explanations(config, given)
    model = open_pretrained(config, given)
    if not use.image:
        raise UserError(
            "image=FILE is missing: what was looked at? image_folder=FOLDER, or datasets=[...], with out=FOLDER explains "
            "answers about many"
        )
    files = [path for path in (use.image, use.image2) if path]
    texts: list[str | None] = [use.text] if isinstance(use.text, str) else list(use.text or (None,))
    pictures = [to_pil(picture_of(read_image(path))) for path in files]
    found: list[Explanation] = []
    for text in texts:
        for head in _heads(model, use, len(files), text):
            fields = model.forms[head].fields(model, model.module.objectives[head])
            request = given_request(use, files, text, fields)
            one = explain(model, head, request, use.method or DEFAULT)
            ((answer, *_),) = model.ask(head, [model.prepare(head, request)])
            _print(one, text)
            if use.out:
                _write(Path(use.out), f"{Path(use.image).stem}_{len(found)}_{head}", model, one, text, pictures, answer)
            found.append(one)
    return found


def _heads(model: Model, use: UseSettings, num_images: int, text: str | None) -> Iterator[str]:
    """Heads that can be asked a text about so many images, with the other keys. Raises UserError where there are none."""
    wanted, asked = [], False
    for name in explainable(model):
        fields = model.forms[name].fields(model, model.module.objectives[name])
        required = {key for key, field in fields.items() if field.required}
        given = {"text": text, "boxes": use.boxes, "options": use.options}
        has = {"images", *(key for key, value in given.items() if value)}
        alike = all((key in fields) == bool(given[key]) for key in ("text", "options"))
        if fields["images"].count == num_images and required <= has and alike:
            asked = True
            yield name
        wanted.append(f"{name} ({', '.join(sorted(required))}, images: {fields['images'].count})")
    if not asked:
        raise UserError(
            f"no head of {model.path} can be asked this. Heads and what they need: {'; '.join(wanted) or 'none'}. What the "
            "command has no key for, vlc.Model.explain takes"
        )


def _print(found: Explanation, text: str | None) -> None:
    console = Console()
    console.print(cell(f"{found.head}: {text or ''} {found.answer} ({found.method}, value {found.value:.3f})"))
    ranked = sorted(zip(found.tokens, found.words.tolist(), strict=True), key=lambda pair: -abs(pair[1]))
    if ranked:
        console.print(cell("  words: " + ", ".join(f"{token} {value:.3f}" for token, value in ranked[:5])))
    for number, own in enumerate(found.maps):
        best = np.unravel_index(own.values.argmax(), own.values.shape)
        grid = "x".join(map(str, own.values.shape))
        console.print(f"  image {number + 1}: highest in row {best[0] + 1}, column {best[1] + 1} of {grid} patches")


def _write(
    folder: Path,
    name: str,
    model: Model,
    found: Explanation,
    text: str | None,
    pictures: list[Image.Image],
    answer: Answer,
) -> None:
    """Write arrays, pictures and the page of one explanation into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / re.sub(r"[^\w.-]", "_", name)
    _write_arrays(path.with_name(f"{path.name}.npz"), found, pictures)
    special = {model.tokens.token_name(number) for number in model.tokens.special_ids} if found.tokens else set()
    sheets = {}
    for number, sequence in enumerate(found.sequences):
        for title, view in views(sequence, special).items():
            full = title if len(found.sequences) == 1 else f"{title}, pass {number + 1}"
            sheets[full] = attention_sheet(view, f"{full}: {text or ''}")
            sheets[full].save(path.with_name(f"{path.name}_{full.replace(', ', '_').replace(' ', '_')}.png"))
    for number, picture in enumerate(pictures[: len(found.maps)]):
        suffix = "" if number == 0 else f"_{number + 1}"
        found.overlay(picture, number=number).save(path.with_name(f"{path.name}{suffix}.png"))
        if (per_word := found.maps[number].per_word) is not None:
            shown = [found.overlay(picture, values, number) for values in per_word]
            word_sheet(shown, found.tokens, text or "").save(path.with_name(f"{path.name}_words{suffix}.png"))
    boxes = None
    if answer.boxes:
        labels = [f"{value:.2f}" for _, value in answer.choices]
        boxes = with_boxes(pictures[0], list(answer.boxes), labels)
        boxes.save(path.with_name(f"{path.name}_boxes.png"))
    page = explanation_page(found, text or "", pictures[: len(found.maps)], answer.choices, sheets, boxes)
    write_text(path.with_name(f"{path.name}.html"), page)


def _write_arrays(path: Path, found: Explanation, pictures: list[Image.Image]) -> None:
    """Write the arrays of an explanation, numbered from 0.

    attention_0 (layers, heads, L, L) float16, tokens_0 and segments_0 are of the first pass; image_0, per_word_0 and
    image_size_0 (width, height) of the first image; words and tokens of the text. about is JSON.
    """
    arrays: dict[str, Any] = {"words": found.words, "tokens": np.array(found.tokens, dtype=np.str_)}
    for number, sequence in enumerate(found.sequences):
        arrays[f"attention_{number}"] = sequence.attention
        arrays[f"tokens_{number}"] = np.array(sequence.names, dtype=np.str_)
        arrays[f"segments_{number}"] = np.array(sequence.segments, dtype=np.str_)
    for number, (own, picture) in enumerate(zip(found.maps, pictures, strict=False)):
        arrays[f"image_{number}"], arrays[f"image_size_{number}"] = own.values, np.array(picture.size)
        if own.per_word is not None:
            arrays[f"per_word_{number}"] = own.per_word
    about = {"method": found.method, "head": found.head, "answer": found.answer, "value": found.value}
    np.savez_compressed(path, about=np.array(to_json(about)), **arrays)
