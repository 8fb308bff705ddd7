"""The page: a tab for each head, where pictures and texts are asked about. Its form works without scripts as well."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from jinja2 import Environment, FileSystemLoader
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from vlc.tasks import FAMILIES
from vlc.use.explain.methods import METHODS
from vlc.use.forms import Field, Writing
from vlc.use.service.bodies import FORM, IMAGES, receive
from vlc.use.service.clients import watched
from vlc.use.service.multipart import Part
from vlc.use.service.problems import Problem
from vlc.use.service.service import Head, Service

_STATIC = Path(__file__).with_name("static")
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_BOX = "left, top, right and bottom in pixels of the picture, or drawn on it with the mouse"

# What a field is called on the page, and how its lines are written where it has several.
LABELS = {
    "text": "Text",
    "second_text": "Second text",
    "boxes": "Boxes",
    "options": "Options",
    "history": "Earlier questions",
    "caption": "Caption",
    "answer": "Given answer",
    "named_boxes": "Named boxes",
    "word": "Word",
    "language": "Language",
    "candidates": "Candidates",
}
LINES = {
    "boxes": f"One on each line: {_BOX}.",
    "options": "One on each line.",
    "history": "One on each line, as QUESTION | ANSWER.",
    "named_boxes": f"One on each line, as NAME: {_BOX}.",
    "candidates": "One on each line.",
}


@dataclass(frozen=True)
class Control:
    """A field as the page shows it.

    name: of the field of `vlc.use.forms.Request`.
    help: what to put in.
    choices: the values that are known, where they are few.
    """

    name: str
    help: str
    required: bool
    choices: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, field: Field) -> "Control":
        about = f"{field.about[:1].upper()}{field.about[1:]}."
        return cls(name, f"{about} {LINES.get(name, '')}".rstrip(), field.required, field.choices)

    @property
    def label(self) -> str:
        return LABELS[self.name]

    @property
    def lines(self) -> bool:
        return self.name in LINES

    @property
    def boxes(self) -> bool:
        return self.name in ("boxes", "named_boxes")


@dataclass(frozen=True)
class Tab:
    """A head, or the search of an index, as the page shows it.

    path: of its address below /page.
    head: as it is asked; None: a search.
    images: how many pictures it takes, at most.
    needs_images: whether it takes no fewer.
    explained: whether its answers can be explained.
    """

    path: str
    head: Head | None
    about: str
    images: int
    needs_images: bool
    explained: bool
    controls: tuple[Control, ...]

    @classmethod
    def of_head(cls, path: str, head: Head) -> "Tab":
        fields = dict(head.fields)
        images = fields.pop(IMAGES, None)
        controls = tuple(Control.of(name, field) for name, field in fields.items())
        count = 0 if images is None else images.count or 1
        explained = count > 0 and not isinstance(head.model.forms[head.name], Writing)
        return cls(path, head, _about(head.name), count, images is not None and images.required, explained, controls)

    @classmethod
    def of_search(cls, kinds: Collection[str]) -> "Tab":
        """kinds: what the index holds, of images and texts."""
        wanted = Field("texts" not in kinds, "what the pictures that are looked for should show")
        controls = (Control.of("text", wanted),) if "images" in kinds else ()
        about = {"images": "Finds pictures for a text", "texts": "finds texts for a picture"}
        said = ", or ".join(text for kind, text in about.items() if kind in kinds)
        said = f"{said[:1].upper()}{said[1:]}."
        return cls("search", None, said, int("texts" in kinds), "images" not in kinds, False, controls)

    @property
    def id(self) -> str:
        return re.sub(r"\W", "-", f"panel-{self.path}")

    @property
    def title(self) -> str:
        return " · ".join(reversed(self.path.split("/")))


def router(service: Service) -> APIRouter:
    """The addresses of the page: / and, for each tab, one below /page; and the files below /static."""
    router, tabs = APIRouter(), {tab.path: tab for tab in _tabs(service)}

    def page(request: Request, tab: Tab, status: int = 200, **shown: Any) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        known = {"tabs": tabs.values(), "samples": samples(), "methods": METHODS, "checkpoints": service.models}
        context = {"tab": tab, "root": root, "keyed": bool(service.api_key), "chosen": {}, "problems": {}, **shown}
        return HTMLResponse(_TEMPLATES.get_template("page.html.jinja").render(known | context), status)

    def opened(path: str) -> Tab:
        if path not in tabs:
            raise Problem(404, f"There is no tab {path}")
        return tabs[path]

    @router.get("/")
    async def start(request: Request) -> Response:
        if not tabs:
            raise Problem(404, "There is no page, as no head of the checkpoint answers")
        return page(request, next(iter(tabs.values())))

    @router.get("/page/{path:path}")
    async def tab(request: Request, path: str) -> Response:
        return page(request, opened(path))

    @router.post("/page/{path:path}")
    async def asked(request: Request, path: str) -> Response:
        """Answer the form without a script: a head alone."""
        tab = opened(path)
        if tab.head is None:
            return page(request, tab, 422, problems={"": "Searching needs JavaScript."})
        chosen: dict[str, str] = {}
        try:
            received = await receive(request, kinds=(FORM,))
            with watched(request) as left:
                form = await service.prepare(received.parts, service.settings, left=left)
                chosen = {key: value for key, value in form if isinstance(value, str)}
                parts = _parts(form)
                if tab.needs_images and sum(key == IMAGES for key, _ in parts) < tab.images:
                    raise Problem(400, f"Choose {'two pictures' if tab.images > 1 else 'a picture'}", IMAGES)
                prepared = await service.prepare(tab.head.read_parts, parts, left=left)
                (answers,) = await service.answers(tab.head, prepared, left)
        except Problem as problem:
            shown = {IMAGES: "image0"} | {control.name: control.name for control in tab.controls}
            field = shown.get(problem.field or "", "")
            return page(request, tab, problem.status, chosen=chosen, problems={field: problem.detail})
        return page(request, tab, answers=answers, chosen=chosen)

    router.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return router


def _tabs(service: Service) -> Iterator[Tab]:
    """The tabs, of several checkpoints with the heads of each."""
    for path, head in service.heads.items():
        if len(service.models) == 1 or "/" in path:
            yield Tab.of_head(path, head)
    if service.opened:
        yield Tab.of_search(service.opened)


def _parts(form: Sequence[Part]) -> list[Part]:
    """The parts of a form of the page as programs send them: lines become parts or JSON, and samples pictures."""
    pictures = {key.removeprefix("image"): value for key, value in form if isinstance(value, bytes) and value}
    texts = [(key, value) for key, value in form if isinstance(value, str) and value.strip()]
    for key, value in texts:
        if key.startswith("sample") and value in (sample["name"] for sample in samples()):
            sample = (_STATIC / "samples" / value).read_bytes()
            pictures.setdefault(key.removeprefix("sample"), sample)  # a file wins
    written = ((key, part) for key, value in texts if key in LABELS for part in _written(key, value))
    return [*((IMAGES, pictures[number]) for number in sorted(pictures)), *written]


def _written(name: str, value: str) -> list[str]:
    """The parts of a form that a field of the page stands for."""
    lines = [line.strip() for line in value.splitlines() if line.strip()]
    if name == "boxes":
        return [json.dumps([_numbers(line) for line in lines])]
    if name == "named_boxes":
        named = (line.rpartition(":") for line in lines)
        return [json.dumps({key.strip(): _numbers(box) for key, _, box in named})]
    if name == "history":
        return [json.dumps([[part.strip() for part in line.split("|")] for line in lines])]
    return lines if name in LINES else [value.strip()]


def _numbers(line: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+(?:\.\d+)?", line)]


def _about(head: str) -> str:
    """What the first family of tasks with this head is about; empty for a head of the user's own."""
    families = (
        family.__doc__ or ""
        for family in FAMILIES
        if any(head in map(task.head, task.objectives) for task in family.TASKS.values())
    )
    return next((f"{about.partition('.')[0]}." for about in families), "")


@cache
def samples() -> list[dict[str, Any]]:
    """The sample pictures with what they show and the boxes of their things, a box on each line."""
    listed = json.loads((_STATIC / "samples" / "samples.json").read_text(encoding="utf-8"))
    return [
        one | {"lines": "\n".join(", ".join(f"{edge:g}" for edge in box) for box in one["boxes"])} for one in listed
    ]
