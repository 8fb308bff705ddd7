"""index and search: what is found is what comparing everything finds, and where it lies is told."""

import errno
import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests import tiny
from tests.ranked import matrix
from tests.warm import command
from vlc.common.errors import ChangedFile, DamagedIndex, MissingFile, NonFiniteMetric, UnwritableFile, UserError
from vlc.configuration.config import resolve_use
from vlc.configuration.recipes import loss_weights
from vlc.configuration.settings import Settings
from vlc.configuration.use_settings import without_use_keys
from vlc.data.corpus import Corpus
from vlc.data.rows import Location
from vlc.evaluation.scorer import Scorer
from vlc.training.run import build_data, build_module, run
from vlc.use import shards
from vlc.use.model import Model
from vlc.use.predict import predict
from vlc.use.search import build_index, search
from vlc.use.search.stored import _PLACES, _SCHEMAS, fingerprint
from vlc.use.shards import Process
from write_arrow.machine.shards import ARROW

VIT = "mae_vit_tiny_patch16"
CAPTIONS = "task_finetune_irtr_coco_mae_randaug"
TEST = "coco_caption_karpathy_test.arrow"


def _train(arrows: Path, folder: Path, **losses: float) -> str:
    options = {"data_root": str(arrows), "log_dir": str(folder), "vit": VIT, "draw_false_text": 2}
    metrics = run(tiny.settings(CAPTIONS, **options, loss_names=loss_weights(**losses)))
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> str:
    return _train(arrows, tmp_path_factory.mktemp("trained"), irtr=1, itc=1)


@pytest.fixture(scope="module")
def index(trained, arrows, tmp_path_factory) -> str:
    """The test split's images and texts."""
    folder = str(tmp_path_factory.mktemp("index") / "coco")
    assert _index(trained, arrows, folder) == {"images": tiny.ROWS, "texts": tiny.ROWS * tiny.TEXTS}
    return folder


