"""export: what other programs compute with the files is what the model answers, and what cannot be exported is said."""

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.data.images import open_image
from vlc.data.tokens import TextEncoder, load_tokenizer
from vlc.data.transforms import transform
from vlc.data.vocabulary import Vocabulary
from vlc.hardware.onednn import use_onednn
from vlc.model.sizes import ENCODERS
from vlc.training.module import module_of
from vlc.use.export import answer, int8
from vlc.use.export.command import export, new_folder
from vlc.use.export.graphs import graphs_of
from vlc.use.export.onnx import write_onnx
from vlc.use.export.program import write_programs
from vlc.use.model import Model

ANSWERS = ("yes", "no", "two")


def _model(recipe: str, vit: str, **values: Any) -> Model:
    """A model with random weights."""
    settings = tiny.settings(recipe, vit=vit, **values)
    tokenizer = load_tokenizer("emoji")
    options = {"num_images": 2 if "nlvr2" in recipe else 1, "vocabularies": {"vqa": Vocabulary(ANSWERS)}}
    module = module_of(settings, tokenizer, None, **options).eval()
    encoder, images = TextEncoder(tokenizer, settings.data.max_text_len), settings.model.size.preprocessing
    return Model(settings, module, encoder, torch.device("cpu"), images["pipeline"], images["pixels"])


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """Pictures of several shapes, without loss."""
    folder, shapes = tmp_path_factory.mktemp("files"), [(40, 30), (64, 64), (30, 90)]
    for number, shape in enumerate(shapes):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, shape, "PNG"))
    return [str(folder / f"{number}.png") for number in range(len(shapes))]


@pytest.fixture(scope="module")
def shaped() -> Iterator[Model]:
    """A model that answers questions about images of several shapes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "small_vilt", tiny.SMALL_VILT)
        yield _model("task_finetune_vqa_mae_randaug", "small_vilt", image_size=64, vqav2_label_size=len(ANSWERS))


@pytest.fixture(scope="module")
def exported(shaped, tmp_path_factory) -> Path:
    """Its ONNX files."""
    folder = tmp_path_factory.mktemp("onnx")
    write_onnx(shaped, folder)
    return folder


def _compare(folder: Path, model: Model, files: list[str], text: str, most: float) -> None:
    """Compare the script's answers with the model's."""
    (expected,) = model.answer(files, text)
    (record,) = answer.answers(folder, files, text)
    assert (record["task"], record["unit"]) == (expected.head, expected.unit)
    assert dict(map(tuple, record["answers"])) == pytest.approx(dict(expected.choices), abs=most)


def test_onnx_files_answer_as_the_model(shaped, exported, files):
    names = {"vqa.onnx", "answer.py", "labels.json", "preprocessing.json", "tokenizer.json"}
    assert {path.name for path in exported.iterdir()} == names
    for path in files:
        _compare(exported, shaped, [path], "a red house", 1e-5)
    _compare(exported, shaped, files[:1], " ".join(["a dog and a tree"] * 9), 1e-5)  # longer than the model reads
    about = onnxruntime.InferenceSession(exported / "vqa.onnx").get_modelmeta().custom_metadata_map
    assert (about["head"], about["inputs"], about["max_text_len"]) == ("vqa", "ids,mask,image,size", "16")


def test_int8_is_smaller_and_near(shaped, exported, files, tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "write_graph", lambda graph, path: copyfile(exported / f"{graph.name}.onnx", path))
    int8.write_int8(shaped, tmp_path)
    for path in files:
        _compare(tmp_path, shaped, [path], "a red house", 0.02)
    assert 0 < (tmp_path / "vqa.onnx").stat().st_size < (exported / "vqa.onnx").stat().st_size
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_programs_take_any_number_of_texts(small_vit, files, tmp_path):
    model = _model("task_mlm_itm_mae", small_vit, loss_names=loss_weights(itm=1))
    write_programs(model, tmp_path)
    about = {"vlc.json": ""}
    program = torch.export.load(tmp_path / "itm.pt2", extra_files=about).module()
    assert json.loads(about["vlc.json"])["inputs"] == "ids,mask,image"
    assert json.loads((tmp_path / "labels.json").read_text()) == {"itm": ["match"]}
    for texts in (["a dog"], ["a dog", "two cats sit there", "the tree"]):
        text, images = model.text(texts), [[model.prepared(files[0])]] * len(texts)
        values = program(text.ids, text.mask, model.stacked(images).pixels[:, 0])
        said = [dict(one.choices)["match"] for one in model.answer(files[0], texts)]
        assert said == pytest.approx(values[:, 0].tolist(), abs=1e-5)


def test_which_heads_have_graphs(small_vit):
    model = _model("task_mlm_itm_mae", small_vit, loss_names=loss_weights(mlm=1, itm=1, itc=1))
    found, left_out = graphs_of(model)
    assert {graph.name: graph.inputs for graph in found} == {
        "itm": ("ids", "mask", "image"),
        "itc_image": ("image",),
        "itc_text": ("ids", "mask"),
    }
    assert set(left_out) == {"mlm"}
    ids, mask = torch.randint(5, 50, (2, 2, 9))[0], torch.ones(2, 9, dtype=torch.int64)
    (vectors,) = (graph(ids, mask) for graph in found if graph.name == "itc_text")
    assert vectors.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)
    with pytest.raises(UserError, match=r"has no head that can be exported as a graph \(mlm: MLM has"):
        graphs_of(_model("task_mlm_itm_mae", small_vit, loss_names=loss_weights(mlm=1)))


def test_layers_of_onednn_become_those_of_torch(small_vit):
    model = _model("task_finetune_nlvr2_mae_randaug", small_vit)
    before = {name: type(part) for name, part in model.module.named_modules()}
    use_onednn(model.module)
    assert {name: type(part) for name, part in model.module.named_modules()} != before
    graphs_of(model)
    assert {name: type(part) for name, part in model.module.named_modules()} == before


def test_the_script_needs_neither_torch_nor_this_package():
    tree = ast.parse(Path(answer.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported - sys.stdlib_module_names == {"numpy", "onnxruntime", "PIL", "tokenizers"}
    assert answer.printable("a\x1b[2J\u202eb") == r"a\x1b[2J\u202eb"


@pytest.mark.parametrize("pipeline", answer.PIPELINES)
@pytest.mark.parametrize("shape", [(40, 30), (30, 90), (200, 150)])
def test_pictures_are_prepared_as_ours(pipeline, shape, tmp_path):
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
        ({"load_path": ""}, "load_path=CHECKPOINT is missing"),
    ],
)
def test_mistakes_are_named(tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        export(*resolve_use(**{"load_path": "a.ckpt", "out": str(tmp_path / "out"), **values}))
    assert not (tmp_path / "out").exists()


def test_a_folder_appears_when_it_is_complete(tmp_path):
    def broken() -> None:
        with new_folder(tmp_path / "out") as folder:
            (folder / "a").touch()
            raise UserError("broken")

    with pytest.raises(UserError, match="broken"):
        broken()
    assert not list(tmp_path.iterdir())
    with new_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("missing", "write"), [("onnx", write_onnx), ("onnxruntime.quantization", int8.write_int8)], ids=["onnx", "int8"]
)
def test_a_missing_package_is_named(shaped, tmp_path, monkeypatch, missing, write):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=r'pip install -e ".\[onnx\]"'):
        write(shaped, tmp_path)
    assert not list(tmp_path.iterdir())
