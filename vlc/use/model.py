"""Model: a trained checkpoint for use from Python, as `vlc.Model`. The commands predict, index and search use it."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlc.checkpoint.hub import fetched
from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.data.batch import Batch
from vlc.data.geometry import Shown
from vlc.data.parts.regions import PlacedBoxes
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.scorer import match_scores
from vlc.model.segments import Segment
from vlc.objectives.base import Answer, Objective
from vlc.objectives.generation import Generation
from vlc.objectives.itc import ITC
from vlc.objectives.options import ChoiceOptions, ranking_kind
from vlc.objectives.words import WordTranslation
from vlc.use.explain.explain import explain, explainable
from vlc.use.explain.explanation import Explanation
from vlc.use.explain.methods import DEFAULT
from vlc.use.export.folder import write_folder
from vlc.use.export.new_folder import new_folder
from vlc.use.forms import Box, Form, Prepared, Request, about_images, asked_boxes, boxes_of, chooses, form_of
from vlc.use.images import ImageLike, several
from vlc.use.opened import OpenedModel
from vlc.use.pretrained import opened


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
class Model(OpenedModel):
    """A trained checkpoint with its heads, which prepares images and texts as its evaluation did.

    Images are paths, encoded bytes, Pillow images, or arrays (height, width, 3) uint8. Methods take any number of images or
    texts and compute batches of `per_gpu_batchsize`.
    """

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

    @classmethod
    def from_pretrained(
        cls, name: str | Path, *named_configs: str, revision: str | None = None, **overrides: Any
    ) -> "Model":
        """Return the model of a folder that `save_pretrained` wrote, or of a name of the model hub.

        Everything that `from_checkpoint` takes will do as well. Raises UserError as it does, and where the model hub does
        not have the name or cannot be reached.

        revision: branch, tag or commit of a name of the model hub.
        named_configs, overrides: as in `from_checkpoint`.
        """
        return cls.from_checkpoint(fetched(str(name), revision), *named_configs, **overrides)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the model as a new folder that `from_pretrained`, `load_path` and transformers' AutoModel read.

        `vlc.use.export.folder` says what is in it. Raises UserError where the folder exists, or where the checkpoint that
        the model came from is gone.
        """
        with new_folder(Path(folder)) as made:
            write_folder(self, made)
        return Path(folder)

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
        shown = [self.shown(image) for image in several(images)]
        prepared = [one.pixels for one in shown]
        examples = [Example([image]) for image in prepared]
        if text is not None:
            placed = boxes_of(self, self.module.objectives.values(), shown[0], boxes)
            examples = [Example(prepared, one, placed) for one in several(text)]
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
            texts = [one.text for one in chunk if one.text is not None]
            heads = list(self.module.objectives.values())
            batch = about_images(self, heads, [one.images for one in chunk], texts, [one.boxes for one in chunk])
            said = chain(self._answers(batch), self._written_answers(chunk))
            found = [replace(answer, example=answer.example + first) for answer in said]
            answers += sorted(found, key=lambda answer: answer.example)  # stable: the order of heads stays
            first += len(chunk)
        return answers

    @cached_property
    def forms(self) -> Mapping[str, Form]:
        """The form in which each head is asked, by its name, of all heads that answer."""
        forms = {name: form_of(head) for name, head in self.module.objectives.items()}
        return {name: form for name, form in forms.items() if form is not None}

    def prepare(self, head: str, request: Request) -> Prepared:
        """Decode and tokenise what a head is asked; this may run in any thread. Raises UserError for what is wrong."""
        return self.forms[head].prepare(self, self.module.objectives[head], request)

    def ask(self, head: str, prepared: Sequence[Prepared]) -> list[list[Answer]]:
        """Return the answers of a head to each request.

        Requests of one shape are computed together, `per_gpu_batchsize` at once. Raises NonFiniteMetric where a value is
        NaN or infinite.
        """
        found: list[list[Answer]] = [[] for _ in prepared]
        by_shape: dict[Hashable, list[int]] = {}
        for number, one in enumerate(prepared):
            by_shape.setdefault(one.shape, []).append(number)
        for chunk in (chunk for numbers in by_shape.values() for chunk in self.chunks(numbers)):
            for answer in self.forms[head].answers(self, head, [prepared[number] for number in chunk]):
                found[chunk[answer.example]].append(replace(answer, example=chunk[answer.example]))
        return found

    def explain(
        self,
        images: ImageLike | Sequence[ImageLike],
        text: str | None = None,
        *,
        head: str = "",
        method: str = DEFAULT,
        choice: int = 0,
        **fields: Any,
    ) -> Explanation:
        """Say how much each patch and each word matters for an answer. Raises UserError as `vlc.use.explain.explain` does.

        head: whose answer is explained; it may be left out where only one can be.
        method: a name of `vlc.use.explain.METHODS`.
        choice: which of its answers, 0 = the best.
        fields: further fields of `Request`, such as boxes or options.
        """
        known = explainable(self)
        if not head and len(known) != 1:
            raise UserError(f"head=NAME is missing: {self.path} can explain {', '.join(known) or 'none of its heads'}")
        return explain(self, head or known[0], Request(several(images), text, **fields), method, choice)

    def choose(
        self,
        image: ImageLike,
        question: str,
        options: Sequence[str],
        *,
        history: Sequence[tuple[str, str]] = (),
        caption: str = "",
        answer: str = "",
        boxes: Mapping[str, Box] | Sequence[Box] | None = None,
        box_names: Sequence[str] = (),
    ) -> Answer:
        """Return the options for the answer to a question about an image with their probabilities, the best first.

        history: questions with their answers, the oldest first; as many of the last ones are read as in training.
        caption: of the image; it belongs to the history.
        answer: an answer that is given; the options are rationales for it.
        boxes: boxes (left, top, right, bottom) in pixels of the image by the word that names each in the texts; or a list,
            whose boxes the texts name by number, as in "what is [0] doing".
        box_names: what each box of the list is called, such as person.
        Raises UserError where the checkpoint has no head that chooses among options, where there are none, for a box
        without size, and for a text that names a box that is not there.
        """
        name = next((name for name, head in self.module.objectives.items() if chooses(head)), None)
        if name is None or not options:
            lacking = "no options are given" if name else f"{self.named_heads}, which choose among none"
            raise UserError(f"choose needs options and a head of objective choice that has candidates, but {lacking}")
        request = Request([image], question, options=options, history=history, caption=caption, answer=answer)
        if isinstance(boxes, Mapping):
            request = replace(request, named_boxes=boxes)
        else:
            request = replace(request, boxes=boxes, box_names=box_names)
        ((chosen,),) = self.ask(name, [self.prepare(name, request)])
        return chosen

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
            raise UserError(f"{self.named_heads}, and none of objective words, which translates words")
        request = Request([image], sentence, word=word, language=language, candidates=candidates)
        ((answer,),) = self.ask(name, [self.prepare(name, request)])
        return answer

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
        name = self._writer(reads=texts is not None)
        given = list(several(images)) if images is not None else []
        asked = [None] * len(given) if texts is None else several(texts)
        given = given * len(asked) if len(given) == 1 else given
        if len(given) != len(asked) and images is not None:
            raise UserError(f"{len(given)} images and {len(asked)} texts: pass an image for each text, or one for all")
        shown = [given[place : place + 1] for place in range(len(asked))]
        requests = [Request(one, text, language=language) for one, text in zip(shown, asked, strict=True)]
        written = self.ask(name, [self.prepare(name, request) for request in requests])
        return [text for (answer,) in written for text, _ in answer.choices]

    def embed(
        self, *, images: ImageLike | Sequence[ImageLike] | None = None, texts: str | Sequence[str] | None = None
    ) -> np.ndarray:
        """Return the embeddings of images, or of texts, by the contrastive head: unit vectors (N, D) float32.

        Raises UserError where the checkpoint has no such head, NonFiniteMetric where a value is NaN or infinite.
        """
        if (images is None) == (texts is None):
            raise UserError("embed takes either images=... or texts=..., and one of them")
        if texts is not None:
            made = [self.text_vectors(chunk) for chunk in self.chunks(several(texts))]
        else:
            prepared = (self.prepared(image) for image in several(images))
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
            chunks = [self.match(chunk, prepared) for chunk in self.chunks(several(texts))]
            scores = torch.cat(chunks) if chunks else torch.empty(0)
        check_finite({"the scores": scores})
        return scores.cpu().numpy()

    # -- for the commands: one batch of prepared images at a time

    @property
    def contrast(self) -> ITC:
        """The head that computes embeddings. Raises UserError where there is none."""
        heads = self.settings.tasks[0].kinds
        if "itc" not in heads:
            raise UserError(
                f"{self.named_heads}, but none of objective itc, which makes embeddings: train with loss_names.itc=1"
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

    @torch.inference_mode()
    def image_vectors(self, images: Sequence[Tensor]) -> Tensor:
        """Embed prepared images: unit vectors (N, D) float32, on the device."""
        with self.forward_context():
            return self.contrast.image_vectors(self._pooled(self._embedded(images)))

    @torch.inference_mode()
    def text_vectors(self, texts: Sequence[str]) -> Tensor:
        """Embed texts: unit vectors (N, D) float32, on the device."""
        return self.tokenized_text_vectors(self.text(texts))

    @torch.inference_mode()
    def tokenized_text_vectors(self, text: Text) -> Tensor:
        """Embed tokenised texts: unit vectors (N, D) float32, on the device."""
        with self.forward_context():
            segment = self.module.encoder.embed_text(text)
            return self.contrast.text_vectors(self._pooled(segment, self.task_of(self.contrast)))

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
            task = self.task_of(self.ranking)
            return match_scores(self.module.encoder, self.ranking.score, text, embedded, task).float()

    def _embedded(self, images: Sequence[Tensor]) -> Segment:
        pixels, sizes = self.stacked([[image] for image in images]).at(0)
        return self.module.encoder.embed_images(pixels, sizes=sizes)

    def _pooled(self, segment: Segment, task: str = "") -> Tensor:
        return self.module.encoder.encode([segment], pooled_only=True, task=task).pooled

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

    def _writer(self, *, reads: bool) -> str:
        """The head that writes about texts (reads) or about images alone. Raises UserError where there is none."""
        for name, head in self.module.objectives.items():
            if isinstance(head, Generation) and bool(head.options.target) == reads:
                return name
        raise UserError(f"{self.named_heads}, none of which {'translates texts' if reads else 'writes captions'}")

    def _written_answers(self, examples: Sequence[Example]) -> Iterator[Answer]:
        """What the heads write about examples with one image, in each of their languages: texts translated, or captions."""
        for name, head in self.module.objectives.items():
            if not isinstance(head, Generation) or bool(head.options.target) != (examples[0].text is not None):
                continue
            for language in head.options.languages or ("",) if len(examples[0].images) == 1 else ():
                asked = [Request((), one.text, language=language) for one in examples]
                prepared = [self.prepare(name, request) for request in asked]
                shown = [tuple(Shown(image, None) for image in one.images) for one in examples]
                asked_about = [replace(one, images=own) for one, own in zip(prepared, shown, strict=True)]
                yield from self.forms[name].answers(self, name, asked_about)

    def _why_silent(self, example: Example) -> str:
        images, text = example.images, example.text
        heads, num_images = self.module.objectives, len(images)
        named = f"{self.named_heads}, which"
        silent = f"{named} say nothing {'without a' if text is None else 'of this'} text"
        if any(isinstance(head, WordTranslation) for head in heads.values()):
            return f"{silent}. One translates a word of a text: from Python, call translate_word of vlc.Model"
        if any(map(chooses, heads.values())):
            return f"{silent}. One chooses among options: pass options=[...], or from Python call choose of vlc.Model"
        if text is not None and any(part.given for head in heads.values() for part in asked_boxes(head)):
            return f"{silent} without the box that it is about: pass boxes=[LEFT,TOP,RIGHT,BOTTOM]"
        if any(head.num_images(head.options) == num_images for head in heads.values()):
            return f'{silent}: pass text="..." (for words to fill in with [MASK] in their place)'
        wanted = "a second image (image2=FILE)" if num_images == 1 else "one image (leave image2 out)"
        return f"{named} take {wanted}"


def open_pretrained(config: Mapping[str, Any], given: Collection[str]) -> Model:
    """Open the model of a configuration's load_path, for the commands; arguments and errors as in `opened`."""
    return Model(**opened(config, given))
