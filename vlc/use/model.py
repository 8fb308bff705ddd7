"""Model: a trained checkpoint for use from Python, as `vlc.Model`. The commands predict, index and search use it."""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from PIL import Image, ImageOps
from torch import Tensor

from vlc.common.errors import MissingFile, UserError
from vlc.common.inputs import Images, Text
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.data.composers import COMPOSERS, Words
from vlc.data.geometry import Shown
from vlc.data.images import Picture, UndecodableImage, open_image, to_rgb
from vlc.data.parts.candidates import CandidateTexts, branched, collated_branches
from vlc.data.parts.masked_answer import MaskedAnswer, masked_answers
from vlc.data.parts.masked_text import MaskedTokens
from vlc.data.parts.regions import GRID, WHOLE_IMAGE, Boxes, PlacedBoxes, joined, padded_regions, placed_boxes
from vlc.data.parts.source_and_target import SourcesAndTargets, source_tokens
from vlc.data.stacking import stack_images
from vlc.data.tokens import MASK, TextEncoder
from vlc.data.transforms import normalize, transform
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.ranking import match_scores
from vlc.model.passes import encode_passes
from vlc.model.segments import Segment
from vlc.objectives.base import Answer, Objective, Outcome
from vlc.objectives.choice import Choice
from vlc.objectives.generation import Generation
from vlc.objectives.itc import ITC
from vlc.objectives.options import ChoiceOptions, ranking_kind
from vlc.objectives.words import WordTranslation
from vlc.training.module import VLCModule
from vlc.use.pretrained import opened

ImageLike: TypeAlias = str | Path | bytes | Image.Image | np.ndarray
Box: TypeAlias = Sequence[float]  # left, top, right, bottom, in pixels of the picture


class Example(NamedTuple):
    """What the heads are asked about.

    images: prepared.
    text: about them, if any.
    boxes: in the first image, by the names of the parts of a batch that hold them.
    """

    images: Sequence[Tensor]
    text: str | None = None
    boxes: Mapping[str, PlacedBoxes] = {}


