"""What reaches a terminal of foreign text: no control character, no markup, no line of its own."""

import io
import re
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from rich.console import Console
from rich.table import Table

from tests import tiny
from tests.warm import command
from vlc.common.terminal import cell, printable
from vlc.configuration.recipes import loss_weights
from vlc.training.run import run

NASTY = "a [/b] [red]dog[/] \x1b[31m\x1b]0;title\x07 \x9b2J\r\n\u202eover\u2066\u2028 :smile: \x00\x7f"
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufffd]")
NASTY_NAME = "b]\x1b[2J\r\n\u202e\x9b"  # as a file may be called; below a folder "n[" its path holds [/b]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u202eexe.jpg\u2066", r"\u202eexe.jpg\u2066"),
        ("a\u2028b\ufeff", r"a\u2028b\ufeff"),
        (b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), r"caf\udce9.jpg"),
        ("straße, كلب, 犬, 👩\u200d🚀, 🏴\U000e0067\U000e007f", "straße, كلب, 犬, 👩\u200d🚀, 🏴\U000e0067\U000e007f"),
        (r"C:\new [b]", r"C:\new [b]"),
        (Path("a\x1b"), r"a\x1b"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown
    printable(text).encode()


def test_tables_show_brackets_and_colons_as_they_are():
    console = Console(file=io.StringIO(), width=200)
    table = Table("[b]", title=cell("t [/b]"))
    table.add_row(cell("[/b] :smile: [red]x[/red]\n"))
    console.print(table)
    assert r"[/b] :smile: [red]x[/red]\n" in console.file.getvalue()
    assert "t [/b]" in console.file.getvalue()


def _said(*words: str | Path, status: int | None = 0) -> str:
    """What a command prints, all of it, after a look for what may not be there."""
    done = command(*words)
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    assert status is None or (done.returncode != 0) == bool(status), said
    # tqdm goes back to the line's beginning by itself, and rich's progress does where it ends
    assert not FORBIDDEN.findall(said.replace("\r", "")), said
    return said


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Path:
    """Arrow files of which every caption and file name is an attack."""
    folder = tmp_path_factory.mktemp("nasty") / "n[" / NASTY_NAME
    columns = {"image": [tiny.image_bytes(number) for number in range(4)], "caption": [[NASTY]] * 4}
    columns["image_id"] = [f"{NASTY} {number}" for number in range(4)]
    for stem in ("train", "val", "test"):
        tiny.write_table(folder / f"caption_{stem}.arrow", columns)
    return folder


@pytest.fixture(scope="module")
def trained(arrows, tmp_path_factory) -> str:
    options = {"data_root": str(arrows), "log_dir": str(tmp_path_factory.mktemp("trained")), "draw_false_text": 2}
    options |= {"vit": "mae_vit_tiny_patch16", "loss_names": loss_weights(mlm=1, irtr=1, itc=1)}
    metrics = run(tiny.settings("task_finetune_irtr_coco_mae_randaug", **options))
    return f"{metrics['log_dir']}/checkpoints/last.ckpt"


def test_predict_index_and_search(trained, tmp_path):
    photos = tmp_path / "n[" / NASTY_NAME
    photos.mkdir(parents=True)
    image = photos / f"{NASTY_NAME}.png"
    image.write_bytes(tiny.image_bytes(kind="PNG"))
    (photos / f"broken{NASTY_NAME}.png").write_bytes(b"no image")
    common = ("with", f"load_path={trained}", "num_gpus=0", "num_workers=0")
    said = _said("run.py", "predict", *common, f"image={image}", f"text={NASTY.replace(chr(0), '')} [MASK]")
    assert r"a [/b] [red]dog[/]" in said
    index = f"index={photos.parent / f'index{NASTY_NAME}'}"
    said = _said("run.py", "index", *common, index, f"image_folder={photos}")
    assert r"cannot be decoded: " in said
    said = _said("run.py", "search", *common, index, "query=a [/b]")
    assert re.sub(r"\s", "", said).count(r"n[/b]\x1b[2J\r\n\u202e\x9b/b]\x1b[2J\r\n\u202e\x9b.png") == 1
    _said("run.py", "search", *common, index, f"image={photos / 'none'}", status=1)


def test_index_and_search_of_captions(trained, nasty, tmp_path):
    table = tmp_path / "data"
    table.mkdir()
    source = pa.ipc.open_file(str(nasty / "caption_test.arrow")).read_all()
    with pa.ipc.new_file(str(table / "coco_caption_karpathy_test.arrow"), source.schema) as writer:
        writer.write_table(source)
    common = ("with", f"load_path={trained}", "num_gpus=0", "num_workers=0", f"index={tmp_path / 'index'}")
    _said("run.py", "index", *common, f"data_root={table}", "datasets=[coco]", "splits=[test]")
    (tmp_path / "a.jpg").write_bytes(tiny.image_bytes())
    said = _said("run.py", "search", *common, f"image={tmp_path / 'a.jpg'}")
    assert r"[/b] [red]dog[/]" in re.sub(r"\s+", " ", said)


def test_check_and_show(nasty, tmp_path):
    tiny.write_table(nasty / f"{NASTY_NAME}.arrow", {f"image {NASTY}": [b"no image"], NASTY: [NASTY]})
    (nasty / f".{NASTY_NAME}.partial").write_bytes(b"")
    said = _said("-m", "write_arrow", "check", nasty, "--workers", "1", status=None)
    assert r"b]\x1b[2J\r\n\u202e\x9b" in re.sub(r"\s", "", said)
    for name in ("caption_test", NASTY_NAME):
        said = _said("-m", "write_arrow", "show", nasty / f"{name}.arrow", "--sheet", tmp_path / "sheet.png")
        assert r"a [/b] [red]dog[/] \x1b[31m" in said


def test_converters(tmp_path):
    photos = tmp_path / "n[" / NASTY_NAME
    photos.mkdir(parents=True)
    (photos / f"{NASTY_NAME}.jpg").write_bytes(tiny.image_bytes())
    (photos / f"{NASTY_NAME}.txt").write_text(NASTY)
    (photos / f"broken{NASTY_NAME}.jpg").write_bytes(b"no image")
    (photos / f"broken{NASTY_NAME}.txt").write_text(NASTY)
    out = tmp_path / f"out{NASTY_NAME}"
    _said("-m", "write_arrow", "captions", "--root", photos, "--out", out, "--workers", "1", status=None)
    _said("-m", "write_arrow", "captions", "--root", photos / "none", "--out", out, "--workers", "1", status=1)
    _said("-m", "write_arrow", "coco", "--root", photos, "--out", out, "--workers", "1", status=1)


def test_checkpoints(tmp_path):
    path = tmp_path / "n[" / f"{NASTY_NAME}.ckpt"
    path.parent.mkdir()
    torch.save({NASTY: torch.zeros(2)}, path)
    _said("-m", "vlc.checkpoint", path, status=1)
    path.write_bytes(b"no checkpoint")
    _said("-m", "vlc.checkpoint", path, status=1)
    _said("main_finetune.py", "--data_path", tmp_path, "--finetune", path.with_name("none" + NASTY_NAME), status=1)
    words = ["task_finetune_vqa_mae_randaug", f"load_path={path}", "per_gpu_batchsize=2", "tokenizer=emoji"]
    _said("run.py", "with", *words, status=1)
