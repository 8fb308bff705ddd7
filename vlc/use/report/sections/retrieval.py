"""Strips of images that are found by a text, and the texts that are found by an image; the right ones are framed."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from vlc.data.corpus import Corpus
from vlc.data.samples import Samples
from vlc.data.transforms import normalize
from vlc.evaluation.scorer import match_scores
from vlc.objectives.itc import ITC
from vlc.objectives.options import ranking_kind
from vlc.training.module import VLCModule
from vlc.use.forms import chooses
from vlc.use.report.evaluation import chosen
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_QUERIES, _CANDIDATES, _IMAGES, _TEXTS = 6, 100, 10, 5  # of each kind; what is shown of each strip


def section(run: Run) -> Section | None:
    module, strips = run.module, []
    for samples in run.data.evaluation.values():
        task = module.tasks[samples.task]
        kind = ranking_kind(task.kinds)
        if kind is None or not samples.reads_images or task.pairs or samples.preparation.text_encoder is None:
            continue
        name = task.kinds[kind].name
        if chooses(module.objectives[name]):
            continue  # it ranks texts that the data give
        title = f"{head_name(samples.task, name)}, {samples.called}"
        strips.append({"title": title, **_Strips(module, samples, name).made()})
        break  # one split shows what there is to see
    note = f"Queries are spread over the split, and rank up to {_CANDIDATES} candidates, which are spread over it too."
    return Section("Retrieval", "retrieval", {"strips": strips}, note) if strips else None


@dataclass
class _Strips:
    module: VLCModule
    samples: Samples
    head: str

    def __post_init__(self) -> None:
        self.corpus = Corpus(self.samples)
        self.images = np.array(chosen(self.corpus.num_rows, _CANDIDATES))
        first = {int(image): text for text, image in reversed(list(enumerate(self.corpus.text_image)))}
        self.texts = np.array([first[image] for image in self.images.tolist() if image in first])

    @torch.inference_mode()
    def made(self) -> dict[str, Any]:
        """What is shown of a few queries by text, and of a few by image."""
        chosen_texts = self.texts[chosen(len(self.texts), _QUERIES)]
        by_text = self._scores(self.images, chosen_texts)
        chosen_images = self.images[chosen(len(self.images), _QUERIES)]
        by_image = self._scores(chosen_images, self.texts)
        found = [self._by_text(text, by_text[:, place]) for place, text in enumerate(chosen_texts.tolist())]
        read = [self._by_image(image, by_image[place]) for place, image in enumerate(chosen_images.tolist())]
        return {"by_text": found, "by_image": read, "images": len(self.images), "texts": len(self.texts)}

    def _scores(self, images: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """The scores (images, texts) float32 of these images and texts."""
        score = self._scorer(texts)
        return np.stack([score(image).float().cpu().numpy() for image in images.tolist()])

    def _scorer(self, texts: np.ndarray) -> Callable[[int], Tensor]:
        """Return a function: the number of an image -> its scores (texts,)."""
        module, head, task = self.module, self.module.objectives[self.head], self.samples.task
        encoder = module.encoder
        text = self.corpus.texts(np.zeros_like(texts), texts).to(module.device)
        tokened = task if encoder.task_tokens is not None else ""

        def embedded(image: int):
            pixels = self.corpus.image(image)
            return encoder.embed_images(normalize(pixels[None].to(module.device), encoder.size.pixel_normalization))

        if not isinstance(head, ITC):
            return lambda image: match_scores(encoder, head.score, text, embedded(image), tokened)
        vectors = head.text_vectors(encoder.encode((encoder.embed_text(text),), pooled_only=True, task=tokened).pooled)
        return lambda image: (
            vectors @ head.image_vectors(encoder.encode((embedded(image),), pooled_only=True, task=tokened).pooled)[0]
        )

    def _by_text(self, text: int, scores: np.ndarray) -> dict[str, Any]:
        true = int(self.corpus.text_image[text])
        order = np.argsort(-scores, kind="stable")[:_IMAGES]
        own = scores[int(np.flatnonzero(self.images == true)[0])]
        shown = [{"picture": self._picture(image), "right": image == true} for image in self.images[order].tolist()]
        return {"query": self._text(text), "rank": int((~(scores < own)).sum()), "shown": shown}

    def _by_image(self, image: int, scores: np.ndarray) -> dict[str, Any]:
        right = self.corpus.text_image[self.texts] == image
        order = np.argsort(-scores, kind="stable")[:_TEXTS]
        rank = int((~(scores < scores[right].max())).sum()) if right.any() else None
        shown = [{"text": self._text(int(self.texts[place])), "right": bool(right[place])} for place in order.tolist()]
        return {"picture": self._picture(image), "rank": rank, "shown": shown}

    def _picture(self, image: int):
        pixels = self.corpus.image(image)
        assert pixels is not None
        return to_pil_image(pixels)

    def _text(self, number: int) -> str:
        source, where = self.samples.locate(number)
        return source.text(where)
