"""VCR from its raw files to the file for the leaderboard: written, trained, tested, joined, and asked from Python."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import vlc
from tests import tiny
from tests.conftest import GOLDEN
from tests.data.made import keys
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.use_settings import UseSettings
from vlc.data.composers import Words
from vlc.data.references import called_by, rendered
from vlc.evaluation.official.__main__ import main as official
from vlc.training.run import build_data, run
from vlc.use.forms import Request
from vlc.use.predict import predict
from write_arrow.__main__ import main

RAW = GOLDEN / "tasks/vcr"
TASKS = ("vcr_qa", "vcr_qar")
# One of the two reads the classes and the outlines of objects.
OBJECTS = {"vcr_qa": {}, "vcr_qar": {"vcr_qar.choice.classes": True, "vcr_qar.choice.outlines": True}}


@pytest.fixture(scope="module")
def options(tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("vcr")
    main(["vcr", "--root", str(RAW), "--out", str(out), "--workers", "1"])
    folder = str(tmp_path_factory.mktemp("log"))
    return {"data_root": str(out), "log_dir": folder, "vit": "mae_vit_tiny_patch16"}


@pytest.fixture(scope="module")
def trained(options) -> dict[str, str]:
    found = {}
    for task in TASKS:
        metrics = run(tiny.settings(**options, tasks=[task], max_steps=2, **OBJECTS[task]))
        assert {f"{task}/train/loss", f"{task}/val/accuracy"} <= set(metrics)
        found[task] = f"{metrics['log_dir']}/checkpoints/last.ckpt"
    return found


@pytest.fixture(scope="module")
def tested(options, trained) -> dict[str, dict]:
    return {
        task: run(tiny.settings(**options, tasks=[task], test_only=True, load_path=trained[task], **OBJECTS[task]))
        for task in TASKS
    }


def _file(tested: dict[str, dict], task: str, split: str) -> Path:
    return Path(tested[task]["log_dir"], f"{task}_{split}.json")


def test_a_test_writes_probabilities_by_annotation(tested):
    for task, split, count in (
        ("vcr_qa", "val", 4),
        ("vcr_qa", "test", 3),
        ("vcr_qar", "val", 4),
        ("vcr_qar", "test", 12),
    ):
        entries = json.loads(_file(tested, task, split).read_text())
        assert len(entries) == count
        assert {entry["annot_id"] for entry in entries} == {
            f"{split}-{number}" for number in range(4 - (split == "test"))
        }
        for entry in entries:
            assert sum(entry["probabilities"]) == pytest.approx(1, abs=1e-5)
            assert len(entry["probabilities"]) == 4
            assert ("label" in entry) == (split == "val")
        if task == "vcr_qar":
            labels = [
                json.loads(line)["answer_label"] for line in (RAW / "vcr1annots/val.jsonl").read_text().splitlines()
            ]
            given = [entry["given_answer_index"] for entry in entries]
            assert given == (labels if split == "val" else [0, 1, 2, 3] * 3)


def test_the_two_files_give_joint_accuracies_and_the_file_for_the_leaderboard(tested, tmp_path):
    val = official(["vcr", *(str(_file(tested, task, "val")) for task in TASKS)])
    assert val["Q->A"] == [pytest.approx(100 * tested["vcr_qa"]["vcr_qa/val/accuracy"]), 4]
    assert val["QA->R"] == [pytest.approx(100 * tested["vcr_qar"]["vcr_qar/val/accuracy"]), 4]
    assert val["Q->AR"][0] <= min(val["Q->A"][0], val["QA->R"][0])
    official(["vcr", *(str(_file(tested, task, "test")) for task in TASKS), "--csv", str(tmp_path / "out.csv")])
    header, *rows = csv.reader((tmp_path / "out.csv").open())
    assert header == (RAW / "vcr_submission_12in1.csv").read_text().splitlines()[0].split(",")
    assert [row[0] for row in rows] == ["test-0", "test-1", "test-2"]
    assert {len(row) for row in rows} == {21}


@pytest.mark.parametrize("task", TASKS)
def test_a_batch_links_words_to_their_boxes(options, task):
    (samples,) = build_data(tiny.settings(**options, tasks=[task])).evaluation.values()
    batch = samples[keys(0, 1, 2, 3)]
    text, regions = batch.parts["candidates"].text, batch.parts["regions"]
    assert text.tags.shape == text.ids.shape == (16, text.ids.shape[1])
    assert (text.tags.view(4, -1).amax(1) <= regions.mask.sum(1)).all()
    assert text.tags.any()
    assert torch.equal(batch.parts["answer_index"], batch.parts["candidates"].right)


def test_objects_have_classes_and_outlines_where_the_head_reads_them(options):
    for task in TASKS:
        (samples,) = build_data(tiny.settings(**options, tasks=[task], **OBJECTS[task])).evaluation.values()
        regions = samples[keys(0, 1)].parts["regions"]
        if task == "vcr_qa":
            assert (regions.classes, regions.outlines) == (None, None)
        else:
            assert regions.classes.shape == regions.mask.shape
            assert regions.outlines.shape == (*regions.mask.shape, 14, 14)
            assert regions.outlines.any(dim=(2, 3)).all()
            assert not regions.outlines[regions.mask].all()


def test_a_mirrored_image_exchanges_left_and_right_in_question_and_choices_and_mirrors_boxes(options):
    samples = build_data(tiny.settings(**options, tasks=["vcr_qa"])).train
    encoder, seen = samples.preparation.encoder, set()
    left, right = (encoder(side).ids[1] for side in ("left", "right"))
    (row,) = (row for row in samples.sources[0].batches() if row[0] == 0)
    stored = torch.tensor(row[1].column("boxes")[0].as_py())
    for epoch in range(12):
        batch = samples[keys(0, epoch=epoch)]  # No , P is on the right | ... | ... left | ... left
        text, boxes = batch.parts["candidates"].text, batch.parts["regions"].boxes[0]
        sides = [(left in ids, right in ids) for ids in text.ids.tolist()]
        mirrored = not torch.allclose(boxes, stored.float() * 32 / 80, atol=0.5)
        seen.add(mirrored)
        assert sides == [(mirrored, not mirrored), (False, False), *[(not mirrored, mirrored)] * 2]
        assert text.tags.any()
    assert seen == {True, False}


def test_choose_gives_the_probabilities_that_the_test_wrote(tested, trained):
    entry = json.loads((RAW / "vcr1annots/val.jsonl").read_text().splitlines()[2])
    metadata = json.loads((RAW / "vcr1images" / entry["metadata_fn"]).read_text())
    row = _row("val", "val-2")
    image = RAW / "vcr1images" / entry["img_fn"]
    boxes = {name: box[:4] for name, box in zip(row["names"], metadata["boxes"], strict=True)}
    entries = json.loads(_file(tested, "vcr_qa", "val").read_text())
    (written,) = (one["probabilities"] for one in entries if one["annot_id"] == "val-2")
    model, options = vlc.Model.from_checkpoint(trained["vcr_qa"], num_gpus=0), row["answers"]
    answer = model.choose(image, row["question"], options, boxes=boxes)
    assert sorted(value for _, value in answer.choices) == pytest.approx(sorted(written), abs=1e-4)
    with pytest.raises(UserError, match="should be left, top, right and bottom"):
        model.choose(image, row["question"], options, boxes={"Pat": (3, 4, 1, 9)})


def _predicted(path: str, out: Path, **values) -> list[dict]:
    """Rows of predict over data sets."""
    predict(*resolve_use(load_path=path, num_gpus=0, num_workers=0, out=str(out), **values))
    return [json.loads(line) for line in (out / "answers-00000.jsonl").read_text().splitlines()]


def test_predict_over_data_has_the_records_of_the_test_and_the_evaluator_reads_them(options, tested, trained, tmp_path):
    data = {"data_root": options["data_root"]}
    for split in ("val", "test"):
        for task in TASKS:
            rows = _predicted(trained[task], tmp_path / split / task, **data, datasets=[task], splits=[split])
            written = json.loads(_file(tested, task, split).read_text())
            assert len(rows) == len(written)
            for row, entry in zip(rows, written, strict=True):
                assert row["record"].pop("probabilities") == pytest.approx(entry.pop("probabilities"), abs=1e-5)
                assert row["record"] == entry
                assert len(row["answers"]) == 4
    folders = [str(tmp_path / "val" / task) for task in TASKS]
    files = [str(_file(tested, task, "val")) for task in TASKS]
    assert official(["vcr", *folders]) == official(["vcr", *files])
    with pytest.raises(UserError, match=r"holds no answers-NNNNN\.jsonl"):
        official(["vcr", str(tmp_path), folders[1]])


@pytest.fixture(scope="module")
def models(trained) -> dict[str, vlc.Model]:
    return {task: vlc.Model.from_checkpoint(trained[task], num_gpus=0) for task in TASKS}


def _asked(split: str = "val", number: int = 2) -> dict:
    """What a command line says about an image with its objects."""
    entry = json.loads((RAW / f"vcr1annots/{split}.jsonl").read_text().splitlines()[number])
    metadata = json.loads((RAW / "vcr1images" / entry["metadata_fn"]).read_text())
    boxes = [edge for box in metadata["boxes"] for edge in box[:4]]
    image = str(RAW / "vcr1images" / entry["img_fn"])
    return {"image": image, "boxes": boxes, "box_names": entry["objects"]}


def test_the_command_line_names_objects_by_number_and_answers_as_choose_does(trained, models):
    known = _asked("train", 0) | {
        "text": "is [0] near [1, 2] ?",
        "options": ["yes , [0]", "[3] is left", "no"],
        "answer": "on [1]",
    }
    (record,) = predict(*resolve_use(load_path=trained["vcr_qar"], num_gpus=0, **known))
    boxes = [known["boxes"][first : first + 4] for first in range(0, len(known["boxes"]), 4)]
    shown = models["vcr_qar"].choose(
        known["image"], known["text"], known["options"], answer="on [1]", boxes=boxes, box_names=known["box_names"]
    )
    assert {name for name, _ in record["answers"]} == set(known["options"])
    assert record["answers"] == shown.choices


def test_numbers_become_names_whose_tokens_have_the_tags_of_boxes(models):
    model, boxes = models["vcr_qa"], [(1, 1, 20, 20), (5, 5, 30, 30), (9, 9, 40, 40)]
    request = Request([_asked()["image"]], "is [2]'s dog by [0, 1]", options=["[1]"], boxes=boxes)
    request = replace(request, box_names=["person", "dog", "person"])
    first, _, second = called_by("", request.box_names)
    (tokens,) = model.prepare("vcr_qa", request).tokens
    text = f"is {second} 's dog by {first} and dog"
    words = [(text, [0, 3, 0, 0, 0, 1, 0, 2]), ("dog", [2])]
    assert tokens == model.tokens.composed([Words(*words[0][:1], 0, words[0][1]), Words("dog", 1, [2])], ())
    by_name = replace(request, boxes=None, named_boxes=dict(zip(("a", "dog", "c"), boxes, strict=True)))
    (tokens,) = model.prepare("vcr_qa", by_name).tokens
    tags = [0, 3, 0, 2, 0, 1, 0, 2]
    assert tokens == model.tokens.composed([Words("is c 's dog by a and dog", 0, tags), Words("dog", 1, [2])], ())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "is [5] red"}, r"text: a text holds \[5\], expected a word or numbers of its 1 objects"),
        ({"options": ["[1]", "no"]}, r"options: a text holds \[1\]"),
        ({"boxes": None}, "numbers of its 0 objects"),
        ({"box_names": []}, "box_names names 0 of 1 boxes"),
        ({"boxes": [(90, 90, 99, 99)]}, "is no box in a picture of 80x80 pixels"),
    ],
)
def test_wrong_references_are_refused(models, values, message):
    known = {"text": "what is [0]", "options": ["a [0]", "no"], "boxes": [(1, 1, 20, 20)], "box_names": ["dog"]}
    with pytest.raises(UserError, match=message):
        models["vcr_qa"].prepare("vcr_qa", Request([_asked("train", 0)["image"]], **known | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"box_names": ["dog", "cat"]}, "box_names=.*expected a name for each of boxes"),
        ({"options": None}, "box_names=.* belongs to options="),
        ({"options": None, "box_names": None, "answer": "no"}, "answer=.* belongs to options="),
    ],
)
def test_keys_that_need_others_are_refused(values, message):
    config, _ = resolve_use(load_path="x")
    known = {"text": "what is [0]", "options": ["a [0]", "no"], "boxes": [1, 1, 20, 20], "box_names": ["dog"], **values}
    with pytest.raises(UserError, match=message):
        UseSettings.from_config(config | known)


def _row(split: str, number: str) -> dict:
    """The texts of a question as they are written."""
    lines = map(json.loads, (RAW / f"vcr1annots/{split}.jsonl").read_text().splitlines())
    entry = next(line for line in lines if line["annot_id"] == number)
    names = called_by(number, entry["objects"])
    tags = range(1, 1 + len(names))
    texts = {
        key: [rendered(text, names, tags)[0] for text in entry[f"{key[:-1]}_choices"]]
        for key in ("answers", "rationales")
    }
    return {"names": names, "question": rendered(entry["question"], names, tags)[0]} | texts