def _index(
    checkpoint: str, arrows: Path | str, folder: str, process: Process | None = None, **values
) -> dict[str, int]:
    values = {"data_root": str(arrows), "datasets": ["coco"], "splits": ["test"], **values}
    values |= {"num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 4, "load_path": checkpoint, "index": folder}
    return build_index(*resolve_use(**values), process)


def _search(checkpoint: str, folder: str, **values) -> list[dict]:
    values = {"num_gpus": 0, "load_path": checkpoint, "index": folder, **values}
    return search(*resolve_use(**values))


@pytest.fixture(scope="module")
def scorer(trained, arrows) -> Scorer:
    """What evaluation makes of the same split."""
    options = {"data_root": str(arrows), "vit": VIT, "draw_false_text": 2, "test_only": True, "load_path": trained}
    settings = tiny.settings(CAPTIONS, **options, loss_names=loss_weights(irtr=1, itc=1))
    data = build_data(settings)
    module = build_module(settings, data).eval()
    heads = {"score": module.objectives["irtr"].score, "itc": module.objectives["itc"]}
    return Scorer(module.encoder, Corpus(data.evaluation["test"]), torch.device("cpu"), **heads)


def _texts(arrows: Path) -> list[list[str]]:
    return pa.ipc.open_file(str(arrows / TEST)).read_all()["caption"].to_pylist()


@pytest.mark.parametrize("rerank_k", [None, 128])
def test_a_text_finds_the_images_that_evaluation_ranks_first(trained, arrows, index, scorer, rerank_k):
    texts = _texts(arrows)
    expected = matrix(scorer.similarities() if rerank_k is None else scorer.exact())[:, 3]  # of text 1 of row 1
    found = _search(trained, index, query=texts[1][1], num_results=4, rerank_k=rerank_k)
    assert [result["row"] for result in found] == np.argsort(-expected)[:4].tolist()
    np.testing.assert_allclose([result["score"] for result in found], np.sort(expected)[::-1][:4], atol=1e-5)
    for result in found:
        assert (result["source"], result["dataset"]) == (str((arrows / TEST).resolve()), "coco")
        assert result["text"] == texts[result["row"]][0]


@pytest.mark.parametrize("rerank_k", [None, 128])
def test_an_image_finds_the_texts_that_evaluation_ranks_first(trained, arrows, index, scorer, tmp_path, rerank_k):
    table = pa.ipc.open_file(str(arrows / TEST)).read_all()
    (tmp_path / "image.jpg").write_bytes(table["image"][2].as_py())
    expected = matrix(scorer.similarities() if rerank_k is None else scorer.exact())[2]
    found = _search(trained, index, image=str(tmp_path / "image.jpg"), rerank_k=rerank_k, num_results=5)
    np.testing.assert_allclose([result["score"] for result in found], np.sort(expected)[::-1][:5], atol=1e-5)
    texts = [text for row in _texts(arrows) for text in row]
    assert [result["text"] for result in found] == [texts[number] for number in np.argsort(-expected)[:5]]


def test_only_the_nearest_are_ranked_again(trained, arrows, index, scorer):
    near = matrix(scorer.similarities())[:, 0]
    found = _search(trained, index, query=_texts(arrows)[0][0], rerank_k=2, num_results=2)
    assert {result["row"] for result in found} == set(np.argsort(-near)[:2].tolist())


def test_a_folder_of_images(trained, tmp_path):
    folder = tmp_path / "images" / "deeper"
    folder.mkdir(parents=True)
    for number in range(5):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, kind="PNG"))
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image either")
    made = str(tmp_path / "index")
    with pytest.warns(UserWarning, match=r"cannot be decoded: .*broken\.jpg"):
        assert _index(trained, "", made, image_folder=str(tmp_path / "images")) == {"images": 5}
    found = _search(trained, made, query="a dog", out=str(tmp_path / "out.json"))
    assert {Path(result["source"]).name for result in found} == {f"{number}.png" for number in range(5)}
    assert json.loads((tmp_path / "out.json").read_text()) == found
    with pytest.raises(UserError, match="holds no texts"):
        _search(trained, made, image=str(folder / "0.png"))
    shutil.rmtree(folder)
    with pytest.raises(MissingFile, match=r"\.png, where an image .* rerank_k=None searches without"):
        _search(trained, made, query="a dog")
    assert len(_search(trained, made, query="a dog", rerank_k=None)) == 5


