"""Write files.tar.xz and results.json with the commit that is checked out in the working directory; README.md tells how."""

import io
import json
import os
import shutil
import signal
import sys
import tarfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # as tests/conftest.py does
sys.path.insert(0, os.getcwd())  # the old commit

import numpy as np
import runs
import torch
from PIL import Image

HERE = Path(__file__).resolve().parent
FOLDER = Path("/tmp/old_files")  # indexes hold absolute paths
SCENES = {"train": 10, "val": 4, "test": 6, "held_out": 4}
PAIRS = {"train": 10, "val": 4, "test": 4, "held_out": 4}
STORED = ("arrows", "images", "tokenizer", "one.png", "two.png", "index", "resumed")


def main() -> None:
    import main_finetune
    from vlc.model.sizes import ENCODERS, EncoderSize

    ENCODERS[runs.ENCODER] = EncoderSize(**runs.SIZE)
    main_finetune.MODELS.append(runs.ENCODER)
    FOLDER.mkdir()
    try:
        os.chdir(FOLDER)
        write_data()
        results = {"machine": runs.machine(), "test": {}, "predict": {}, "search": {}}
        for name in runs.TRAINED:
            shutil.copy(interrupted(name), f"{name}.ckpt")
        shutil.copy(runs.train_classifier(), "classes.ckpt")
        for name in runs.TRAINED:
            results["test"][name] = runs.evaluate(name)
            results["predict"][name] = runs.predict(name)
        results["test"]["classes"] = runs.evaluate_classifier()
        runs.index()
        results["search"] = {name: runs.search(name) for name in runs.SEARCHED}
        Path("resumed").mkdir()
        for name in runs.TRAINED:
            resumed, unbroken = runs.weights(runs.resume(name)), runs.weights(runs.train(name))
            assert all(torch.equal(value, unbroken[key]) for key, value in resumed.items()), name
            torch.save({"state_dict": resumed}, f"resumed/{name}.pt")
        torch.save({"state_dict": runs.weights(runs.resume_classifier())}, "resumed/classes.pt")
        (HERE / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
        with tarfile.open(HERE / "files.tar.xz", "w:xz", preset=9) as archive:
            for name in (*STORED, *sorted(str(path) for path in Path().glob("*.ckpt"))):
                archive.add(name, filter=_anonymous)
    finally:
        os.chdir(HERE)
        shutil.rmtree(FOLDER)


def interrupted(name: str) -> Path:
    """Train until somebody presses Ctrl-C in the midst of an epoch; returns the last.ckpt that this leaves."""
    from vlc.module import VLCModule

    step, calls = VLCModule.training_step, 0

    def stopping(self, *arguments):
        nonlocal calls
        calls += 1
        if calls == runs.STOPPED:
            signal.raise_signal(signal.SIGINT)
        return step(self, *arguments)

    VLCModule.training_step = stopping
    try:
        runs.train(name)
    except (SystemExit, KeyboardInterrupt):
        (path,) = Path("logs").glob("*/*/checkpoints/last.ckpt")
        moved = path.rename("last.ckpt")
        shutil.rmtree("logs")
        return moved
    finally:
        VLCModule.training_step = step
        signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it from then on
    raise AssertionError(f"{name} was not interrupted")


def write_data() -> None:
    """Scenes and pairs of scenes by the writers of the commit, a tokenizer of their words, images in three classes."""
    from transformers import BertTokenizerFast

    from write_arrow import emoji_nlvr2, emoji_scenes, writer

    words = {word for asked in runs.ASKED.values() for word in _words(asked["text"])}
    words |= {word for asked in runs.SEARCHED.values() for word in _words(asked.get("query", ""))}
    texts = {"questions", "caption"}
    for module, sizes in ((emoji_scenes, SCENES), (emoji_nlvr2, PAIRS)):
        for table in module.tables(_arguments(module, sizes)):
            writer.write_table(table, Path("arrows"))
    for path in sorted(Path("arrows").glob("*.arrow")):
        columns = _read(path)
        words |= {word for name in texts & set(columns) for row in columns[name] for word in _words(row)}
    Path("tokenizer").mkdir()
    letters = sorted(set("".join(words)))
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *sorted(words - set(letters))]
    Path("vocab.txt").write_text("\n".join(entries) + "\n", encoding="utf-8")
    BertTokenizerFast("vocab.txt").save_pretrained("tokenizer")
    scenes = _read(Path("arrows/emoji_scenes_val.arrow"))
    for name, content in zip(("one.png", "two.png"), scenes["image"], strict=False):
        Image.open(io.BytesIO(content)).convert("RGB").save(name)
    rng = np.random.default_rng(0)
    for split, size in (("train", 4), ("val", 3)):
        for label in range(3):
            Path("images", split, "abc"[label]).mkdir(parents=True)
            for number in range(size):
                pixels = rng.integers(0, 120, (16, 16, 3), dtype=np.uint8)
                pixels[..., label] += 80
                Image.fromarray(pixels).save(f"images/{split}/{'abc'[label]}/{number}.png")


def _arguments(module, sizes: dict[str, int]) -> Namespace:
    parser = ArgumentParser()
    module.add_arguments(parser)
    options = ((f"--num-{split.replace('_', '-')}", str(size)) for split, size in sizes.items())
    return parser.parse_args([word for option in options for word in option])


def _read(path: Path) -> dict[str, list]:
    import pyarrow as pa

    return pa.ipc.open_file(str(path)).read_all().to_pydict()


def _words(text: str | list[str]) -> set[str]:
    lines = [text] if isinstance(text, str) else text
    spaced = "".join(c if c.isalnum() else f" {c} " for c in " ".join(lines).lower().replace("[mask]", " "))
    return set(spaced.split())


def _anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime = 0
    return entry


if __name__ == "__main__":
    main()
