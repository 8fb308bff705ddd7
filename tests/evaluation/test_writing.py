"""Evaluators that write texts: files in the order of the samples, scores by direction, and the images of other examples."""

import json
from argparse import ArgumentParser
from collections import Counter
from pathlib import Path

import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.data.batch import Batch
from vlc.evaluation.text_scores import bleu_and_chrf, cider
from vlc.evaluation.writing import Captions, Translation
from vlc.model.decoding import Hypothesis
from vlc.objectives.generation import Generation
from vlc.training.run import build_data, build_module, run
from vlc.use.model import Model
from vlc.use.predict import predict
from write_arrow.machine import writer
from write_arrow.sources import emoji_translations

SIZES = {"train": 8, "val": 3, "test": 4, "held_out": 2}
TRANSLATION = {"tasks": ["translation_emoji"], "translation_emoji.generation.max_target_len": 12}
CAPTIONS = {"tasks": ["caption_emoji"], "caption_emoji.generation.max_target_len": 12}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    made = tiny.write_scenes(tmp_path_factory.mktemp("scenes"), **SIZES)
    parser = ArgumentParser()
    emoji_translations.add_options(parser)
    words = [word for split, size in SIZES.items() for word in (f"--num-{split.replace('_', '-')}", str(size))]
    for table in emoji_translations.tables(parser.parse_args(words)):
        writer.write_table(table, made)
    return str(made)


class _Writes:
    """In place of the search: the reference of every sample with its own image, and otherwise the word wrong."""

    def __init__(self, monkeypatch, samples):
        self.calls, encoder = Counter(), samples.preparation.encoder

        def written(head, _, batch: Batch, tokens) -> list[Hypothesis]:
            found = []
            for row, number in enumerate(batch.index.tolist()):
                self.calls[number] += 1
                source, where = samples.locate(number)
                text = source.field(where, head.options.target) if head.options.target else source.text(where)
                own = samples[[(0, number)]].images.pixels[0]
                right = bool((batch.images.pixels[row] == _normalised(own)).all())
                found.append(Hypothesis(encoder(text if right else "wrong").ids[1:-1], 0.0))
            return found

        monkeypatch.setattr(Generation, "written", written)


def _normalised(pixels):
    from vlc.data.transforms import normalize

    return normalize(pixels, "imagenet")


def _opened(folder, small_vit, **options):
    settings = tiny.settings(data_root=folder, vit=small_vit, **options)
    data = build_data(settings)
    (task,) = data.tasks.values()
    return task.evaluation["val"], build_module(settings, data)


def test_translations_are_written_and_scored_by_direction(folder, small_vit, tmp_path, monkeypatch):
    samples, module = _opened(folder, small_vit, **TRANSLATION)
    writes = _Writes(monkeypatch, samples)
    values = Translation("translator", batch_size=4)(module, samples, tmp_path / "translation_val")
    assert len(samples) == 9
    assert set(writes.calls.values()) == {2}  # with the own image and with another
    languages = ("de", "fr", "cs")
    written = json.loads((tmp_path / "translation_val.json").read_text())
    assert [*written] == [f"en-{language}" for language in languages]
    for language in languages:
        lines = (tmp_path / f"translation_val.en-{language}.hyp").read_text(encoding="utf-8").split("\n")[:-1]
        places = map(samples.locate, range(len(samples)))
        pairs = [
            source.field(where, "second_text")
            for source, where in places
            if source.field(where, "second_lang") == language
        ]
        assert lines == [text.lower() for text in pairs]
        own = bleu_and_chrf(lines, [[text] for text in pairs])
        assert own == {name: value for name, value in written[f"en-{language}"].items() if "images" not in name}
        assert values[f"en-{language}_bleu"] == own["bleu"]
    assert values["bleu_lowercased"] == pytest.approx(100)
    assert values["bleu"] == pytest.approx(sum(values[f"en-{language}_bleu"] for language in languages) / 3)
    assert values["bleu_wrong_images"] < 1 < values["chrf"]
    writes.calls.clear()
    assert "bleu_wrong_images" not in Translation("translator", batch_size=4)(module, samples, None)
    assert set(writes.calls.values()) == {1}