def test_too_many_broken_images_stop_the_building_and_leave_nothing(trained, tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        (tmp_path / f"images/{number}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match="3 of 3 images cannot be decoded, more than the share max_corrupt_ratio=0.01"):
        _index(trained, "", str(tmp_path / "index"), image_folder=str(tmp_path / "images"))
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_an_index_is_replaced_only_by_a_whole_one(trained, arrows, index, tmp_path, monkeypatch):
    folder = str(shutil.copytree(index, tmp_path / "index"))
    monkeypatch.setattr("vlc.use.search.building._embedded_texts", lambda *_: (1 / 0 for _ in [0]))
    with pytest.raises(ZeroDivisionError):
        _index(trained, arrows, folder)
    monkeypatch.undo()
    assert len(_search(trained, folder, query="a dog", rerank_k=None)) == tiny.ROWS
    with pytest.raises(
        UserError, match=r"unfinished work that differs: splits is \['val', 'test'\] and was \['test'\]"
    ):
        _index(trained, arrows, folder, splits=["val", "test"])
    assert _index(trained, arrows, folder)["images"] == tiny.ROWS, "the images were embedded before"
    assert _index(trained, arrows, folder, splits=["val", "test"])["images"] == 2 * tiny.ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_disk_that_becomes_full_is_named(trained, arrows, index, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.EFBIG, "File too large")
        yield

    folder = str(shutil.copytree(index, tmp_path / "index"))
    monkeypatch.setattr("vlc.use.search.building._embedded_texts", full)
    with pytest.raises(UnwritableFile, match=f"index={folder} could not be written: File too large"):
        _index(trained, arrows, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_a_moved_index_is_read(trained, index, tmp_path):
    moved = shutil.copytree(index, tmp_path / "elsewhere")
    assert len(_search(trained, str(moved), query="a dog", rerank_k=None)) == tiny.ROWS


def test_rows_without_captions_are_images_all_the_same(trained, arrows, tmp_path):
    columns = pa.ipc.open_file(str(arrows / TEST)).read_all().to_pydict()
    columns["caption"][1] = []
    tiny.write_table(tmp_path / "data" / TEST, columns)
    counts = _index(trained, tmp_path / "data", str(tmp_path / "index"))
    assert counts == {"images": tiny.ROWS, "texts": (tiny.ROWS - 1) * tiny.TEXTS}
    found = _search(trained, str(tmp_path / "index"), query="a dog", rerank_k=None)
    assert [result["text"] for result in found if result["row"] == 1] == [None]


@pytest.fixture
def opened(trained, monkeypatch) -> None:
    """Opens the checkpoint once for many searches."""
    model = Model.from_checkpoint(trained, num_gpus=0, rerank_k=None)
    mark = fingerprint(model)
    for module in ("building", "searching"):
        monkeypatch.setattr(f"vlc.use.search.{module}.fingerprint", lambda _: mark)

    def reopened(config, given):
        asked = Settings.from_config(without_use_keys(config) | {"per_gpu_batchsize": 4})
        data = {key: getattr(asked.data, key) for key in ("data_root", "datasets", "splits", "num_workers")}
        settings = replace(model.settings, run=asked.run, data=replace(model.settings.data, **data))
        return replace(model, settings=settings)

    for module in ("building", "searching"):
        monkeypatch.setattr(f"vlc.use.search.{module}.open_pretrained", reopened)


def _flipped(content: bytes, rng: np.random.Generator, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << rng.integers(8)]) + content[place + 1 :]


DAMAGES = {
    "bit": _flipped,
    "zeros": lambda content, rng, place: (content[:place] + bytes(512))[: len(content)] + content[place + 512 :],
    "noise": lambda content, rng, place: content[:place] + rng.bytes(64) + content[place + 64 :],
    "cut": lambda content, rng, place: content[:place],
    "more": lambda content, rng, place: content + rng.bytes(place),
    "empty": lambda content, rng, place: b"",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_refused_with_the_command_that_makes_it_anew(
    trained, arrows, index, tmp_path, opened, damage
):
    folder = Path(shutil.copytree(index, tmp_path / "index"))
    (tmp_path / "image.png").write_bytes(tiny.image_bytes(kind="PNG"))
    questions = ({"query": "a dog", "num_results": 100}, {"image": str(tmp_path / "image.png"), "num_results": 100})
    sound = [_search(trained, str(folder), rerank_k=None, **question) for question in questions]
    rng, messages = np.random.default_rng(0), []
    for number in range(60):
        path = sorted(folder.iterdir())[number % 5]
        content = path.read_bytes()
        path.unlink()  # what is mapped stays as it is
        path.write_bytes(DAMAGES[damage](content, rng, int(rng.integers(len(content)))))
        for question, before in zip(questions, sound, strict=True):
            try:
                assert _search(trained, str(folder), rerank_k=None, **question) == before
            except DamagedIndex as error:
                messages.append((path.name, str(error)))
        path.unlink()
        path.write_bytes(content)
    assert len(messages) >= 60, "a file of images is not read for texts"
    command = f"python run.py index with load_path={trained} index={folder} "
    for name, message in messages:
        assert command in message
        if name != "index.json":
            assert message.endswith(f"{command}data_root={arrows} 'datasets=[coco]' 'splits=[test]'")


def test_files_of_an_index_belong_together(trained, arrows, index, tmp_path, opened):
    folder = Path(shutil.copytree(index, tmp_path / "index"))
    other = tmp_path / "other"
    _index(trained, arrows, str(other), splits=["val"])
    for name in ("images.0.faiss", "images.arrow", "index.json"):
        content = (folder / name).read_bytes()
        (folder / name).unlink()
        with pytest.raises(DamagedIndex):
            _search(trained, str(folder), query="a dog", rerank_k=None)
        (folder / name).write_bytes((other / name).read_bytes())
        with pytest.raises(DamagedIndex):
            _search(trained, str(folder), query="a dog", rerank_k=None)
        (folder / name).write_bytes(content)
    for content in ("[]", "null", "1", '"a"', "{}", "[" * 100_000, '{"fingerprint": 1}', '{"checksum": "a"}', "\x00"):
        (folder / "index.json").write_text(content)
        with pytest.raises(DamagedIndex, match=r"index\.json.*Make it again: python run\.py index with"):
            _search(trained, str(folder), query="a dog", rerank_k=None)
    (folder / "index.json").unlink()
    assert _index(trained, arrows, str(folder))["images"] == tiny.ROWS, "the command that the message names works"
    assert len(_search(trained, str(folder), query="a dog", rerank_k=None)) == tiny.ROWS


def test_an_index_whose_replacement_was_killed_between_its_renames_is_brought_back(trained, arrows, index, tmp_path):
    for build in (False, True):
        folder = tmp_path / f"index{build}"
        shutil.copytree(index, folder.with_name(f".{folder.name}.old"))
        shutil.copytree(index, folder.with_name(f".{folder.name}.partial"))
        if build:
            _index(trained, arrows, str(folder))
        assert len(_search(trained, str(folder), query="a dog", rerank_k=None)) == tiny.ROWS
    shutil.copytree(index, tmp_path / ".half.partial")
    (tmp_path / ".half.partial" / "index.json").unlink()
    with pytest.raises(MissingFile, match="is no index"):
        _search(trained, str(tmp_path / "half"), query="a dog")


KILLED = """
import os, sys, signal, tests.use.test_search as own
from vlc.use.search import building, stored
step = int(sys.argv[4])
calls = iter(range(100))
def killed(function):
    def call(*arguments, **options):
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return call
places = (stored, "build"), (building, "write_text"), (stored.os, "rename"), (building, "fingerprint")
for place, name in places:
    setattr(place, name, killed(getattr(place, name)))
own._index(sys.argv[1], sys.argv[2], sys.argv[3], splits=["val"])
"""


@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_killed_building_leaves_the_former_index_or_none(trained, arrows, index, tmp_path, step):
    """Kills while the vectors are indexed, before index.json is written, and before each of the renames."""
    folder = tmp_path / "index"
    shutil.copytree(index, folder)
    done = command("-c", KILLED, trained, arrows, folder, str(step))
    if step == 6:
        assert done.returncode == 0, "there is no sixth place"
    else:
        assert done.returncode == -signal.SIGKILL, done.stderr
    found = _search(trained, str(folder), query="a dog", rerank_k=None)
    assert {Path(result["source"]).name for result in found} == {TEST if step < 6 else TEST.replace("test", "val")}


def test_an_interrupted_building_goes_on_with_the_same_bytes(trained, arrows, index, tmp_path, monkeypatch):
    """Of three batches of texts in two shards, the second batch is interrupted; another process does the rest."""
    embed, calls = Model.text_vectors, []

    def counted(model, texts):
        calls.append(len(texts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return embed(model, texts)

    monkeypatch.setattr(shards, "ROWS", 8)
    monkeypatch.setattr(Model, "text_vectors", counted)
    folder = tmp_path / "index"
    with pytest.raises(KeyboardInterrupt):
        _index(trained, arrows, str(folder))
    with pytest.raises(MissingFile, match="is no index"):
        _search(trained, str(folder), query="a dog")
    monkeypatch.setattr(Model, "image_vectors", lambda *_: pytest.fail("images were embedded before"))
    counts = _index(trained, arrows, str(folder), process=Process(1, 2))
    assert counts == {"images": tiny.ROWS, "texts": tiny.ROWS * tiny.TEXTS}
    assert sum(calls) == tiny.ROWS * tiny.TEXTS + 8, "the interrupted shard was computed anew"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in Path(index).iterdir()
    }
    launched = Process(1, 2, (folder / "index.json").stat().st_mtime - 1)
    assert _index(trained, arrows, str(folder), process=launched) == counts, "it comes when all is done"


def test_an_empty_table_is_told(trained, arrows, tmp_path):
    columns = pa.ipc.open_file(str(arrows / TEST)).read_all()
    tiny.write_table(tmp_path / "none" / TEST, columns.slice(0, 0).to_pydict())
    with pa.ipc.new_file(str(tmp_path / "none" / TEST), columns.schema) as writer:
        writer.write_table(columns.slice(0, 0))
    with pytest.raises(UserError, match=r"nothing to index: .* Check data_root=\S+ 'datasets=\[coco\]'"):
        _index(trained, tmp_path / "none", str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_places_that_cannot_be_written_are_told_before_the_work(trained, index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("vlc.use.search.searching.open_index", lambda *_: pytest.fail("work was done"))
    monkeypatch.setattr("vlc.use.search.building.appearing_whole", lambda *_: pytest.fail("work was done"))
    for out, reason in ((tmp_path, "is a folder"), (tmp_path / "file" / "out.json", "Not a directory")):
        with pytest.raises(UserError, match=rf"out={out} .*{reason}"):
            _search(trained, index, query="a dog", out=str(out))
    with pytest.raises(UserError, match=r"index=.* cannot be written: Not a directory"):
        _index(trained, "", str(tmp_path / "file" / "index"), image_folder=str(tmp_path))


def test_index_and_checkpoint_belong_together(trained, arrows, index, tmp_path):
    other = _train(arrows, tmp_path, itc=1)
    with pytest.raises(
        UserError, match=rf"was made by {Path(trained).resolve()} at image_size=32, whose weights are not"
    ):
        _search(other, index, query="a dog")
    with pytest.raises(UserError, match=r"the weights of load_path=.* at image_size=48"):
        _search(trained, index, query="a dog", image_size=48)


def test_a_checkpoint_without_embeddings_is_refused(arrows, tmp_path, index):
    other = _train(arrows, tmp_path, irtr=1)
    for use in (lambda: _index(other, arrows, str(tmp_path / "index")), lambda: _search(other, index, query="a dog")):
        with pytest.raises(UserError, match=r"has the heads irtr, but none of objective itc.*loss_names\.itc=1"):
            use()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "search needs query"),
        ({"query": "a dog", "image": "a.jpg"}, "and not both"),
        ({"query": "a dog", "index": None}, "index=None is no index: make one with"),
        ({"query": "a dog", "num_results": 0}, "num_results=0 is not valid"),
        ({"query": "a dog", "rerank_k": 0}, "rerank_k=0 is not valid: expected a number above 0, or None"),
        ({"query": 2024}, "expected a text, or None; for the text 2024 write 'query=\"2024\"'"),
        ({"query": " "}, "search needs query"),
        ({"image": "tests"}, "Image tests is a folder: name a file"),
        ({"image": "nowhere.jpg"}, "Image nowhere.jpg does not exist"),
    ],
)
def test_searches_that_make_no_sense(trained, index, values, message):
    with pytest.raises(UserError, match=message):
        _search(trained, values.pop("index", index), **values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"index": ""}, "index=FOLDER is missing"),
        ({"datasets": ["nlvr2"], "splits": None}, "'nlvr2' has pairs of images"),
        ({"splits": ["tset"]}, r"splits=\('tset',\) is not valid: expected names out of train, val, test"),
        ({"image_folder": "nowhere"}, "image_folder=nowhere is not a folder"),
    ],
)
def test_indexes_that_make_no_sense(trained, arrows, tmp_path, values, message):
    with pytest.raises(UserError, match=message):
        _index(trained, arrows, values.pop("index", str(tmp_path / "index")), **values)


