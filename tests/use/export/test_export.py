"""export: what other programs compute with the files is what the model answers, and what cannot be exported is said."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.model.sizes import ENCODERS
from vlc.use.export import answer, graphs
from vlc.use.export.command import export
from vlc.use.model import Model

TRAINED = {
    "captions": ("task_mlm_itm_mae", {"loss_names": loss_weights(mlm=1, itm=1, itc=1)}),
    "pairs": ("task_12in1", {"tasks": ["nlvr2", "refcoco"], "nlvr2.batch_size": 4, "refcoco.batch_size": 4}),
    "shaped": ("task_finetune_vqa_mae_randaug", {"vqav2_label_size": 3, "vit": "small_vilt", "image_size": 64}),
}
TRAINED["pairs"][1].update({"multitask.task_tokens": True, "clean.exclude": "none"})


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> Iterator[dict[str, str]]:
    """A checkpoint with the heads of captions, one with task tokens, one whose images have several shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "small_vit", tiny.SMALL)
        patch.setitem(ENCODERS, "small_vilt", tiny.SMALL_VILT)
        trained = {name: (recipe, {"vit": "small_vit", **values}) for name, (recipe, values) in TRAINED.items()}
        yield tiny.checkpoints(arrows, tmp_path_factory.mktemp("trained"), trained)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Pictures of several shapes, without loss."""
    folder, shapes = tmp_path_factory.mktemp("files"), [(40, 30), (64, 64), (30, 90)]
    for number, shape in enumerate(shapes):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, shape, "PNG"))
    return [str(folder / f"{number}.png") for number in range(len(shapes))]


def _export(checkpoint: str, out: Path, **values) -> Path:
    return export(*resolve_use(load_path=checkpoint, out=str(out), **values))


def _said(checkpoint: str, files: list[str], text: str) -> dict[str, dict[str, float]]:
    """The values of the answers by head, as the model gives them."""
    answers = Model.from_checkpoint(checkpoint, num_gpus=0).answer(files, text)
    return {one.head: dict(one.choices) for one in answers}


def _compare(folder: Path, checkpoint: str, files: list[str], text: str, most: float) -> set[str]:
    """Compare the script's answers with the model's; returns the heads that it has."""
    expected = _said(checkpoint, files, text)
    records = answer.answers(folder, files, text)
    for record in records:
        own = expected[record["task"]]
        assert len(record["answers"]) == len(own)
        assert dict(map(tuple, record["answers"])) == pytest.approx(own, abs=most)
    return {record["task"] for record in records}


def test_onnx_files_answer_as_the_model(trained, files, tmp_path, capsys):
    folder = _export(trained["captions"], tmp_path / "out")
    assert "left out: mlm" in capsys.readouterr().out
    names = {"itm.onnx", "itc_image.onnx", "itc_text.onnx", "labels.json", "preprocessing.json", "tokenizer.json"}
    assert {path.name for path in folder.iterdir()} == {*names, "answer.py"}
    long = " ".join(["a dog and a tree"] * 9)  # longer than the model reads
    for text in ("a red house", long):
        assert _compare(folder, trained["captions"], files[:1], text, 1e-4) == {"itm", "itc"}
    about = onnxruntime.InferenceSession(folder / "itm.onnx").get_modelmeta().custom_metadata_map
    assert (about["head"], about["inputs"], about["max_text_len"]) == ("itm", "ids,mask,image", "16")


def test_batches_and_padding_do_not_matter(trained, tmp_path):
    folder = _export(trained["captions"], tmp_path / "out", loss_names=loss_weights(itc=1))
    session = onnxruntime.InferenceSession(folder / "itc_text.onnx")
    model = Model.from_checkpoint(trained["captions"], num_gpus=0)
    texts = ["a dog", "the red house is left of the tree", "two"]
    padded = model.text(texts)
    (vectors,) = session.run(None, {"ids": padded.ids.numpy(), "mask": padded.mask.numpy()})
    np.testing.assert_allclose(vectors, model.embed(texts=texts), atol=1e-5)


def test_programs_have_task_tokens_and_two_images(trained, files, tmp_path, capsys):
    folder = _export(trained["pairs"], tmp_path / "out", file_format="program")
    assert "left out: refer, as" in capsys.readouterr().out
    about = {"vlc.json": ""}
    program = torch.export.load(folder / "nlvr2.pt2", extra_files=about).module()
    assert json.loads(about["vlc.json"])["inputs"] == "ids,mask,image,image_2"
    model = Model.from_checkpoint(trained["pairs"], num_gpus=0)
    labels = json.loads((folder / "labels.json").read_text())["nlvr2"]
    for texts in (["a dog"], ["a dog", "two cats sit there", "the tree"]):
        text, pixels = (
            model.text(texts),
            model.stacked([[model.prepared(path) for path in files[:2]]] * len(texts)).pixels,
        )
        values = program(text.ids, text.mask, pixels[:, 0], pixels[:, 1])
        for one in model.answer(files[:2], texts):
            found = dict(zip(labels, values[one.example].tolist(), strict=True))
            assert dict(one.choices) == pytest.approx(found, abs=1e-5)


def test_int8_and_images_of_any_shape(trained, files, tmp_path):
    graph = graphs.graphs_of(Model.from_checkpoint(trained["shaped"], num_gpus=0))[0][0]
    assert graph.inputs == ("ids", "mask", "image", "size")
    folder = _export(trained["shaped"], tmp_path / "out", file_format="int8")
    for path in files:
        assert _compare(folder, trained["shaped"], [path], "a red house", 0.02) == {"vqa"}


def test_the_script_needs_neither_torch_nor_this_package(monkeypatch, capsys):
    tree = ast.parse(Path(answer.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL", "tokenizers"}
    assert answer.printable("a\x1b[2J\u202eb") == r"a\x1b[2J\u202eb"


@pytest.mark.parametrize("pipeline", answer.PIPELINES)
@pytest.mark.parametrize("shape", [(40, 30), (30, 90), (200, 150)])
def test_pictures_are_prepared_as_ours(pipeline, shape, tmp_path):
    from vlc.data.images import open_image
    from vlc.data.transforms import transform

    (tmp_path / "a.png").write_bytes(content := tiny.image_bytes(3, shape, "PNG"))
    about = {"pipeline": pipeline, "image_size": 64, "mean": [0.0] * 3, "std": [1.0] * 3}
    pixels, size = answer.preparation(about)(str(tmp_path / "a.png"))
    ours = transform(pipeline, 64)(open_image(content), np.random.default_rng(0)).pixels
    assert pixels.shape == ours.shape
    assert size == pixels.shape[1:]
    np.testing.assert_allclose(pixels * 255, ours, atol=1e-3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out": ""}, "out=FOLDER is missing"),
        ({"out": "tests"}, "out=tests exists already"),
        ({"file_format": "h5"}, "file_format='h5' is not valid: expected onnx or int8 or program or folder"),
        ({"loss_names": loss_weights(mlm=1)}, r"has no head that can be exported as a graph \(mlm: MLM has"),
    ],
)
def test_mistakes_are_named(trained, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        export(*resolve_use(**{"load_path": trained["captions"], "out": str(tmp_path / "out"), **values}))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("missing", "file_format"), [("onnx", "onnx"), ("onnxruntime.quantization", "int8")])
def test_a_missing_package_is_named(trained, tmp_path, monkeypatch, missing, file_format):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'pip install "vlc\[onnx\]"'):
        _export(trained["captions"], tmp_path / "out", file_format=file_format)
    assert not list(tmp_path.iterdir())