def test_captions_are_written_once_for_each_image_and_scored_against_all_of_it(
    folder, small_vit, tmp_path, monkeypatch
):
    samples, module = _opened(folder, small_vit, **CAPTIONS)
    writes = _Writes(monkeypatch, samples)
    values = Captions("captioner", batch_size=4)(module, samples, tmp_path / "caption_val")
    assert len(samples) > SIZES["val"]
    assert [*writes.calls.values()] == [2] * SIZES["val"]
    records = json.loads((tmp_path / "caption_val.json").read_text())
    (source,) = samples.sources
    places = [source.locate(number) for number in range(len(samples))]
    rows = {where.row: source.texts(where) for where in places}
    assert [record["caption"] for record in records] == [texts[0].lower() for texts in rows.values()]
    assert [record["image_id"] for record in records] == [
        source.field(where, "image_id") for where in {where.row: where for where in places}.values()
    ]
    captions = [record["caption"] for record in records]
    assert values["cider"] == cider(captions, [*rows.values()])
    assert values["bleu"] == bleu_and_chrf(captions, [*rows.values()])["bleu"]
    assert values["cider_wrong_images"] == 0


def test_a_run_trains_tests_and_is_used(folder, small_vit, tmp_path):
    options = {"data_root": folder, "log_dir": str(tmp_path), "vit": small_vit}
    trained = run(tiny.settings(**options, **TRANSLATION, max_steps=2))
    assert {"translation_emoji/train/accuracy", "translation_emoji/val/accuracy"} <= set(trained)
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    tested = run(tiny.settings(**options, **TRANSLATION, test_only=True, load_path=saved))
    names = ("bleu", "en-de_chrf", "bleu_wrong_images", "accuracy_with_wrong_images", "accuracy_without_text")
    assert {f"translation_emoji/test/{name}" for name in names} <= set(tested)
    lines = Path(tested["log_dir"], "translation_emoji_held_out.en-cs.hyp").read_text().split("\n")
    assert len(lines) == SIZES["held_out"] + 1
    _uses_it(Model.from_checkpoint(saved, num_gpus=0), folder, lines[:-1])
    assert json.loads(Path(tested["log_dir"], "metrics.json").read_text())["headlines"] == [
        "translation_emoji/test/bleu",
        "translation_emoji/held_out/bleu",
    ]


def _uses_it(model: Model, folder: str, lines: list[str]) -> None:
    """From Python the texts of a test are the same."""
    settings = tiny.settings(data_root=folder, vit="small_vit", **TRANSLATION, test_only=True)
    samples = build_data(settings).tasks["translation_emoji"].evaluation["held_out"]
    places = [samples.locate(number) for number in range(len(samples))]
    to_czech = [(s, where) for s, where in places if s.field(where, "second_lang") == "cs"]
    images = [source.image(where, "image").to_pybytes() for source, where in to_czech]
    texts = [source.text(where) for source, where in to_czech]
    assert [" ".join(text.split()) for text in model.generate(images, texts, language="cs")] == lines
    answers = model.answer(images[0], texts[0])
    assert [answer.about for answer in answers] == ["de", "fr", "cs"]
    assert " ".join(answers[2].choices[0][0].split()) == lines[0]
    for wrong, message in (
        ({"images": images, "texts": texts}, "language='' is none that translator of .* pass one of de, fr, cs"),
        ({"images": images[:1] * 3, "texts": texts, "language": "de"}, "3 images and 2 texts"),
        ({"images": images}, "none of which writes captions"),
    ):
        with pytest.raises(UserError, match=message):
            model.generate(**wrong)


def test_a_caption_is_predicted_from_a_picture(folder, small_vit, tmp_path):
    trained = run(tiny.settings(data_root=folder, log_dir=str(tmp_path), vit=small_vit, **CAPTIONS, max_steps=1))
    saved = f"{trained['log_dir']}/checkpoints/last.ckpt"
    picture = tmp_path / "a.png"
    picture.write_bytes(tiny.image_bytes(kind="PNG"))
    model = Model.from_checkpoint(saved, num_gpus=0)
    (caption,) = model.generate(picture)
    (record,) = predict(*resolve_use(load_path=saved, image=str(picture), num_gpus=0))
    assert (record["task"], record["text"], record["answers"][0][0]) == ("captioner", str(picture), caption)


def test_evaluators_want_a_head_that_writes_what_they_score(folder, small_vit):
    for options, wrong in ((TRANSLATION, "captions"), (CAPTIONS, "translation")):
        (task,) = options["tasks"]
        with pytest.raises(UserError, match=f"{task}.evaluators.{wrong} wants"):
            _opened(folder, small_vit, **options, **{f"{task}.evaluators.{wrong}": 0})