def test_other_folders_are_left_alone(trained, arrows, tmp_path):
    (tmp_path / "precious").write_text("content")
    with pytest.raises(UserError, match="exists and is no index"):
        _index(trained, arrows, str(tmp_path))
    assert (tmp_path / "precious").exists()


def test_a_missing_library_is_told_before_anything_is_embedded(trained, arrows, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match="faiss, which is not installed"):
        _index(trained, arrows, str(tmp_path / "index"))


def test_embeddings_without_another_head_are_not_ranked_again(arrows, tmp_path):
    other = _train(arrows, tmp_path, itc=1)
    _index(other, arrows, str(tmp_path / "index"))
    (best, *_) = _search(other, str(tmp_path / "index"), query="a dog")
    table = pa.ipc.open_file(best["source"]).read_all()
    (tmp_path / "best.jpg").write_bytes(table["image"][best["row"]].as_py())
    asked = {"image": str(tmp_path / "best.jpg"), "text": "a dog", "num_gpus": 0, "load_path": other}
    (record,) = predict(*resolve_use(**asked))
    assert record["answers"][0][1] == pytest.approx(best["score"], abs=1e-5), "the similarity that predict tells"


@pytest.fixture
def indexed(trained, arrows, tmp_path):
    """(name of the writer: "ours" or another) -> the data file, and the index made from it."""

    def make(writer: str) -> tuple[Path, str]:
        columns = pa.ipc.open_file(str(arrows / TEST)).read_all()
        path, folder = tmp_path / "data" / TEST, str(tmp_path / "index")
        _write(path, columns, writer)
        _index(trained, path.parent, folder)
        return path, folder

    return make


