"""The forms in which heads are asked: what a request needs, how it is prepared, and the batch that is made of several.

A form is one way of asking: a text about images, options to choose among, a word to translate, a text to write. Service,
page and commands learn from it which inputs a head takes.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.configuration.use_settings import UseSettings
from vlc.data.batch import Batch
from vlc.data.composers import COMPOSERS, Words
from vlc.data.geometry import Placement, Shown
from vlc.data.objects import Polygon
from vlc.data.parts.candidates import CandidateTexts, branched, collated_branches
from vlc.data.parts.masked_answer import MaskedAnswer, masked_answers
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.regions import (
    GRID,
    WHOLE_IMAGE,
    Boxes,
    PlacedBoxes,
    joined,
    padded_regions,
    placed_boxes,
    with_objects,
)
from vlc.data.parts.source_and_target import SourcesAndTargets, source_tokens
from vlc.data.references import BadReference, called_by, has_references, parsed, rendered
from vlc.data.tokens import MASK, Tokens
from vlc.evaluation.metrics import check_finite
from vlc.objectives.base import Answer, Objective
from vlc.objectives.choice import Choice
from vlc.objectives.generation import Generation
from vlc.objectives.mlm import MLM
from vlc.objectives.ttm import TTM
from vlc.objectives.words import WordTranslation
from vlc.use.images import ImageLike
from vlc.use.opened import OpenedModel

Box: TypeAlias = Sequence[float]  # left, top, right, bottom, in pixels of the picture


@dataclass(frozen=True)
class Request:
    """What a head is asked about one example. Its form says which of these it reads.

    images: one, or the two of a statement about two.
    text: about the images, or to translate.
    second_text: that may translate the first one.
    boxes: in the first image: those to choose among, the one that the text is about, or those that words name.
    box_names: what each of the boxes is called where words name them by number, as in "what is [0] doing".
    outlines: of the object in each of the boxes, a list of polygons each; None: they are not known.
    tags: of the words of text, answer and options, each text by itself: k names the k-th of the boxes, 0 none.
    options: for the answer to a question, the text.
    history: questions with their answers, the oldest first.
    caption: of the image; it belongs to the history.
    answer: to the question; the options are then rationales for it.
    named_boxes: in the first image, by the word that names each in the texts, or by number, as in [0].
    word: of the text, as it stands between blanks; of several the first one.
    language: to write in or to translate into, by its name in the training data.
    candidates: translations of the word to choose among; empty: all that training knows.
    known: what names or describes the example, by batch fields; the record of the answer holds it.
    right: the place of the right option, where it is known.
    """

    images: Sequence[ImageLike] = ()
    text: str | None = None
    second_text: str = ""
    boxes: Sequence[Box] | None = None
    box_names: Sequence[str] = ()
    outlines: Sequence[Sequence[Polygon]] | None = None
    tags: Sequence[Sequence[int]] = ()
    options: Sequence[str] = ()
    history: Sequence[tuple[str, str]] = ()
    caption: str = ""
    answer: str = ""
    named_boxes: Mapping[str, Box] = field(default_factory=dict)
    word: str = ""
    language: str = ""
    candidates: Sequence[str] = ()
    known: Mapping[str, Any] = field(default_factory=dict)
    right: int | None = None


@dataclass(frozen=True)
class Field:
    """A field of `Request` that a head reads.

    required: whether there is no answer without it.
    about: what to put in, as a phrase for users.
    choices: the values that are known, where they are few.
    count: how many are wanted, of images or boxes; None: of boxes, any number.
    """

    required: bool
    about: str
    choices: tuple[str, ...] = ()
    count: int | None = None


@dataclass(frozen=True)
class Prepared:
    """A request whose images are decoded and whose texts are tokens.

    images: with their places in the pictures.
    tokens: of its texts, as its form reads them.
    trunk: the tokens that options share, where these are branches.
    boxes: by the names of the parts of a batch that hold them.
    names: the candidates by their names.
    """

    request: Request
    images: tuple[Shown, ...]
    tokens: tuple[Tokens, ...] = ()
    trunk: Tokens | None = None
    boxes: Mapping[str, PlacedBoxes] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def shape(self) -> Hashable:
        """Requests of one head whose shapes are equal may stand in one batch."""
        sizes, asked = tuple(tuple(one.pixels.shape) for one in self.images), self.request
        known = (*asked.known, asked.right is None)
        return sizes, len(asked.options), tuple(self.boxes), asked.language, known


class Form(ABC):
    """One way of asking a head."""

    @abstractmethod
    def fields(self, model: OpenedModel, head: Objective) -> dict[str, Field]:
        """The fields of a request that the head reads, by name; `images` says how many."""

    @abstractmethod
    def prepare(self, model: OpenedModel, head: Objective, request: Request) -> Prepared:
        """Decode and tokenise. Raises UserError for fields that are missing or wrong."""

    @abstractmethod
    def batch(self, model: OpenedModel, head: Objective, prepared: Sequence[Prepared]) -> Batch:
        """Make a batch without supervision of requests of one shape, on the device of the model."""

    def answers(self, model: OpenedModel, name: str, prepared: Sequence[Prepared]) -> list[Answer]:
        """Return the answers of a head to requests of one shape; the `example` of each is the number of its request.

        Raises NonFiniteMetric where a value is NaN or infinite.
        """
        head = model.module.objectives[name]
        batch = self.batch(model, head, prepared)
        with torch.inference_mode(), model.forward_context():
            outcome = model.outcomes([name], batch)[name]
        token_name = str if batch.text is None else model.tokens.token_name
        answers = [replace(answer, head=name) for answer in head.answers(outcome, batch, token_name)]
        for answer in answers:
            check_finite({f"the {answer.unit} of {name}": torch.tensor([value for _, value in answer.choices])})
        return answers


class AboutImages(Form):
    """A text about images; or images alone, for a head that reads no text."""

    def fields(self, model: OpenedModel, head: Objective) -> dict[str, Field]:
        count = head.num_images(head.options)
        about = "the image" if count == 1 else "the two images of the statement, the left one first"
        fields = {"images": Field(True, about, count=count)}
        if not head.images_alone:
            hidden = f"; {MASK} stands for a word to fill in" if isinstance(head, MLM) else ""
            fields["text"] = Field(True, f"question, statement or caption{hidden}")
        parts = list(asked_boxes(head))
        if any(part.given for part in parts):
            fields["boxes"] = Field(True, "the box that the text is about", count=1)
        elif any({*part.fields} - {WHOLE_IMAGE} for part in parts):
            fields["boxes"] = Field(
                False, "boxes to choose among; without them, boxes of several sizes all over the image"
            )
        return fields

    def prepare(self, model: OpenedModel, head: Objective, request: Request) -> Prepared:
        images = prepared_images(model, request, head.num_images(head.options))
        return Prepared(request, images, boxes=boxes_of(model, [head], images[0], request.boxes))

    def batch(self, model: OpenedModel, head: Objective, prepared: Sequence[Prepared]) -> Batch:
        texts = [one.request.text for one in prepared if one.request.text is not None]
        rows = [[image.pixels for image in one.images] for one in prepared]
        return about_images(model, [head], rows, texts, [one.boxes for one in prepared])


class AmongOptions(Form):
    """Options for the answer to a question about an image, as in dialogues, or in VCR, where words name boxes."""

    def fields(self, model: OpenedModel, head: Objective) -> dict[str, Field]:
        fields = {
            "images": Field(True, "the image", count=1),
            "text": Field(True, "the question"),
            "options": Field(True, "the options for the answer"),
            "history": Field(False, "earlier questions with their answers, the oldest first"),
            "caption": Field(False, "a caption of the image"),
            "answer": Field(False, "the given answer, where the options are rationales for it"),
        }
        if getattr(head.options, "regions", False):
            fields["named_boxes"] = Field(False, "boxes by the words that name them in the texts")
        return fields

    def prepare(self, model: OpenedModel, head: Objective, request: Request) -> Prepared:
        if not request.options:
            raise UserError("options are missing: which answers may the head choose among?")
        row = {"history": [words for turn in request.history for words in turn], "caption": request.caption}
        earlier = COMPOSERS["dialogue"].history(row) if request.history or request.caption else ()
        images = prepared_images(model, request, head.num_images(head.options))
        assert images[0].placement is not None, "the pipelines of evaluation say where the picture lies"
        if request.boxes is not None:
            _check_boxes(request.boxes, images[0])
        called, boxes = _named(request)
        regions = {"regions": _placed_objects(head, request, boxes, images[0].placement)}
        sequences, own = _grounded(head, request, called)
        if head.options.branches:
            trunk, tokens = branched(request.options, model.tokens, lambda to: to.composed(sequences, earlier))
            return Prepared(request, images, tuple(tokens), trunk, regions)
        return Prepared(
            request, images, tuple(model.tokens.composed([*sequences, one], earlier) for one in own), boxes=regions
        )

    def batch(self, model: OpenedModel, head: Objective, prepared: Sequence[Prepared]) -> Batch:
        words, places = [list(one.request.options) for one in prepared], [one.request.right for one in prepared]
        right = None if places[0] is None else torch.tensor(places)
        if trunks := [one.trunk for one in prepared if one.trunk is not None]:
            candidates = collated_branches(trunks, [one.tokens for one in prepared], words, right, model.tokens)
        else:
            tokens = [own for one in prepared for own in one.tokens]
            columns = [one.ids for one in tokens], [one.segments for one in tokens], [one.tags for one in tokens]
            candidates = CandidateTexts(model.tokens.pad(*columns), words, right)
        regions = padded_regions([one.boxes["regions"] for one in prepared])
        batch = _batch(model, prepared, model.text([one.request.text or "" for one in prepared]))
        known = {name: [one.request.known[name] for one in prepared] for name in prepared[0].request.known}
        return batch.with_parts(candidates=candidates.to(model.device), regions=regions.to(model.device), **known)


class OfWord(Form):
    """A word of a text, to be translated as the image shows it."""

    def fields(self, model: OpenedModel, head: Objective) -> dict[str, Field]:
        known = dict.fromkeys(one.partition(":")[0] for one in head.context.vocabulary.answers)
        return {
            "images": Field(True, "the image", count=1),
            "text": Field(True, "the sentence"),
            "word": Field(True, "the word of the sentence, as it stands between blanks"),
            "language": Field(True, "the language to translate into", tuple(sorted(known))),
            "candidates": Field(False, "translations to choose among; without them, all that training knows"),
        }

    def prepare(self, model: OpenedModel, head: Objective, request: Request) -> Prepared:
        said, word, language = (request.text or "").split(" "), request.word, request.language
        if word not in said:
            raise UserError(f"word={word!r} is none of the words of {request.text!r} between its blanks")
        known = [one.partition(":")[2] for one in head.context.vocabulary.answers if one.startswith(f"{language}:")]
        names = tuple(one for one in request.candidates or known if one in known)
        if not names:
            of = ", ".join(sorted({one.partition(":")[0] for one in head.context.vocabulary.answers}))
            among = f"candidates={list(request.candidates)} in" if request.candidates else "translations in"
            raise UserError(
                f"{model.name_of(head)} of {model.path} knows no {among} language={language!r}; its languages are {of}"
            )
        tokens = model.tokens(request.text or "", [int(place == said.index(word)) for place in range(len(said))])
        return Prepared(request, prepared_images(model, request, head.num_images(head.options)), (tokens,), names=names)

    def batch(self, model: OpenedModel, head: Objective, prepared: Sequence[Prepared]) -> Batch:
        tokens = [one.tokens[0] for one in prepared]
        columns = [one.ids for one in tokens], [one.segments for one in tokens], [one.tags for one in tokens]
        batch = _batch(model, prepared, model.tokens.pad(*columns).to(model.device))
        return batch.with_parts(
            candidates=[list(one.names) for one in prepared],
            words=[one.request.word for one in prepared],
            target_lang=[one.request.language for one in prepared],
        )

    def answers(self, model: OpenedModel, name: str, prepared: Sequence[Prepared]) -> list[Answer]:
        def unmarked(answer: Answer) -> Answer:
            choices = [(one.partition(":")[2], value) for one, value in answer.choices]  # without the language
            return replace(answer, choices=choices, record=None)

        return [unmarked(answer) for answer in super().answers(model, name, prepared)]


class OfTwoTexts(Form):
    """A text and another one that may translate it."""

    def fields(self, model: OpenedModel, head: Objective) -> dict[str, Field]:
        fields = {"text": Field(True, "a text"), "second_text": Field(True, "the text that may translate it")}
        return {"images": Field(True, "the image", count=1), **fields} if self._num_images(head) else fields

    @staticmethod
    def _num_images(head: Objective) -> int:
        return head.options.images if isinstance(head, Choice) else int(head.options.image)

    def prepare(self, model: OpenedModel, head: Objective, request: Request) -> Prepared:
        if not (request.text and request.second_text):
            raise UserError("text and second_text are wanted: which two texts may translate each other?")
        tokens = model.tokens.composed([Words(request.text, 0), Words(request.second_text, 1)], ())
        return Prepared(request, prepared_images(model, request, self._num_images(head)), (tokens,))

    def batch(self, model: OpenedModel, head: Objective, prepared: Sequence[Prepared]) -> Batch:
        tokens = [one.tokens[0] for one in prepared]
        text = model.tokens.pad([one.ids for one in tokens], [one.segments for one in tokens])
        return _batch(model, prepared, text.to(model.device))


class Writing(Form):
    """A text to translate, or an image to describe: the head writes."""

    def fields(self, model: OpenedModel, head: Objective) -> dict[str, Field]:
        assert isinstance(head, Generation)
        fields = {"images": Field(not head.options.target, "the image", count=1)}
        if head.options.target:
            fields["text"] = Field(True, "the text to translate")
        if known := head.options.languages:
            fields["language"] = Field(len(known) > 1, "the language to write in", tuple(known))
        return fields

    def prepare(self, model: OpenedModel, head: Objective, request: Request) -> Prepared:
        assert isinstance(head, Generation)
        if (request.text is None) == bool(head.options.target):
            raise UserError("text is missing: what should be translated?" if head.options.target else "leave text out")
        language = self.language(model, head, request.language)
        tokens = source_tokens(request.text or "", language, head.options.max_target_len, model.tokens)
        images = tuple(map(model.shown, request.images))
        return Prepared(replace(request, language=language), images, (tokens,))

    def language(self, model: OpenedModel, head: Generation, given: str) -> str:
        """The language to write in; it may be left out where the head knows only one. Raises UserError."""
        known = head.options.languages
        language = given or (known[0] if len(known) == 1 else "")
        if (known or language) and language not in known:
            raise UserError(
                f"language={language!r} is none that {model.name_of(head)} of {model.path} writes in: "
                + (f"pass one of {', '.join(known)}" if known else "leave it out, the training data name none")
            )
        return language

    def batch(self, model: OpenedModel, head: Objective, prepared: Sequence[Prepared]) -> Batch:
        read = [one.tokens[0] for one in prepared]
        source = model.tokens.pad([one.ids for one in read], [one.segments for one in read])
        batch = replace(_batch(model, prepared, None), task=model.task_of(head))
        return batch.with_parts(source_and_target=SourcesAndTargets(source).to(model.device))

    def answers(self, model: OpenedModel, name: str, prepared: Sequence[Prepared]) -> list[Answer]:
        head = model.module.objectives[name]
        assert isinstance(head, Generation)
        batch = self.batch(model, head, prepared)
        with torch.inference_mode(), model.forward_context():
            found = head.written(model.module.encoder, batch, model.tokens)
        check_finite({f"the scores of {name}": torch.tensor([one.score for one in found])})
        return [
            Answer([(model.tokens.text_of(one.ids), one.score)], "score", asked.request.language, number, name)
            for number, (one, asked) in enumerate(zip(found, prepared, strict=True))
        ]


def given_request(
    use: UseSettings, images: Sequence[ImageLike], text: str | None, fields: Mapping[str, Field]
) -> Request:
    """What the keys of a command ask a head that reads these fields. Raises UserError for boxes that it does not read."""
    request = Request(images, text)
    if "options" in fields:
        request = replace(request, options=use.options or (), answer=use.answer or "")
    if "named_boxes" in fields:
        return replace(request, boxes=use.several_boxes, box_names=use.box_names or ())
    if use.boxes and "options" in fields:
        raise UserError("boxes are given, but the head that chooses among options reads none")
    return replace(request, boxes=use.several_boxes) if "boxes" in fields else request


_BY_KIND: dict[type[Objective], Form] = {WordTranslation: OfWord(), TTM: OfTwoTexts(), Generation: Writing()}
_AMONG_OPTIONS, _OF_TWO_TEXTS, _ABOUT_IMAGES = AmongOptions(), OfTwoTexts(), AboutImages()


def form_of(head: Objective) -> Form | None:
    """The form in which a head is asked; None for one that has no answers, such as reconstruction."""
    if chooses(head):
        return _AMONG_OPTIONS
    if isinstance(head, Choice) and head.options.wrong_translations:
        return _OF_TWO_TEXTS
    if type(head) in _BY_KIND:
        return _BY_KIND[type(head)]
    return None if type(head).answers is Objective.answers else _ABOUT_IMAGES


def chooses(head: Objective) -> bool:
    """Whether a head chooses among options that belong to an example."""
    return isinstance(head, Choice) and bool(head.options.candidates)


def asked_boxes(head: Objective) -> Iterator[Boxes]:
    """The parts with boxes that a head reads of a batch without supervision."""
    return (part for part in head.parts(head.options) if isinstance(part, Boxes) and part.presence == "always")


def prepared_images(model: OpenedModel, request: Request, wanted: int) -> tuple[Shown, ...]:
    """The prepared images of a request. Raises UserError where they are not as many as wanted."""
    if len(request.images) != wanted:
        raise UserError(f"images: {len(request.images)} are given, and {wanted} wanted")
    return tuple(map(model.shown, request.images))


def about_images(
    model: OpenedModel,
    heads: Sequence[Objective],
    images: Sequence[Sequence[Tensor]],
    texts: Sequence[str],
    boxes: Sequence[Mapping[str, PlacedBoxes]],
) -> Batch:
    """Make a batch without supervision, with the parts that heads read of the texts; [MASK] is a hidden token.

    images: the prepared images of each example.
    texts: of each example; empty: there are none.
    boxes: of each example, by the names of the parts of a batch that hold them; the names are the same for all.
    """
    batch = Batch(index=torch.arange(len(images)), split="predict", images=model.stacked(images))
    for name in boxes[0]:
        batch = batch.with_parts(**{name: padded_regions([own[name] for own in boxes]).to(model.device)})
    if not texts:
        return batch
    texts = [text.replace(MASK, model.tokens.mask_token) for text in texts]
    text = model.text(texts)
    batch = replace(batch, text=text)
    positions = (text.ids.flatten() == model.tokens.mask_id).nonzero()[:, 0]
    if len(positions):
        batch = batch.with_parts(masked_text=MaskedTokens(text, positions, torch.zeros_like(positions)))
    if any(MaskedAnswer() in head.parts(head.options) for head in heads):
        masked = masked_answers(map(model.tokens, texts), model.tokens)
        batch = batch.with_parts(masked_answer=masked.to(model.device))
    return batch


def boxes_of(
    model: OpenedModel, heads: Iterable[Objective], shown: Shown, given: Sequence[Box] | None
) -> dict[str, PlacedBoxes]:
    """The boxes that heads read, by the names of their parts: those given, or a grid in place of any candidates.

    Raises UserError for boxes that are none, that lie outside of the picture, or that no head reads.
    """
    asked = [part for head in heads for part in asked_boxes(head)]
    candidates = GRID if given is None else "given"
    found: dict[str, PlacedBoxes] = {}
    for part in asked:
        if given is not None or not part.given:
            assert shown.placement is not None  # the model prepares images by pipelines that know it
            fields = (name if name == WHOLE_IMAGE else candidates for name in part.tested or part.fields)
            placed = [placed_boxes(name, given, shown.placement) for name in dict.fromkeys(fields)]
            found[part.name] = joined(placed)
    if given is not None:
        if not any({*part.fields} - {WHOLE_IMAGE} for part in asked):
            raise UserError(f"boxes are given, but {model.named_heads}, none of which reads boxes")
        _check_boxes(given, shown)
    return found


def _check_boxes(given: Sequence[Box], shown: Shown) -> None:
    assert shown.placement is not None
    _, _, width, height = placed_boxes(WHOLE_IMAGE, None, shown.placement).stored[0].round().tolist()
    for box in given:
        left, top, right, bottom = box if len(box) == 4 else (0.0, 0.0, 0.0, 0.0)
        if not (max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)):
            raise UserError(
                f"{list(box)} is no box in a picture of {width:.0f}x{height:.0f} pixels: expected [left, top, right, "
                "bottom] of positive size that lies in it, at least in part"
            )


def _batch(model: OpenedModel, prepared: Sequence[Prepared], text: Text | None) -> Batch:
    """A batch of the images of requests, where they have any, with a text."""
    rows = [[image.pixels for image in one.images] for one in prepared]
    images = model.stacked(rows) if rows[0] else None
    return Batch(index=torch.arange(len(prepared)), split="predict", images=images, text=text)


def _named(request: Request) -> tuple[list[str], Sequence[Box]]:
    """What the boxes that words name are called in the texts, and the boxes. Raises UserError for boxes without a name."""
    if request.boxes is None or request.tags:
        return list(request.named_boxes), request.boxes or list(request.named_boxes.values())
    if len(request.box_names) != len(request.boxes):
        raise UserError(
            f"box_names names {len(request.box_names)} of {len(request.boxes)} boxes: say what each of them is called, as "
            "in box_names=[person,dog]"
        )
    return called_by("", request.box_names), request.boxes


def _placed_objects(head: Objective, request: Request, boxes: Sequence[Box], placement: Placement) -> PlacedBoxes:
    """The boxes that words name, with the classes and outlines of their objects where the head reads them."""
    names = request.box_names if request.boxes is not None else list(request.named_boxes)
    classes, outlines = (getattr(head.options, name, False) for name in ("classes", "outlines"))
    unknown: Sequence[Sequence[Polygon]] = [[] for _ in boxes]  # all of the box counts
    shown = (unknown if request.outlines is None else request.outlines) if outlines else None
    try:
        return with_objects(placed_boxes("boxes", boxes, placement), names if classes else None, shown)
    except ValueError as error:
        raise UserError(f"outlines: {error}") from error


def _grounded(head: Objective, request: Request, called: Sequence[str]) -> tuple[list[Words], list[Words]]:
    """What is said to the head, and its options, with tags of the boxes that words name. Raises UserError for no box.

    called: what the boxes are called in the texts. Those of `named_boxes` are also found by their names.
    """
    for name, box in request.named_boxes.items():
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
            raise UserError(f"boxes={{{name!r}: {box}}} should be left, top, right and bottom, in pixels of the image")
    said = [text for text in (request.text or "", request.answer) if text]
    texts = [(text, 0) for text in said] + [(text, 1) for text in request.options]
    if request.tags:
        words = [Words(*text, tags) for text, tags in zip(texts, request.tags, strict=True)]
    else:
        names = called if getattr(head.options, "regions", "") else None
        words = [_tagged(*text, names, request.named_boxes) for text in texts]
    return words[: len(said)], words[len(said) :]


def _tagged(text: str, segment: int, numbered: Sequence[str] | None, named: Iterable[str]) -> Words:
    """Words with tags of the boxes that they name by number, or by name in small or capital letters.

    numbered: what boxes are called, by number; None: no text names them so.
    """
    by_number: Sequence[int] = ()
    if numbered is not None and has_references(text):
        try:
            text, by_number = rendered(parsed(text), numbered, range(1, 1 + len(numbered)))
        except BadReference as error:
            raise UserError(f"{'options' if segment else 'text'}: {error}") from error
    words = text.split(" ")
    tags = [0] * len(words)
    for tag, name in enumerate(named, start=1):
        pattern = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
        tags = [tag if pattern.search(word) else own for word, own in zip(words, tags, strict=True)]
    tags = [own or tag for own, tag in zip(by_number or tags, tags, strict=True)]
    return Words(text, segment, tags if any(tags) else ())