@dataclass(frozen=True)
class Model:
    """A trained checkpoint with its heads, which prepares images and texts as its evaluation did.

    Images are paths, encoded bytes, Pillow images, or arrays (height, width, 3) uint8. Methods take any number of images or
    texts and compute batches of `per_gpu_batchsize`.

    module: encoder and heads, in evaluation mode.
    text_encoder: None for a model of images alone.
    pipeline: name of the image pipeline.
    pixels: name of the normalisation of pixels.
    task_tokens: the task whose token stands beside the texts of a head, by head; empty: the model has no task tokens.
    """

    settings: Settings
    module: VLCModule
    text_encoder: TextEncoder | None
    device: torch.device
    pipeline: str
    pixels: str
    task_tokens: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_checkpoint(cls, path: str | Path, *named_configs: str, **overrides: Any) -> "Model":
        """Return the model of a checkpoint file, or of a folder of the model hub.

        Checkpoints of this project need no further arguments, other checkpoints need the arguments of `run.py predict`.
        Raises UserError where the file is missing, damaged or does not fit.

        named_configs: named configurations.
        overrides: configuration keys, as in num_gpus=0, precision=32 or loss_names={"vqa": 1}, which chooses heads.
        """
        from vlc.configuration.config import resolve_use  # here, as Sacred is not needed otherwise

        return open_pretrained(*resolve_use(*named_configs, **overrides, load_path=str(path)))

    # -- answers, embeddings and scores

    def answer(
        self,
        images: ImageLike | Sequence[ImageLike],
        text: str | Sequence[str] | None = None,
        boxes: Sequence[Box] | None = None,
    ) -> list[Answer]:
        """Return the answers of each head to each text about an image, text by text; without a text, to each image.

        The `example` of an answer is the number of its text, or image. Raises UserError where no head has an answer,
        NonFiniteMetric where a value is NaN or infinite.

        images: an image, or the two images of a statement; heads that take another number of images do not answer. Without
            a text, any number of images, each of which a head that reads no text sorts into classes or describes.
        text: a text, or several about the same images; masked language modelling fills in [MASK].
        boxes: of the image, in pixels of the picture, among which a head of pointing chooses; by default it chooses among
            boxes of several sizes all over the image. For a head whose texts are about a box, the first one is this box.
        """
        shown = [self.shown(image) for image in _several(images)]
        prepared = [one.pixels for one in shown]
        examples = [Example([image]) for image in prepared]
        if text is not None:
            placed = self._boxes(shown[0], boxes)
            examples = [Example(prepared, one, placed) for one in _several(text)]
        answers = self.answers(examples)
        silent = set(range(len(examples))) - {answer.example for answer in answers}
        if silent:
            raise UserError(self._why_silent(examples[min(silent)]))
        return answers

    @torch.inference_mode()
    def answers(self, examples: Iterable[tuple[Any, ...]]) -> list[Answer]:
        """Return the answers of the heads to examples with equal numbers of images, in the order of the examples.

        examples: `Example` each, or a tuple of its first fields.
        The `example` of an answer is the number of its example, which may have no answers. Raises NonFiniteMetric where a
        value is NaN or infinite.
        """
        answers: list[Answer] = []
        first = 0
        for chunk in self.chunks(Example(*one) for one in examples):
            batch = self._batch(chunk)
            said = chain(self._answers(batch), self._written_answers(chunk))
            found = [replace(answer, example=answer.example + first) for answer in said]
            answers += sorted(found, key=lambda answer: answer.example)  # stable: the order of heads stays
            first += len(chunk)
        return answers

    @torch.inference_mode()
    def choose(
        self,
        image: ImageLike,
        question: str,
        options: Sequence[str],
        *,
        history: Sequence[tuple[str, str]] = (),
        caption: str = "",
        answer: str = "",
        boxes: Mapping[str, Sequence[float]] | None = None,
    ) -> Answer:
        """Return the options for the answer to a question about an image with their probabilities, the best first.

        history: questions with their answers, the oldest first; as many of the last ones are read as in training.
        caption: of the image; it belongs to the history.
        answer: an answer that is given; the options are rationales for it.
        boxes: boxes (left, top, right, bottom) in pixels of the image by the word that names each in the texts.
        Raises UserError where the checkpoint has no head that chooses among options, where there are none, and for a box
        without size.
        """
        name = next((name for name, head in self.module.objectives.items() if _chooses(head)), None)
        if name is None or not options:
            heads = ", ".join(self.module.objectives)
            lacking = "no options are given" if name else f"{self.path} has the heads {heads}, which choose among none"
            raise UserError(f"choose needs options and a head of objective choice that has candidates, but {lacking}")
        boxes = boxes or {}
        row = {"history": [words for turn in history for words in turn], "caption": caption}
        earlier = COMPOSERS["dialogue"].history(row) if history or caption else ()
        sequences = [_grounded(words, 0, boxes) for words in ((question, answer) if answer else (question,))]
        if self.module.objectives[name].options.branches:
            trunk, tokens = branched(options, self.tokens, lambda encoder: encoder.composed(sequences, earlier))
            candidates = collated_branches([trunk], [tokens], [list(options)], None, self.tokens)
        else:
            tokens = [self.tokens.composed([*sequences, _grounded(option, 1, boxes)], earlier) for option in options]
            columns = [one.ids for one in tokens], [one.segments for one in tokens], [one.tags for one in tokens]
            candidates = CandidateTexts(self.tokens.pad(*columns), [list(options)])
        shown = self.shown(image)
        assert shown.placement is not None, "the pipelines of evaluation say where the picture lies"
        regions = padded_regions([placed_boxes("boxes", list(boxes.values()), shown.placement)])
        images = self.stacked([[shown.pixels]])
        batch = Batch(index=torch.arange(1), split="predict", images=images, text=self.text([question]))
        batch = batch.with_parts(candidates=candidates.to(self.device), regions=regions.to(self.device))
        with self.forward_context():
            head = self.module.objectives[name]
            outcome = self.outcomes([name], batch)[name]
        check_finite({f"the scores of {name}": outcome.logits})
        (chosen,) = head.answers(outcome, batch)
        return replace(chosen, head=name)

    def translate_word(
        self, image: ImageLike, sentence: str, word: str, language: str, candidates: Sequence[str] = ()
    ) -> Answer:
        """Return the translations of a word of a sentence, as the image shows it, with their probabilities, the best first.

        word: a word of the sentence as it stands between blanks; of several the first one.
        language: to translate into, by its name in the training data.
        candidates: the translations to choose among; empty: all that training knows in the language.
        Raises UserError where the checkpoint has no head of objective words, where the sentence lacks the word, and where
        training knows none of the candidates.
        """
        name = next((name for name, head in self.module.objectives.items() if isinstance(head, WordTranslation)), None)
        if name is None:
            heads = ", ".join(self.module.objectives)
            raise UserError(f"{self.path} has the heads {heads}, and none of objective words, which translates words")
        said = sentence.split(" ")
        if word not in said:
            raise UserError(f"word={word!r} is none of the words of {sentence!r} between its blanks")
        head = self.module.objectives[name]
        known = [one.partition(":")[2] for one in head.context.vocabulary.answers if one.startswith(f"{language}:")]
        names = [one for one in candidates or known if one in known]
        if not names:
            of = ", ".join(sorted({one.partition(":")[0] for one in head.context.vocabulary.answers}))
            among = f"candidates={list(candidates)} in" if candidates else "translations in"
            raise UserError(f"{name} of {self.path} knows no {among} language={language!r}; its languages are {of}")
        tokens = self.tokens(sentence, [int(place == said.index(word)) for place in range(len(said))])
        text = self.tokens.pad([tokens.ids], [tokens.segments], [tokens.tags]).to(self.device)
        batch = Batch(index=torch.arange(1), split="predict", images=self.stacked([[self.prepared(image)]]), text=text)
        batch = batch.with_parts(candidates=[names], words=[word], target_lang=[language])
        with torch.inference_mode(), self.forward_context():
            outcome = self.outcomes([name], batch)[name]
        (answer,) = head.answers(outcome, batch)
        choices = [(one.partition(":")[2], value) for one, value in answer.choices]  # without the language
        return replace(answer, head=name, choices=choices, record=None)

    def generate(
        self,
        images: ImageLike | Sequence[ImageLike] | None,
        texts: str | Sequence[str] | None = None,
        *,
        language: str = "",
    ) -> list[str]:
        """Return the texts that a head of objective generation writes: a translation of each text, or else captions.

        images: an image for each text, or one for all of them; None where the head was trained on texts alone. Without
            texts, the images to describe.
        language: to write in, by its name in the training data; it may be left out where the head writes in only one.
        Raises UserError where the checkpoint has no such head, or where the head does not write in the language.
        """
        name, head = self._writer(reads=texts is not None)
        known = head.options.languages
        language = language or (known[0] if len(known) == 1 else "")
        if (known or language) and language not in known:
            raise UserError(
                f"language={language!r} is none that {name} of {self.path} writes in: "
                + (f"pass one of {', '.join(known)}" if known else "leave it out, the training data name none")
            )
        prepared = [self.prepared(image) for image in _several(images)] if images is not None else []
        given = [None] * len(prepared) if texts is None else _several(texts)
        shown = prepared * len(given) if len(prepared) == 1 else prepared
        if len(shown) != len(given) and images is not None:
            raise UserError(f"{len(shown)} images and {len(given)} texts: pass an image for each text, or one for all")
        examples = [Example(shown[place : place + 1], text) for place, text in enumerate(given)]
        return [text for chunk in self.chunks(examples) for text, _ in self._written(name, chunk, language)]

    def embed(
        self, *, images: ImageLike | Sequence[ImageLike] | None = None, texts: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """Return the embeddings of images, or of texts, by the contrastive head: unit vectors (N, D) float32.

        Raises UserError where the checkpoint has no such head, NonFiniteMetric where a value is NaN or infinite.
        """
        if (images is None) == (texts is None):
            raise UserError("embed takes either images=... or texts=..., and one of them")
        if texts is not None:
            made = [self.text_vectors(chunk) for chunk in self.chunks(_several(texts))]
        else:
            prepared = (self.prepared(image) for image in _several(images))
            made = [self.image_vectors(chunk) for chunk in self.chunks(prepared)]
        vectors = torch.cat(made) if made else torch.empty(0, self.module.encoder.size.width)
        check_finite({"the embeddings": vectors})
        return vectors.cpu().numpy()

    def score(self, image: ImageLike, texts: str | Sequence[str]) -> np.ndarray:
        """Return how well each text matches an image: scores (N,) float32, the higher the better.

        The scores are of the ranking head, or else of the matching head, or else cosine similarities of the contrastive
        head. Raises UserError where the checkpoint has none of them, NonFiniteMetric where a score is NaN or infinite.
        """
        prepared = [self.prepared(image)]
        if self.ranking is None:
            scores = torch.from_numpy(self.embed(texts=texts)) @ self.image_vectors(prepared)[0].cpu()
        else:
            chunks = [self.match(chunk, prepared) for chunk in self.chunks(_several(texts))]
            scores = torch.cat(chunks) if chunks else torch.empty(0)
        check_finite({"the scores": scores})
        return scores.cpu().numpy()

    # -- for the commands: one batch of prepared images at a time

    @property
    def path(self) -> Path:
        return Path(self.settings.run.load_path)

    @property
    def contrast(self) -> ITC:
        """The head that computes embeddings. Raises UserError where there is none."""
        heads = self.settings.tasks[0].kinds
        if "itc" not in heads:
            raise UserError(
                f"{self.path} has the heads {', '.join(self.module.objectives)}, but none of objective itc, which makes "
                "embeddings: train with loss_names.itc=1"
            )
        head = self.module.objectives[heads["itc"].name]
        assert isinstance(head, ITC)
        return head

    @property
    def ranking(self) -> Objective | None:
        """The head whose scores of texts with images rank best; None where only embeddings can rank."""
        heads = self.settings.tasks[0].kinds
        kind = ranking_kind(heads)
        if kind is None or kind == "itc":
            return None
        options = heads[kind].options
        if isinstance(options, ChoiceOptions) and options.wrong_translations:
            return None  # it ranks texts by texts
        return self.module.objectives[heads[kind].name]

    @property
    def describes_images(self) -> bool:
        """Whether a head writes captions."""
        return any(isinstance(head, Generation) and not head.options.target for head in self.module.objectives.values())

    def outcomes(self, names: Iterable[str], batch: Batch, dropped_ratio: float = 0.0) -> dict[str, Outcome]:
        """Return the outcomes of heads for a normalised batch, by name. Heads whose tasks have the same token share passes.

        dropped_ratio: the share of patches that a pass with patch noise drops.
        """
        outcomes: dict[str, Outcome] = {}
        if (languages := self._languages(len(batch))) is not None:
            batch = batch.with_parts(languages=languages)
        by_task: dict[str, dict[str, Objective]] = {}
        for name in names:
            by_task.setdefault(self.task_tokens.get(name, ""), {})[name] = self.module.objectives[name]
        for task, heads in by_task.items():
            passes = [one for head in heads.values() for one in head.passes(batch)]
            encoded = encode_passes(self.module.encoder, replace(batch, task=task), passes, dropped_ratio)
            outcomes |= {name: head(encoded, batch) for name, head in heads.items()}
        return outcomes

    @torch.inference_mode()
    def image_vectors(self, images: Sequence[Tensor]) -> Tensor:
        """Embed prepared images: unit vectors (N, D) float32, on the device."""
        with self.forward_context():
            return self.contrast.image_vectors(self._pooled(self._embedded(images)))

    @torch.inference_mode()
    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Embed texts: unit vectors (N, D) float32, on the device."""
        with self.forward_context():
            text = self.module.encoder.embed_text(self.text(texts))
            return self.contrast.text_vectors(self._pooled(text, self._task(self.contrast)))

    @torch.inference_mode()
    def patch_means(self, images: Sequence[Tensor]) -> Tensor:
        """Prepared images -> the means (N, D) float32 of their encoded patches, on the device. No head is needed."""
        with self.forward_context():
            (image,) = self.module.encoder.encode([self._embedded(images)]).segments
        patches = image.tokens[:, 1:].float()  # without the class token
        shown = torch.ones_like(patches[..., :1]) if image.mask is None else image.mask[:, 1:, None].float()
        return (patches * shown).sum(dim=1) / shown.sum(dim=1)

    @torch.inference_mode()
    def match(self, texts: Sequence[str], images: Sequence[Tensor]) -> Tensor:
        """Score texts with prepared images by the ranking head, (N,) float32; a single one is paired with all others."""
        assert self.ranking is not None
        with self.forward_context():
            text, embedded = self.text(texts), self._embedded(images)
            task = self._task(self.ranking)
            return match_scores(self.module.encoder, self.ranking.score, text, embedded, task).float()

    def prepared(self, image: ImageLike, name: str = "") -> Tensor:
        """Prepare an image, whole, in the model's size: (3, H, W) uint8. Raises MissingFile or UserError with its name."""
        return self.shown(image, name).pixels

    def shown(self, image: ImageLike, name: str = "") -> Shown:
        """Prepare an image as `prepared` does; with it, return the map from its points to those of the prepared image."""
        if isinstance(image, str | Path):
            image, name = _read(image), str(image)
        try:
            return self.transform(_picture(image), np.random.default_rng(0))
        except UndecodableImage as error:
            raise UserError(f"Image {name or 'of the given bytes'} cannot be decoded ({error})") from error

    @property
    def transform(self) -> Callable[[Picture, np.random.Generator], Shown]:
        """The image pipeline of evaluation: pictures -> (3, H, W) uint8 with placements, whole and not augmented."""
        return transform(self.pipeline, self.settings.data.image_size)

    def chunks(self, items: Iterable[Any]) -> Iterator[list[Any]]:
        """The items in batches."""
        items = iter(items)
        while chunk := list(islice(items, self.settings.data.per_gpu_batchsize)):
            yield chunk

    def stacked(self, rows: Sequence[Sequence[Tensor]]) -> Images:
        """Stack rows of K prepared images on the device, normalised for the encoder."""
        images = stack_images([list(row) for row in rows])
        assert images is not None
        images = images.to(self.device)
        return replace(images, pixels=normalize(images.pixels, self.pixels))

    def forward_context(self) -> AbstractContextManager:
        """Compute in half precision on a GPU, or as `precision` says."""
        precision = self.settings.run.precision
        if (self.device.type == "cpu" and precision != "bf16-mixed") or precision in (32, "32-true"):
            return nullcontext()
        half = torch.bfloat16 if self.device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast(self.device.type, half)

    def text(self, texts: Sequence[str]) -> Text:
        text = self.tokens.pad([self.tokens(text).ids for text in texts]).to(self.device)
        return replace(text, languages=self._languages(len(texts)))

    def _languages(self, count: int) -> Tensor | None:
        """The number of the language of texts, as `Text` has it; None where it is not said."""
        known, said = self.module.encoder.languages, self.settings.languages.of_texts
        if known is None or not said:
            return None
        return torch.full((count, 2), known.names.index(said), device=self.device)

    @property
    def tokens(self) -> TextEncoder:
        """The text encoder. Raises UserError for a model of images alone."""
        if self.text_encoder is None:
            raise UserError(f"{self.path} was trained on images alone and reads no text")
        return self.text_encoder

    def _embedded(self, images: Sequence[Tensor]) -> Segment:
        pixels, sizes = self.stacked([[image] for image in images]).at(0)
        return self.module.encoder.embed_images(pixels, sizes=sizes)

    def _pooled(self, segment: Segment, task: str = "") -> Tensor:
        return self.module.encoder.encode([segment], pooled_only=True, task=task).pooled

    def _task(self, head: Objective) -> str:
        """Return the task whose token stands beside the texts of a head, "" where there are no task tokens."""
        return next((task for name, task in self.task_tokens.items() if self.module.objectives[name] is head), "")

    def _batch(self, examples: Sequence[Example]) -> Batch:
        """Make a batch without supervision, with the parts that heads read of the texts; [MASK] is a hidden token."""
        images = self.stacked([example.images for example in examples])
        texts = [example.text for example in examples if example.text is not None]
        batch = Batch(index=torch.arange(len(examples)), split="predict", images=images)
        for name in examples[0].boxes:
            placed = padded_regions([example.boxes[name] for example in examples])
            batch = batch.with_parts(**{name: placed.to(self.device)})
        if not texts:
            return batch
        texts = [text.replace(MASK, self.tokens.mask_token) for text in texts]
        text = self.text(texts)
        batch = replace(batch, text=text)
        positions = (text.ids.flatten() == self.tokens.mask_id).nonzero()[:, 0]
        if len(positions):
            batch = batch.with_parts(masked_text=MaskedTokens(text, positions, torch.zeros_like(positions)))
        if any(MaskedAnswer() in head.parts(head.options) for head in self.module.objectives.values()):
            masked = masked_answers(map(self.tokens, texts), self.tokens)
            batch = batch.with_parts(masked_answer=masked.to(self.device))
        return batch

    def _answers(self, batch: Batch) -> Iterator[Answer]:
        assert batch.images is not None
        count = batch.images.pixels.shape[1]
        heads = {
            name: head
            for name, head in self.module.objectives.items()
            if head.num_images(head.options) == count and (batch.text is not None or head.images_alone)
        }
        with self.forward_context():
            outcomes = self.outcomes(heads, batch)
            token_name = str if batch.text is None else self.tokens.token_name
            for name, head in heads.items():
                for answer in head.answers(outcomes[name], batch, token_name):
                    check_finite({f"the {answer.unit} of {name}": torch.tensor([value for _, value in answer.choices])})
                    yield replace(answer, head=name)

    def _writer(self, *, reads: bool) -> tuple[str, Generation]:
        """The head that writes about texts (reads) or about images alone. Raises UserError where there is none."""
        for name, head in self.module.objectives.items():
            if isinstance(head, Generation) and bool(head.options.target) == reads:
                return name, head
        what = "translates texts" if reads else "writes captions"
        raise UserError(f"{self.path} has the heads {', '.join(self.module.objectives)}, none of which {what}")

    @torch.inference_mode()
    def _written(self, name: str, examples: Sequence[Example], language: str) -> list[tuple[str, float]]:
        """What a head writes about each example, with its score."""
        head = self.module.objectives[name]
        assert isinstance(head, Generation)
        read = [source_tokens(one.text or "", language, head.options.max_target_len, self.tokens) for one in examples]
        source = self.tokens.pad([one.ids for one in read], [one.segments for one in read])
        images = self.stacked([one.images for one in examples]) if examples[0].images else None
        batch = Batch(index=torch.arange(len(examples)), split="predict", images=images, task=self._task(head))
        batch = batch.with_parts(source_and_target=SourcesAndTargets(source).to(self.device))
        with self.forward_context():
            found = head.written(self.module.encoder, batch, self.tokens)
        check_finite({f"the scores of {name}": torch.tensor([one.score for one in found])})
        return [(self.tokens.text_of(one.ids), one.score) for one in found]

    def _written_answers(self, examples: Sequence[Example]) -> Iterator[Answer]:
        """What the heads write about examples with one image, in each of their languages: texts translated, or captions."""
        for name, head in self.module.objectives.items():
            if not isinstance(head, Generation) or bool(head.options.target) != (examples[0].text is not None):
                continue
            for language in head.options.languages or ("",) if len(examples[0].images) == 1 else ():
                for number, text in enumerate(self._written(name, examples, language)):
                    yield Answer([text], "score", language, number, name)

    def _boxes(self, shown: Shown, given: Sequence[Box] | None) -> dict[str, PlacedBoxes]:
        """The boxes that heads read, by the names of their parts: those given, or a grid in place of any candidates."""
        asked = [part for head in self.module.objectives.values() for part in _asked_boxes(head)]
        candidates = GRID if given is None else "given"
        found: dict[str, PlacedBoxes] = {}
        for part in asked:
            if given is not None or not part.given:
                assert shown.placement is not None  # this class prepares images by pipelines that know it
                fields = (name if name == WHOLE_IMAGE else candidates for name in part.tested or part.fields)
                placed = [placed_boxes(name, given, shown.placement) for name in dict.fromkeys(fields)]
                found[part.name] = joined(placed)
        if given is not None:
            self._check_boxes(given, shown, read=any({*part.fields} - {WHOLE_IMAGE} for part in asked))
        return found

    def _check_boxes(self, given: Sequence[Box], shown: Shown, *, read: bool) -> None:
        """Raise UserError for boxes that are none, that lie outside of the picture, or that no head reads."""
        if not read:
            heads = ", ".join(self.module.objectives)
            raise UserError(f"boxes are given, but {self.path} has the heads {heads}, none of which reads boxes")
        assert shown.placement is not None
        _, _, width, height = placed_boxes(WHOLE_IMAGE, None, shown.placement).stored[0].round().tolist()
        for box in given:
            left, top, right, bottom = box if len(box) == 4 else (0.0, 0.0, 0.0, 0.0)
            if not (max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)):
                raise UserError(
                    f"{list(box)} is no box in a picture of {width:.0f}x{height:.0f} pixels: expected [left, top, right, "
                    "bottom] of positive size that lies in it, at least in part"
                )

    def _why_silent(self, example: Example) -> str:
        images, text = example.images, example.text
        heads, num_images = self.module.objectives, len(images)
        named = f"{self.path} has the heads {', '.join(heads)}, which"
        silent = f"{named} say nothing {'without a' if text is None else 'of this'} text"
        if any(isinstance(head, WordTranslation) for head in heads.values()):
            return f"{silent}. One translates a word of a text: from Python, call translate_word of vlc.Model"
        if any(map(_chooses, heads.values())):
            return f"{silent}. One chooses among options: from Python, call choose of vlc.Model"
        if text is not None and any(part.given for head in heads.values() for part in _asked_boxes(head)):
            return f"{silent} without the box that it is about: pass boxes=[LEFT,TOP,RIGHT,BOTTOM]"
        if any(head.num_images(head.options) == num_images for head in heads.values()):
            return f'{silent}: pass text="..." (for words to fill in with [MASK] in their place)'
        wanted = "a second image (image2=FILE)" if num_images == 1 else "one image (leave image2 out)"
        return f"{named} take {wanted}"