def _write(path: Path, columns: pa.Table, writer: str) -> None:
    """In place of what is there, at the same time of change."""
    path.parent.mkdir(exist_ok=True)
    with (
        open(path, "wb") as file,
        ARROW.open(file, columns.schema, None) if writer == "ours" else pa.ipc.new_file(file, columns.schema) as to,
    ):
        for batch in columns.to_batches():
            to.write_batch(batch)
    os.utime(path, (1, 1))


@pytest.mark.parametrize(
    ("writer", "difference"),
    [("ours", "its checksum is another"), ("another", "it was written, copied or touched since, and has no checksum")],
)
def test_a_data_file_that_was_rewritten_is_refused(trained, indexed, tmp_path, writer, difference):
    """With the same images in another order, so that each row has another one and the file has its size."""
    path, folder = indexed(writer)
    columns, size = pa.ipc.open_file(pa.memory_map(str(path))).read_all(), path.stat().st_size
    columns = columns.take(list(reversed(range(len(columns))))).combine_chunks()
    path.unlink()  # what is mapped stays as it is
    _write(path, columns, writer)
    assert path.stat().st_size == size
    if writer == "another":
        os.utime(path, (2, 2))
    command = f"python run.py index with load_path={trained} index={folder} data_root={path.parent} 'datasets=[coco]'"
    with pytest.raises(ChangedFile, match=f"^{path} is another file than was indexed: {difference}") as refused:
        _search(trained, folder, query="a dog")
    assert f"make the index again with {command} 'splits=[test]', or search with rerank_k=None" in str(refused.value)
    assert len(_search(trained, folder, query="a dog", rerank_k=None)) == tiny.ROWS
    (tmp_path / "image.png").write_bytes(tiny.image_bytes(kind="PNG"))
    assert _search(trained, folder, image=str(tmp_path / "image.png")), "texts are kept in the index"
    _index(trained, path.parent, folder)
    assert len(_search(trained, folder, query="a dog")) == tiny.ROWS, "the command mends it"


