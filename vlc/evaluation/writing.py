"""Translation and captions: evaluators that write a text for each example of a split and score it against references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from vlc.common.files import to_json
from vlc.common.terminal import progress
from vlc.data.samples import Samples
from vlc.evaluation.evaluator import Model
from vlc.evaluation.inputs import batch_of, with_wrong_images
from vlc.evaluation.predictions import write_text
from vlc.evaluation.text_scores import bleu_and_chrf, cider
from vlc.hardware.distributed import gather_lists, is_first_process, process_number
from vlc.objectives.generation import Generation


@dataclass(frozen=True)
class Writing:
    """What the evaluators share.

    head: the head that writes, of objective generation.
    batch_size: how many examples are computed at once.
    every: see `Evaluator`.
    """

    head: str
    batch_size: int
    every: int = 0

    def _head(self, model: Model) -> Generation:
        head = model.objectives[self.head]
        assert isinstance(head, Generation)
        return head

    @torch.inference_mode()
    def _written(
        self, model: Model, samples: Samples, numbers: Sequence[int], *, wrong_images: bool = False
    ) -> list[str]:
        """The texts that the head writes for samples, in their order, on every process, which share the work."""
        rank, world_size = process_number()
        head, encoder, mine = self._head(model), samples.preparation.encoder, numbers[rank::world_size]
        texts: list[str] = []
        with progress("writing", len(mine), shown=is_first_process()) as advance:
            for start in range(0, len(mine), self.batch_size):
                chunk = list(mine[start : start + self.batch_size])
                batch = with_wrong_images(samples, chunk) if wrong_images else batch_of(samples, chunk)
                found = head.written(model.encoder, model.normalised(batch.to(model.device)), encoder)
                texts += [encoder.text_of(one.ids) for one in found]
                advance(len(chunk))
        places = gather_lists(list(range(len(numbers)))[rank::world_size])
        by_place = dict(zip(places, gather_lists(texts), strict=True))
        return [by_place[place] for place in range(len(numbers))]

    def _tests_wrong_images(self, model: Model, samples: Samples, out: Path | None) -> bool:
        """Whether texts are also written about wrong images: in tests, where there are images."""
        return (
            out is not None and self._head(model).options.wrong_images and all(s.spec.images for s in samples.sources)
        )


@dataclass(frozen=True)
class Translation(Writing):
    """An evaluator: BLEU and chrF of each direction, and their means over the directions.

    Values: bleu, chrf and bleu_lowercased (see `bleu_and_chrf`), in a test also bleu_wrong_images, with the images of other
    examples; with several directions each value of a direction under a name such as en-de_bleu.

    Files: OUT.en-de.hyp with a line for each sample of the direction, in their order, and OUT.json with all scores and
    sacrebleu's signatures.
    """

    headlines: ClassVar[tuple[str, ...]] = ("bleu",)

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        options = self._head(model).options
        directions: dict[str, list[int]] = {}
        references: list[list[str]] = []
        for number in range(len(samples)):
            source, where = samples.locate(number)
            languages = [source.field(where, name) for name in ("lang", "second_lang")] if options.languages else []
            directions.setdefault("-".join(languages), []).append(number)
            references.append([source.field(where, options.target)])
        everything = range(len(samples))
        written = {"": self._written(model, samples, everything)}
        if self._tests_wrong_images(model, samples, out):
            written["_wrong_images"] = self._written(model, samples, everything, wrong_images=True)
        scores: dict[str, dict[str, Any]] = {}
        for direction, numbers in directions.items():
            own = [references[number] for number in numbers]
            scores[direction] = bleu_and_chrf([written[""][number] for number in numbers], own)
            if "_wrong_images" in written:
                wrong = [written["_wrong_images"][number] for number in numbers]
                scores[direction]["bleu_wrong_images"] = bleu_and_chrf(wrong, own)["bleu"]
        if out is not None and is_first_process():
            for direction, numbers in directions.items():
                lines = "".join(f"{_one_line(written[''][number])}\n" for number in numbers)
                write_text(out.with_name(".".join(filter(None, (out.name, direction, "hyp")))), lines)
            write_text(out.with_name(f"{out.name}.json"), to_json(scores))
        return _values(scores, ("bleu", "chrf", "bleu_lowercased", "bleu_wrong_images"))


@dataclass(frozen=True)
class Captions(Writing):
    """An evaluator: a caption for each image, scored against all of its captions in the same language.

    Values: cider (`vlc.evaluation.text_scores.cider`), and bleu with several references; in a test also
    cider_wrong_images, with the images of other examples; with several languages each value of a language under a name such
    as de_cider, and the means.

    The file OUT.json has the captions in the form of COCO's server, image_id and caption, where the data have image_id; or
    the table and the row of the image. Beside them stands the language, where there are several.
    """

    headlines: ClassVar[tuple[str, ...]] = ("cider",)

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        several = bool(self._head(model).options.languages)
        images: dict[tuple[Any, ...], list[int]] = {}
        for number in range(len(samples)):
            source, where = samples.locate(number)
            language = source.field(where, "lang") if several else ""
            images.setdefault((language, samples.sources.index(source), *where[:2]), []).append(number)
        first = [numbers[0] for numbers in images.values()]
        written = {"": self._written(model, samples, first)}
        if self._tests_wrong_images(model, samples, out):
            written["_wrong_images"] = self._written(model, samples, first, wrong_images=True)
        references = [[_text(samples, number) for number in numbers] for numbers in images.values()]
        scores: dict[str, dict[str, Any]] = {}
        languages = [key[0] for key in images]
        for language in dict.fromkeys(languages):
            places = [place for place, own in enumerate(languages) if own == language]
            given = [references[place] for place in places]
            for suffix, texts in written.items():
                own = [texts[place] for place in places]
                found = {"cider": cider(own, given), "bleu": bleu_and_chrf(own, given)["bleu"]}
                scores.setdefault(language, {}).update({f"{name}{suffix}": value for name, value in found.items()})
        if out is not None and is_first_process():
            named = zip(first, languages, written[""], strict=True)
            records = [_name(samples, number) | _language(own) | {"caption": text} for number, own, text in named]
            write_text(out.with_name(f"{out.name}.json"), to_json(records))
        return _values(scores, ("cider", "bleu", "cider_wrong_images", "bleu_wrong_images"))


def _values(scores: Mapping[str, Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """The means of scores over directions or languages, and the scores of each where there are several."""
    found = [name for name in names if all(name in own for own in scores.values())]
    values = {name: sum(own[name] for own in scores.values()) / len(scores) for name in found}
    if len(scores) > 1:
        values |= {f"{key}_{name}": own[name] for key, own in scores.items() for name in found}
    return values


def _text(samples: Samples, number: int) -> str:
    source, where = samples.locate(number)
    return source.text(where)


def _name(samples: Samples, number: int) -> dict[str, Any]:
    """What the records call an image."""
    source, where = samples.locate(number)
    if source.provides("image_id"):
        return {"image_id": source.field(where, "image_id")}
    return dict(zip(("table", "row"), source.table_and_row(where), strict=True))


def _language(name: str) -> dict[str, str]:
    return {"lang": name} if name else {}


def _one_line(text: str) -> str:
    return " ".join(text.split())