def _grounded(text: str, segment: int, boxes: Mapping[str, Sequence[float]]) -> Words:
    """Words with tags of the boxes whose names they contain, in small or capital letters. Raises UserError for no box."""
    words = text.split(" ")
    tags = [0] * len(words)
    for tag, (name, box) in enumerate(boxes.items(), start=1):
        if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
            raise UserError(f"boxes={{{name!r}: {box}}} should be left, top, right and bottom, in pixels of the image")
        pattern = re.compile(rf"\b{re.escape(name)}\b", re.IGNORECASE)
        tags = [tag if pattern.search(word) else own for word, own in zip(words, tags, strict=True)]
    return Words(text, segment, tags if any(tags) else ())


def _chooses(head: Objective) -> bool:
    return isinstance(head, Choice) and bool(head.options.candidates)


def _asked_boxes(head: Objective) -> Iterator[Boxes]:
    """The parts with boxes that a head reads of a batch without supervision."""
    return (part for part in head.parts(head.options) if isinstance(part, Boxes) and part.presence == "always")


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]


def _read(path: str | Path) -> bytes:
    if not Path(path).is_file():
        raise MissingFile(f"Image {path} " + ("is a folder: name a file" if Path(path).is_dir() else "does not exist"))
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Image {path} cannot be read: {error.strerror}") from error


def _picture(image: bytes | pa.Buffer | Image.Image | np.ndarray) -> Picture:
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise UserError(
                f"an array of shape {image.shape} and {image.dtype} is no image: expected (height, width, 3) uint8"
            )
        return Image.fromarray(image)
    if isinstance(image, Image.Image):
        return to_rgb(ImageOps.exif_transpose(image))
    return open_image(pa.py_buffer(image) if isinstance(image, bytes) else image)


def open_pretrained(config: Mapping[str, Any], given: Collection[str]) -> Model:
    """Open the model of a configuration's load_path, for the commands; arguments and errors as in `opened`."""
    return Model(**opened(config, given))