def test_a_data_file_of_our_writer_may_be_copied_and_touched_and_not_shortened(trained, indexed):
    path, folder = indexed("ours")
    found, content = _search(trained, folder, query="a dog"), path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert _search(trained, folder, query="a dog") == found
    columns = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    path.unlink()
    _write(path, columns.slice(0, 1), "ours")
    with pytest.raises(ChangedFile, match=r"it has [\d,]+ bytes now, and had [\d,]+; make the index again with"):
        _search(trained, folder, query="a dog")


def test_an_image_file_that_was_replaced_is_refused(trained, tmp_path):
    folder, made = tmp_path / "images", str(tmp_path / "index")
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.bmp").write_bytes(tiny.image_bytes(number, kind="BMP"))
    _index(trained, "", made, image_folder=str(folder))
    assert len(_search(trained, made, query="a dog")) == 3
    status = (folder / "1.bmp").stat()
    (folder / "1.bmp").write_bytes(tiny.image_bytes(7, kind="BMP"))
    os.utime(folder / "1.bmp", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(ChangedFile, match=rf"1\.bmp is another file .* index={made} image_folder={folder}, or search"):
        _search(trained, made, query="a dog")
    assert len(_search(trained, made, query="a dog", rerank_k=None)) == 3


def test_an_index_from_before_identities_were_kept_is_read(trained, indexed, monkeypatch):
    monkeypatch.setattr("vlc.data.rows.RowImages.identity", lambda *_: ())
    monkeypatch.setitem(_SCHEMAS, "images", _PLACES)
    path, folder = indexed("another")
    monkeypatch.undo()
    assert pa.ipc.open_file(f"{folder}/images.arrow").schema.names == ["source", "dataset", "row", "text", "checksum"]
    os.utime(path, (2, 2))
    assert len(_search(trained, folder, query="a dog")) == tiny.ROWS
    columns = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    path.unlink()
    _write(path, columns.slice(0, 1), "another")
    with pytest.raises(ChangedFile, match="has 1 rows now, and none with number"):
        _search(trained, folder, query="a dog")


def _broken(checkpoint: str, path: Path, part: str) -> str:
    """The checkpoint with NaN in the parameters whose names begin with `part`."""
    content = torch.load(checkpoint, weights_only=True)
    names = [name for name in content["state_dict"] if name.startswith(part)]
    assert names
    for name in names:
        content["state_dict"][name].fill_(torch.nan)
    torch.save(content, path)
    return str(path)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_embeddings_that_are_not_finite_are_not_indexed(trained, arrows, tmp_path, kind):
    broken = _broken(trained, tmp_path / "x.ckpt", f"objectives.itc.{kind}_projection")
    with pytest.raises(NonFiniteMetric, match=f"NaN or infinite: the embeddings of {kind}s"):
        _index(broken, arrows, str(tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_searches_whose_values_are_not_finite_are_refused(trained, arrows, tmp_path, index, monkeypatch):
    monkeypatch.setattr(
        "vlc.use.search.searching.fingerprint",
        lambda _: json.loads((Path(index) / "index.json").read_text())["fingerprint"],
    )
    broken = _broken(trained, tmp_path / "x.ckpt", "objectives.itc.text_projection")
    with pytest.raises(NonFiniteMetric, match="NaN or infinite: the embedding of the query"):
        _search(broken, index, query="a dog", rerank_k=None)
    broken = _broken(trained, tmp_path / "y.ckpt", "objectives.irtr")
    with pytest.raises(NonFiniteMetric, match="NaN or infinite: the scores of a ranking"):
        _search(broken, index, query="a dog")


def test_an_index_from_before_there_were_checksums_is_searched_with_a_warning(trained, index, tmp_path):
    folder = tmp_path / "older"
    shutil.copytree(index, folder)
    made_by = json.loads((folder / "index.json").read_text())
    older = {key: made_by[key] for key in ("checkpoint", "image_size", "fingerprint", "images", "texts")}
    (folder / "index.json").write_text(json.dumps(older))
    for kind in ("images", "texts"):
        places = pa.ipc.open_file(str(folder / f"{kind}.arrow")).read_all().select(list(Location._fields))
        with pa.ipc.new_file(str(folder / f"{kind}.arrow"), places.schema) as writer:
            writer.write_table(places)
    with pytest.warns(UserWarning, match="made before indexes had checksums.* Make it again: python run.py index with"):
        found = _search(trained, str(folder), query="two dogs")
    assert found == _search(trained, index, query="two dogs")
