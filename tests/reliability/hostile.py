"""Inputs that somebody made to run code, to fill the memory, to reach other files, or just wrongly.

Each is made in a folder of its own and given to a program of the suite. Wanted is a message, or that it does no harm; code,
programs and network addresses that come with an input are never used. Wherever an input could run something, what it runs
makes the file `isolated.TOUCHED`.
"""

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests import tiny
from tests.labelled_folders import words as classification_words
from tests.labelled_folders import write_folder
from tests.reliability import reading
from tests.reliability.isolated import TOUCHED, Ended, call, call_all, program
from tests.reliability.outcomes import Try

ESCAPE = "\x1b]0;taken over\x07\x1b[2J"  # sets the terminal's title and clears it
BIDI = "\u202etxt.exe"  # shows what follows from right to left
MARKUP = "[/b] [link=file:///etc/passwd]here[/link] [bold]"
NASTY = f"{ESCAPE}{BIDI}{MARKUP} dog"
HUGE = 1_600_000_000  # bytes that some inputs grow to
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 345123456\n"


@dataclass(frozen=True)
class Sound:
    """What the inputs are made beside: good data, and a small model with an index."""

    scenes: Path
    model: Path
    index: Path
    images: Path
    picture: Path


@dataclass(frozen=True)
class Case:
    """make: (folder, sound files) -> command line, after writing the input. wrong: what is wrong with the result, if any.

    wanted: the outcomes that are right.
    """

    kind: str
    name: str
    make: Callable[[Path, Sound], list]
    wrong: Callable[[Path, Ended], str | None] = lambda folder, ended: None
    wanted: tuple[str, ...] = ("clear", "same")


# -- command lines


def _show(path: Path) -> list[str]:
    return ["-m", "vlc.checkpoint", str(path)]


def _predict(sound: Sound, **values: Any) -> list[str]:
    values = {"load_path": sound.model, "image": sound.picture, "text": "a [MASK] dog", "num_gpus": 0} | values
    return ["run.py", "predict", "with", *(f"{key}={value}" for key, value in values.items())]


def _search(sound: Sound, **values: Any) -> list[str]:
    values = {"load_path": sound.model, "index": sound.index, "query": "dog", "num_gpus": 0} | values
    return ["run.py", "search", "with", *(f"{key}={value}" for key, value in values.items())]


def _index(sound: Sound, folder: Path, **values: Any) -> list[str]:
    values = {"load_path": sound.model, "index": folder / "index", "num_gpus": 0, "num_workers": 0} | values
    return ["run.py", "index", "with", *(f"{key}={value}" for key, value in values.items())]


def _train(sound: Sound, folder: Path, *words: str, **values: Any) -> list[str]:
    own = {"data_root": sound.scenes, "log_dir": folder / "logs", "vit": "small_vit", "datasets": "[emoji_scenes]"}
    own |= {"num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 4, "batch_size": 4, "max_steps": 2} | values
    return ["run.py", "with", "task_pretrain_emoji", *words, *(f"{key}={value}" for key, value in own.items())]


def _finetune(data: Path, folder: Path, **values: Any) -> list[str]:
    return ["main_finetune.py", *classification_words(data, folder / "out", batch_size=4, epochs=1, **values)]


def _convert(folder: Path, *words: Any) -> list[str]:
    more = [] if "--workers" in words else ["--workers", "1"]
    return [
        "-m",
        "write_arrow",
        "captions",
        "--root",
        str(folder),
        "--out",
        str(folder / "out"),
        *more,
        *map(str, words),
    ]


def _check(folder: Path) -> list[str]:
    return ["-m", "write_arrow", "check", str(folder), "--workers", "1"]


# -- what is wrong with a result


def _terminal(folder: Path, ended: Ended) -> str | None:
    """Something that the terminal acts on reached it."""
    found = [name for name, text in (("an escape sequence", ESCAPE[:4]), ("a bell", "\x07"), ("a bidirectional override",
             "\u202e")) if text in ended.output]  # fmt: skip
    return f"{', '.join(found)} reached the terminal" if found else None


def _passwd(folder: Path, ended: Ended) -> str | None:
    """Lines of a file outside of the root were written."""
    for path in folder.rglob("*.arrow"):
        if b"root:" in path.read_bytes():
            return f"{path.name} holds lines of /etc/passwd"
    return None


def _rows(count: int) -> Callable[[Path, Ended], str | None]:
    def wrong(folder: Path, ended: Ended) -> str | None:
        told = sum(len(path.read_text().splitlines()) for path in folder.rglob("*.rejected.jsonl"))
        made = sum(pa.ipc.open_file(str(path)).read_all().num_rows for path in folder.rglob("*.arrow"))
        return None if made + told == count else f"{made} rows and {told} rejected ones of {count}"

    return wrong


def _printed(text: str) -> Callable[[Path, Ended], str | None]:
    return lambda folder, ended: f"it printed {text!r}" if text in ended.output else None


# -- checkpoints


class _Runs:
    """Unpickled, makes the file that tells that code was run."""

    def __init__(self, through: str = "system"):
        self.through = through

    def __reduce__(self):
        if self.through == "system":
            return os.system, (f'touch "$RELIABILITY_CANARY" {TOUCHED}',)
        code = "import os; open(os.environ['RELIABILITY_CANARY'], 'w').close()"
        return (exec if self.through == "exec" else eval), (code if self.through == "exec" else f"exec({code!r})",)


class _Stateful(Namespace):
    """A Namespace whose state carries code."""

    def __reduce__(self):
        return Namespace, (), {"lr": _Runs("exec")}


def _model_state(sound: Sound) -> dict[str, Any]:
    import torch

    return torch.load(sound.model, map_location="cpu", weights_only=True)


def _with_code(folder: Path, sound: Sound, what: str = "system", legacy: bool = False) -> Path:
    import torch

    state, path = _model_state(sound), folder / "model.ckpt"
    state["args"] = _Stateful() if what == "namespace" else _Runs(what)
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    return path


def _plain_pickle(folder: Path, sound: Sound) -> Path:
    path = folder / "model.bin"
    path.write_bytes(pickle.dumps({"state_dict": {}, "code": _Runs()}))
    return path


def _with_config(folder: Path, sound: Sound, **values: Any) -> Path:
    """The model, with other values in the configuration that it stores."""
    import torch

    state, path = _model_state(sound), folder / "model.ckpt"
    state["vlc"]["config"] |= values
    if "tokenizer" in values:
        del state["vlc"]["tokenizer"]  # which would be taken, whatever the name
    torch.save(state, path)
    return path


def _tokenizer_with_code(folder: Path) -> Path:
    from vlc.data.tokens import load_tokenizer

    target = folder / "tokenizer"
    load_tokenizer("emoji").save_pretrained(target)
    config = json.loads((target / "tokenizer_config.json").read_text())
    config |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (target / "tokenizer_config.json").write_text(json.dumps(config))
    (target / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config",
                                                    "AutoTokenizer": ["evil.Evil", "evil.Evil"]}}))  # fmt: skip
    (target / "evil.py").write_text(
        "import os\nopen(os.environ['RELIABILITY_CANARY'], 'w').close()\n"
        "from transformers import PreTrainedTokenizerFast as Evil, PretrainedConfig as Config\n"
    )
    return target


def _zip_bomb(folder: Path, sound: Sound) -> Path:
    """A checkpoint whose tensors are deflated: 5 MB that become 1.6 GB several times."""
    import torch

    small, path = folder / "small.ckpt", folder / "bomb.ckpt"
    state = {
        "state_dict": {"encoder.patch_embed.proj.weight": torch.zeros(100), "encoder.norm.weight": torch.ones(100)}
    }
    torch.save(state, small)
    with zipfile.ZipFile(small) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            if "/data/" in name:
                with target.open(name, "w", force_zip64=True) as file:
                    for _ in range(HUGE // 2**24):
                        file.write(bytes(2**24))
            else:
                target.writestr(name, content)
    small.unlink()
    return path


def _expanded(folder: Path, sound: Sound) -> Path:
    """Weights of 12 GB, all of which are one number in the file."""
    import torch

    state = _model_state(sound)
    state["state_dict"]["encoder.text_embeddings.word_embeddings.weight"] = torch.zeros(1, 1).expand(100_000_000, 32)
    torch.save(state, folder / "model.ckpt")
    return folder / "model.ckpt"


def _safetensors(folder: Path, header: bytes | None, length: int | None = None, content: bytes = b"") -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header or b"") if length is None else length) + (header or b"") + content)
    return path


def _safetensors_out_of_bounds(folder: Path) -> Path:
    header = {"encoder.patch_embed.proj.weight": {"dtype": "F32", "shape": [2**31, 2**31], "data_offsets": [0, 16]}}
    return _safetensors(folder, json.dumps(header).encode(), content=bytes(16))


def _not_finite(folder: Path, sound: Sound) -> Path:
    import torch

    state = _model_state(sound)
    name = next(name for name in state["state_dict"] if "itc" in name and name.endswith("weight"))
    state["state_dict"][name][:] = torch.nan
    torch.save(state, folder / "model.ckpt")
    return folder / "model.ckpt"


def _ranking(folder: Path, sound: Sound) -> list[str]:
    words = {"test_only": True, "load_path": _not_finite(folder, sound), "get_recall_metric": True, "rerank_k": None}
    words |= {"loss_names.itc": 1, "loss_names.mae": 0, "mask_ratio": 0.0}
    return _train(sound, folder, **words)


def _written(folder: Path, name: str, content: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _hub_with_code(folder: Path) -> Path:
    reading.make_hub(folder / "hub")
    config = json.loads((folder / "hub/config.json").read_text())
    config["auto_map"] = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Config"}
    (folder / "hub/config.json").write_text(json.dumps(config))
    shutil.copy(_tokenizer_with_code(folder) / "evil.py", folder / "hub/evil.py")
    return folder / "hub"


def _name_of_tensor(folder: Path, sound: Sound) -> Path:
    import torch

    state = _model_state(sound)
    state["state_dict"][f"encoder.{NASTY}"] = torch.zeros(1)
    torch.save(state, folder / "model.ckpt")
    return folder / "model.ckpt"


_CHECKPOINTS = [
    Case("checkpoints", "code in a torch file, vlc.checkpoint", lambda f, s: _show(_with_code(f, s))),
    Case("checkpoints", "code through exec, vlc.checkpoint", lambda f, s: _show(_with_code(f, s, "exec"))),
    Case("checkpoints", "code through eval, before torch 1.6", lambda f, s: _show(_with_code(f, s, "eval", legacy=True))),
    Case("checkpoints", "code in a Namespace", lambda f, s: _show(_with_code(f, s, "namespace"))),
    Case("checkpoints", "code in a Namespace, before torch 1.6",
         lambda f, s: _show(_with_code(f, s, "namespace", legacy=True))),
    Case("checkpoints", "code in a plain pickle", lambda f, s: _show(_plain_pickle(f, s))),
    Case("checkpoints", "code, predict", lambda f, s: _predict(s, load_path=_with_code(f, s))),
    Case("checkpoints", "code, load_path", lambda f, s: _train(s, f, load_path=_with_code(f, s))),
    Case("checkpoints", "code, resume_from", lambda f, s: _train(s, f, max_steps=3, resume_from=_with_code(f, s))),
    Case("checkpoints", "code, main_finetune --finetune", lambda f, s: _finetune(s.images, f, finetune=_with_code(f, s))),
    Case("checkpoints", "code, main_finetune --resume", lambda f, s: _finetune(s.images, f, resume=_with_code(f, s))),
    Case("checkpoints", "a tokenizer folder with code, stored in a checkpoint",
         lambda f, s: _predict(s, load_path=_with_config(f, s, tokenizer=str(_tokenizer_with_code(f))))),
    Case("checkpoints", "a tokenizer folder with code, given",
         lambda f, s: _train(s, f, tokenizer=_tokenizer_with_code(f))),
    Case("checkpoints", "a hub name as tokenizer, stored in a checkpoint",
         lambda f, s: _predict(s, load_path=_with_config(f, s, tokenizer="someone/evil"))),
    Case("checkpoints", "a hub folder with code", lambda f, s: _show(_hub_with_code(f))),
    Case("checkpoints", "a configuration that is no mapping", lambda f, s: _predict(s, load_path=_with_config(f, s,
         loss_names=[1, 2], vit={"a": 1}, image_size="big"))),
    Case("checkpoints", "deflated tensors of 1.6 GB", lambda f, s: _show(_zip_bomb(f, s)), wanted=("clear",)),
    Case("checkpoints", "a tensor of 12 GB with strides of 0", lambda f, s: _show(_expanded(f, s))),
    Case("checkpoints", "a tensor of 12 GB with strides of 0, predict",
         lambda f, s: _predict(s, load_path=_expanded(f, s)), wanted=("clear",)),
    Case("checkpoints", "safetensors: a header of 2^60 bytes", lambda f, s: _show(_safetensors(f, b"{}", 2**60)),
         wanted=("clear",)),
    Case("checkpoints", "safetensors: a header that is nested deeply",
         lambda f, s: _show(_safetensors(f, b'{"a":' * 100_000)), wanted=("clear",)),
    Case("checkpoints", "safetensors: a tensor beyond the file", lambda f, s: _show(_safetensors_out_of_bounds(f)),
         wanted=("clear",)),
    Case("checkpoints", "a Git LFS pointer", lambda f, s: _show(_written(f, "model.ckpt", POINTER)), wanted=("clear",)),
    Case("checkpoints", "a Git LFS pointer, safetensors", lambda f, s: _show(_written(f, "model.safetensors", POINTER)),
         wanted=("clear",)),
    Case("checkpoints", "weights that are not finite, ranking", _ranking, wanted=("clear",)),
    Case("checkpoints", "weights that are not finite, search", lambda f, s: _index(s, f, load_path=_not_finite(f, s),
         data_root=s.scenes, datasets="[emoji_scenes]", splits="[val]"), wanted=("clear",)),
    Case("checkpoints", "escape sequences in a name", lambda f, s: _show(_name_of_tensor(f, s)), _terminal),
]  # fmt: skip


# -- configuration


def _config(folder: Path, sound: Sound, name: str, content: bytes | str) -> list[str]:
    return _train(sound, folder, str(_written(folder, name, content)))


_YAML_BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
_REDUCE = {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [f'touch "$RELIABILITY_CANARY" {TOUCHED}']}]}
_CONFIGURATION = [
    Case("configuration", "a pickle with code", lambda f, s: _config(f, s, "c.pickle", pickle.dumps({"seed": _Runs()}))),
    Case("configuration", "a pickle with code, .pkl", lambda f, s: _config(f, s, "c.pkl", pickle.dumps({"seed": _Runs()}))),
    Case("configuration", "JSON with py/reduce", lambda f, s: _config(f, s, "c.json", json.dumps({"seed": _REDUCE}))),
    Case("configuration", "JSON with py/object", lambda f, s: _config(f, s, "c.json", json.dumps(
         {"seed": {"py/object": "subprocess.Popen", "args": ["touch", TOUCHED]}}))),
    Case("configuration", "YAML with a Python tag", lambda f, s: _config(f, s, "c.yaml",
         f"seed: !!python/object/apply:os.system ['touch \"$RELIABILITY_CANARY\" {TOUCHED}']\n"), wanted=("clear",)),
    Case("configuration", "YAML that grows to 9^12 items", lambda f, s: _config(f, s, "c.yaml", _YAML_BOMB),
         wanted=("clear",)),
    Case("configuration", "JSON nested 100,000 deep", lambda f, s: _config(f, s, "c.json",
         '{"seed": ' + "[" * 100_000 + "]" * 100_000 + "}"), wanted=("clear",)),
    Case("configuration", "JSON that is a list", lambda f, s: _config(f, s, "c.json", "[1, 2]"), wanted=("clear",)),
    Case("configuration", "JSON with unknown keys", lambda f, s: _config(f, s, "c.json", '{"\\u001b[2J": 1}'), _terminal,
         wanted=("clear",)),
    Case("configuration", "a number of 10^9 digits' worth", lambda f, s: _train(s, f, max_steps="9**9**9"),
         wanted=("clear",)),
]  # fmt: skip


# -- pictures

_EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n"
    b"(CODE_WAS_RUN) (w) file closefile\nshowpage\n%%EOF\n"
)


def _with_ghostscript(folder: Path, words: list[str]) -> list:
    """The command with a `gs` first in the path that tells that it was started."""
    program_file = folder / "bin" / "gs"
    program_file.parent.mkdir(exist_ok=True)
    program_file.write_text('#!/bin/sh\ntouch "$RELIABILITY_CANARY"\nexit 1\n')
    program_file.chmod(0o755)
    return [words, {"PATH": f"{program_file.parent}:{os.environ['PATH']}"}]


def _png(width: int, height: int, *, text: bytes = b"") -> bytes:
    """A PNG of one colour, row by row, and with a compressed text chunk if that is asked for."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, rows = zlib.compressobj(9), []
    for _ in range(height):
        rows.append(packer.compress(bytes(1 + 3 * width)))
    rows.append(packer.flush())
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    extra = chunk(b"zTXt", b"Comment\0\0" + text) if text else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", b"".join(rows)) + chunk(b"IEND", b"")


def _text_bomb() -> bytes:
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(2**20)) for _ in range(HUGE // 2**20)) + packer.flush()


def _gif(width: int, height: int) -> bytes:
    """A header that declares a large picture, with one pixel of content."""
    return (b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b","
            + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x4c\x01\x00;")  # fmt: skip


def _webp() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(buffer, "WEBP", lossless=True, method=0)
    return buffer.getvalue()


def _tiff() -> bytes:
    """A header that declares 60,000 x 60,000 pixels in a strip of no length."""
    tags = [(256, 4, 60_000), (257, 4, 60_000), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1),
            (278, 4, 60_000), (279, 4, 10)]  # fmt: skip
    entries = b"".join(struct.pack("<HHI", tag, kind, 1) + struct.pack("<I", value) for tag, kind, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(4) + bytes(300)


def _bmp() -> bytes:
    return (b"BM" + struct.pack("<IHHI", 60, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(6))  # fmt: skip


def _jpeg(width: int, height: int) -> bytes:
    data = bytearray(tiny.image_bytes(0))
    start = data.index(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", height, width)
    return bytes(data)


_PICTURES = {
    "PNG of 13,000 x 13,000": ("a.png", lambda: _png(13_000, 13_000)),
    "PNG of 30,000 x 30,000": ("a.png", lambda: _png(30_000, 30_000)),
    "PNG with a text of 1.6 GB": ("a.png", lambda: _png(8, 8, text=_text_bomb())),
    "GIF that declares 60,000 x 60,000": ("a.gif", lambda: _gif(60_000, 60_000)),
    "WebP of 12,000 x 12,000": ("a.webp", _webp),
    "TIFF that declares 60,000 x 60,000": ("a.tif", _tiff),
    "BMP that declares 2^30 x 2^30": ("a.bmp", _bmp),
    "JPEG that declares 65,500 x 65,500": ("a.jpg", lambda: _jpeg(65_500, 65_500)),
    "EPS": ("a.eps", lambda: _EPS),
    "EPS that is called .jpg": ("a.jpg", lambda: _EPS),
    "a Git LFS pointer": ("a.jpg", lambda: POINTER.encode()),
}


def _picture(way: str, name: str, folder: Path, sound: Sound) -> list:
    """A picture given to predict, to the converter, or to training in an Arrow file or a folder for each class."""
    file, content = _PICTURES[name]
    made = sound.picture.with_name(f"{list(_PICTURES).index(name)}.content")  # once for all ways: some take seconds
    if not made.exists():
        _written(folder, "content", content()).rename(made)
    data = made.read_bytes()
    if way == "predict":
        words = _predict(sound, image=_written(folder, file, data))
    elif way == "converted":
        _written(folder, file, data)
        _written(folder, "a.txt", "a caption")
        _written(folder, "good.png", tiny.image_bytes(1, kind="PNG"))
        _written(folder, "good.txt", "another caption")
        words = _convert(folder)
    elif way == "trained on":
        images = [tiny.image_bytes(row, kind="PNG") for row in range(7)] + [data]
        tiny.write_table(folder / "captions_0.arrow", {"image": images, "caption": [[f"text {n}"] for n in range(8)]})
        words = _train(sound, folder, data_root=folder, datasets="[captions]", max_steps=4)
    else:
        write_folder(folder / "images", {"train": 4, "val": 2})
        _written(folder / "images/train/red", file, data)
        words = _finetune(folder / "images", folder)
    return _with_ghostscript(folder, words)


_PICTURE_CASES = [
    Case("pictures", f"{name}, {way}", partial(_picture, way, name))
    for name in _PICTURES
    for way in ("predict", "converted", "trained on", "classified")
]


# -- Arrow, Parquet and tar files that are larger than they look


def _inflating_arrow(folder: Path, codec: str) -> Path:
    zeros = pa.py_buffer(np.zeros(HUGE, np.uint8))
    offsets = pa.py_buffer(np.array([0, 100, HUGE], np.int32))
    image = pa.Array.from_buffers(pa.binary(), 2, [None, offsets, zeros])
    table = pa.table({"image": image, "caption": pa.array([["a"], ["b"]])})
    path = folder / "captions_0.arrow"
    with pa.ipc.new_file(str(path), table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table)
    return path


def _inflating_parquet(folder: Path) -> Path:
    path = folder / "imagenet_train_0.parquet"
    cell = bytes(HUGE // 4)
    schema = pa.schema({"image": pa.large_binary(), "label": pa.int64()})
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for label in range(3):
            writer.write_table(
                pa.table({"image": pa.array([cell], pa.large_binary()), "label": [label]}, schema=schema)
            )
    shutil.copy(path, folder / "imagenet_val_0.parquet")
    return path


def _changed_length(folder: Path, sound: Sound) -> Path:
    """An Arrow file whose first batch says that its metadata are 2 GB long."""
    shutil.copytree(sound.scenes, folder / "data")
    path = folder / "data/emoji_scenes_train.arrow"
    data = bytearray(path.read_bytes())
    schema_end = 8 + 8 + struct.unpack("<i", data[12:16])[0]
    start = data.index(b"\xff\xff\xff\xff", schema_end)
    data[start + 4 : start + 8] = struct.pack("<i", 2**31 - 8)
    path.write_bytes(bytes(data))
    return folder / "data"


def _captions_arrow(folder: Path, **columns: list) -> Path:
    count = len(next(iter(columns.values())))
    images = [tiny.image_bytes(row, kind="PNG") for row in range(count)]
    tiny.write_table(
        folder / "captions_0.arrow", {"image": images, "caption": [[f"{n}"] for n in range(count)]} | columns
    )
    return folder


def _trained(folder: Path, sound: Sound, make: Callable[[Path], Any]) -> list[str]:
    make(folder)
    return _train(sound, folder, data_root=folder, datasets="[captions]")


def _arrow_pointer(folder: Path, sound: Sound) -> list[str]:
    shutil.copytree(sound.scenes, folder / "data")
    _written(folder, "data/emoji_scenes_train.arrow", POINTER)
    return _train(sound, folder, data_root=folder / "data")


_ARROW = [
    *(Case("Arrow and Parquet", f"{codec}: kilobytes that become 1.6 GB, trained on",
           lambda f, s, codec=codec: _trained(f, s, lambda f: _inflating_arrow(f, codec)), wanted=("clear",))
      for codec in ("zstd", "lz4")),
    Case("Arrow and Parquet", "kilobytes that become 1.6 GB, check",
         lambda f, s: _check(_inflating_arrow(f, "zstd").parent), wanted=("clear",)),
    Case("Arrow and Parquet", "kilobytes that become 1.6 GB, show",
         lambda f, s: ["-m", "write_arrow", "show", str(_inflating_arrow(f, "zstd")), "--sheet", str(f / "sheet.png")]),
    Case("Arrow and Parquet", "kilobytes that become 1.6 GB, index", lambda f, s: _index(s, f,
         data_root=_inflating_arrow(f, "zstd").parent, datasets="[captions]"), wanted=("clear",)),
    Case("Arrow and Parquet", "Parquet that becomes 1.2 GB, classified",
         lambda f, s: _finetune(_inflating_parquet(f).parent, f)),
    Case("Arrow and Parquet", "metadata of 2 GB", lambda f, s: _train(s, f, data_root=_changed_length(f, s)),
         wanted=("clear",)),
    Case("Arrow and Parquet", "a Git LFS pointer", _arrow_pointer, wanted=("clear",)),
    Case("Arrow and Parquet", "null captions", lambda f, s: _trained(f, s, lambda f: _captions_arrow(
         f, caption=[["a"], [None], ["b"], ["c"]]))),
    Case("Arrow and Parquet", "null images", lambda f, s: _trained(f, s, lambda f: _captions_arrow(
         f, image=[tiny.image_bytes(1), None, None, tiny.image_bytes(2)]))),
    Case("Arrow and Parquet", "null images, index", lambda f, s: _index(s, f, datasets="[captions]",
         data_root=_captions_arrow(f, image=[tiny.image_bytes(1), None, None, tiny.image_bytes(2)]))),
    Case("Arrow and Parquet", "no rows, index", lambda f, s: _index(s, f, datasets="[captions]", data_root=_captions_arrow(
         f, image=pa.array([], pa.binary()), caption=pa.array([], pa.list_(pa.string()))))),
]  # fmt: skip


# -- paths and archives


def _good_pair(folder: Path) -> None:
    _written(folder, "good.png", tiny.image_bytes(1, kind="PNG"))
    _written(folder, "good.txt", "a caption")


def _link_to_text(folder: Path, sound: Sound) -> list[str]:
    _good_pair(folder)
    _written(folder, "b.png", tiny.image_bytes(2, kind="PNG"))
    (folder / "b.txt").symlink_to("/etc/passwd")
    return _convert(folder)


def _link_to_folder(folder: Path, sound: Sound) -> list[str]:
    root, outside = folder / "root", folder / "outside"
    root.mkdir()
    outside.mkdir()
    _good_pair(root)
    _written(outside, "b.png", tiny.image_bytes(2, kind="PNG"))
    _written(outside, "b.txt", "root: a line from outside")
    (root / "inner").symlink_to(outside)
    return ["-m", "write_arrow", "captions", "--root", str(root), "--out", str(folder / "out"), "--workers", "1"]


def _table_outside(folder: Path, sound: Sound) -> list[str]:
    root = folder / "root"
    root.mkdir()
    _good_pair(root)
    _written(folder, "secret.png", tiny.image_bytes(1, kind="PNG"))
    table = _written(root, "t.csv", "image,caption\ngood.png,one\n/etc/passwd,two\n../secret.png,three\n")
    return ["-m", "write_arrow", "captions", "--root", str(root), "--table", str(table), "--out", str(folder / "out"),
            "--workers", "1"]  # fmt: skip


def _fifo(folder: Path, sound: Sound) -> list[str]:
    _good_pair(folder)
    os.mkfifo(folder / "b.png")
    os.mkfifo(folder / "b.txt")
    return _convert(folder)


def _tar(folder: Path, members: list[tuple[str, bytes, int, dict[str, Any]]], name: str = "a.tar") -> Path:
    """A tar of a good pair and of members (name, content, declared size, further fields)."""
    path = folder / name
    with open(path, "wb") as file:
        pair = [("good.png", tiny.image_bytes(1, kind="PNG")), ("good.txt", b"a caption"), ("good.cls", b"0")]
        for member, content, size, fields in [*((name, data, len(data), {}) for name, data in pair), *members]:
            info = tarfile.TarInfo(member)
            for field, value in fields.items():
                setattr(info, field, value)
            info.size = size
            file.write(info.tobuf(tarfile.GNU_FORMAT))
            file.write(content + bytes(-len(content) % 512))
        file.write(bytes(1024))
    return path


def _odd_tar(folder: Path, sound: Sound) -> list[str]:
    image = tiny.image_bytes(2, kind="PNG")
    _tar(folder, [
        ("/abs.png", image, len(image), {}), ("/abs.txt", b"absolute", 8, {}),
        ("../up.png", image, len(image), {}), ("../up.txt", b"above", 5, {}),
        ("link.png", b"", 0, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("link.txt", b"", 0, {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}),
        ("hard.txt", b"", 0, {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"}),
        ("device.png", b"", 0, {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5}),
        ("fifo.txt", b"", 0, {"type": tarfile.FIFOTYPE}),
        (f"{NASTY}.png", image, len(image), {}), (f"{NASTY}.txt", b"nasty", 5, {}),
    ])  # fmt: skip
    return _convert(folder)


def _huge_member(folder: Path, sound: Sound, suffix: str = "txt", size: int = 2**50) -> list[str]:
    _tar(folder, [("big.png", b"x", 1, {}), (f"big.{suffix}", b"x", size, {})])
    return _convert(folder)


def _nested_member(folder: Path, sound: Sound, content: bytes | None = None) -> list[str]:
    deep = b'{"caption": ' + b"[" * 100_000 + b"]" * 100_000 + b"}" if content is None else content
    image = tiny.image_bytes(2, kind="PNG")
    _tar(folder, [("deep.png", image, len(image), {}), ("deep.json", deep, len(deep), {})])
    return _convert(folder)


def _classified_tar(folder: Path, sound: Sound, members: list) -> list[str]:
    for split in ("train", "val"):
        _tar(folder, members, f"imagenet_{split}_0.tar")
    return _finetune(folder, folder, nb_classes=1)


def _names_not_utf8(folder: Path, sound: Sound, way: str) -> list[str]:
    name = os.fsdecode(b"caf\xe9")
    if way == "classified":
        write_folder(folder / "images", {"train": 4, "val": 2})
        _written(folder / "images/train/red", f"{name}.png", tiny.image_bytes(1, kind="PNG"))
        return _finetune(folder / "images", folder)
    if way == "check":
        shutil.copytree(sound.scenes, folder / "data")
        shutil.copy(sound.scenes / "emoji_scenes_val.arrow", folder / f"data/{name}.arrow")
        return _check(folder / "data")
    for number, stem in enumerate((name, "good")):
        _written(folder, f"{stem}.png", tiny.image_bytes(number, kind="PNG"))
        _written(folder, f"{stem}.txt", f"caption {number}")
    return _convert(folder) if way == "converted" else _index(sound, folder, image_folder=folder)


def _hidden(folder: Path, sound: Sound, way: str) -> list[str]:
    if way == "classified":
        write_folder(folder / "images", {"train": 4, "val": 2})
        for place in ("train/red/._0.png", "val/red/._0.png"):
            _written(folder / "images", place, b"\0\5\26\7 resource fork")
        for split in ("train", "val"):
            (folder / f"images/{split}/.ipynb_checkpoints").mkdir()
        return _finetune(folder / "images", folder)
    _good_pair(folder)
    _written(folder, "._good.png", b"\0\5\26\7 resource fork")
    _written(folder, "._good.txt", b"\0\5\26\7")
    (folder / ".ipynb_checkpoints").mkdir()
    _written(folder / ".ipynb_checkpoints", "good-checkpoint.png", tiny.image_bytes(1, kind="PNG"))
    _written(folder / ".ipynb_checkpoints", "good-checkpoint.txt", "a caption")
    return _convert(folder) if way == "converted" else _index(sound, folder, image_folder=folder)


_PATHS = [
    Case("paths and archives", "a caption that is a link to /etc/passwd", _link_to_text, _passwd),
    Case("paths and archives", "a folder that is a link out of --root", _link_to_folder, _passwd),
    Case("paths and archives", "a table of paths out of --root", _table_outside, _passwd),
    Case("paths and archives", "named pipes", _fifo),
    Case("paths and archives", "tar: absolute paths, .., links, devices, pipes", _odd_tar, lambda folder, ended:
         _passwd(folder, ended) or _terminal(folder, ended)),
    Case("paths and archives", "tar: a caption of 2^50 bytes", _huge_member),
    Case("paths and archives", "tar: a caption of 8 GB", partial(_huge_member, size=2**33 - 512)),
    Case("paths and archives", "tar: a JSON file of 2^50 bytes", partial(_huge_member, suffix="json")),
    Case("paths and archives", "tar: JSON nested 100,000 deep", _nested_member),
    Case("paths and archives", "tar: JSON that is no object", partial(_nested_member, content=b"[1, 2]")),
    Case("paths and archives", "tar: a caption that is a number", partial(_nested_member, content=b'{"caption": 3}')),
    Case("paths and archives", "tar, classified: an image of 2^50 bytes", lambda f, s: _classified_tar(f, s, [
         ("big.cls", b"0", 1, {}), ("big.png", b"x", 2**50, {})])),
    Case("paths and archives", "tar, classified: labels that are no numbers", lambda f, s: _classified_tar(f, s, [
         ("b.png", tiny.image_bytes(1), len(tiny.image_bytes(1)), {}), ("b.cls", b"9" * 5000, 5000, {})])),
    *(Case("paths and archives", f"file names that are not UTF-8, {way}", partial(_names_not_utf8, way=way))
      for way in ("converted", "indexed", "classified", "check")),
    *(Case("paths and archives", f"hidden files, {way}", partial(_hidden, way=way),
           _rows(1) if way == "converted" else lambda folder, ended: None, wanted=("same",))
      for way in ("converted", "indexed", "classified")),
]  # fmt: skip


# -- annotations


def _table(folder: Path, sound: Sound, name: str, content: bytes | str, *words: str) -> list[str]:
    for number in range(4):
        _written(folder, f"{number}.png", tiny.image_bytes(number, kind="PNG"))
    return _convert(folder, "--table", str(_written(folder, name, content)), *words)


def _refer(folder: Path, sound: Sound, references: bytes) -> list[str]:
    """Convert RefCOCO with these bytes as its pickled references."""
    root = folder / "root"
    _written(root / "refcoco", "refs(unc).p", references)
    _written(root / "refcoco", "instances.json", '{"images": [], "annotations": [], "categories": []}')
    return ["-m", "write_arrow", "refcoco", "--root", str(root), "--out", str(folder / "out"), "--workers", "1"]


def _entities(folder: Path, sound: Sound, annotation: str) -> list[str]:
    """Convert Flickr30k Entities with this text as the annotation of its only image."""
    root = folder / "root"
    for split in ("train", "val", "test"):
        _written(root / "entities", f"{split}.txt", "1\n")
    _written(root / "entities/Annotations", "1.xml", annotation)
    _written(root / "entities/Sentences", "1.txt", "[/EN#1/people a dog] runs .\n")
    _written(root / "flickr30k-images", "1.jpg", tiny.image_bytes(1))
    return ["-m", "write_arrow", "flickr_entities", "--root", str(root), "--out", str(folder / "out"), "--workers", "1"]


# A list of lists of lists, each of which stands for ten of the one before: it would have 10 ** 12 elements.
_BOMB = (
    b"\x80\x02]q\x000"
    + b"".join(b"]q" + bytes([number]) + b"(" + (b"h" + bytes([number - 1])) * 10 + b"e0" for number in range(1, 13))
    + b"]h\x0ca."
)
_LAUGHS = (
    '<!DOCTYPE a [<!ENTITY l0 "ha">'
    + "".join(f'<!ENTITY l{number} "{f"&l{number - 1};" * 10}">' for number in range(1, 12))
    + "]><annotation><filename>&l11;</filename></annotation>"
)
_FOUR = [{"image": f"{number}.png", "caption": f"text {number}"} for number in range(4)]
_DEEP = "[" * 100_000 + "]" * 100_000
_ANNOTATIONS = [
    Case("annotations", "JSON nested 100,000 deep", lambda f, s: _table(f, s, "t.json", _DEEP), wanted=("clear",)),
    Case("annotations", "JSON lines nested 100,000 deep", lambda f, s: _table(f, s, "t.jsonl", _DEEP + "\n"),
         wanted=("clear",)),
    Case("annotations", "JSON with a caption nested 100,000 deep", lambda f, s: _table(f, s, "t.json",
         f'[{{"image": "0.png", "caption": {_DEEP}}}]')),
    *(Case("annotations", f"JSON that is {name}", lambda f, s, text=text: _table(f, s, "t.json", text), wanted=("clear",))
      for name, text in (("a text", '"a"'), ("a number", "3"), ("null", "null"), ("a list of numbers", "[1, 2]"))),
    Case("annotations", "JSON lines that are no objects", lambda f, s: _table(f, s, "t.jsonl", "1\n[2]\nnull\n"),
         wanted=("clear",)),
    Case("annotations", "JSON with a lone surrogate", lambda f, s: _table(f, s, "t.json", json.dumps(
         [*_FOUR[:3], {"image": "3.png", "caption": "\ud800"}])), _rows(4)),
    Case("annotations", "JSON with NUL in a path", lambda f, s: _table(f, s, "t.json", json.dumps(
         [*_FOUR[:3], {"image": "3\0.png", "caption": "a"}])), _rows(4)),
    Case("annotations", "JSON with a number of 10,000 digits", lambda f, s: _table(f, s, "t.json",
         f'[{{"image": "0.png", "caption": "a", "id": {"9" * 10_000}}}]')),
    Case("annotations", "TSV with lone quotation marks", lambda f, s: _table(f, s, "t.tsv",
         'image\tcaption\n0.png\t"one\n1.png\ttwo\n2.png\tthree"\n3.png\tfour\n'), _rows(4)),
    Case("annotations", "CSV with a lone quotation mark", lambda f, s: _table(f, s, "t.csv",
         'image,caption\n0.png,"one\n1.png,two\n2.png,three\n3.png,four\n'), _rows(4)),
    Case("annotations", "CSV with NUL bytes", lambda f, s: _table(f, s, "t.csv",
         "image,caption\n0.png,a\0b\n1.png,b\n2.png,c\n3\0.png,d\n"), _rows(4)),
    Case("annotations", "CSV that is UTF-16", lambda f, s: _table(f, s, "t.csv",
         "image,caption\n0.png,a\n".encode("utf-16")), _rows(1)),
    Case("annotations", "CSV with more cells in a row", lambda f, s: _table(f, s, "t.csv",
         "image,caption\n0.png,a,b,c\n1.png,b\n"), _rows(2)),
    Case("annotations", "CSV with a line of 100 MB", lambda f, s: _table(f, s, "t.csv",
         "image,caption\n0.png," + "a" * 100_000_000 + "\n")),
    Case("annotations", "REFER: a pickle with code", lambda f, s: _refer(f, s, pickle.dumps([_Runs()])), wanted=("clear",)),
    Case("annotations", "REFER: a pickle with code, protocol 0",
         lambda f, s: _refer(f, s, pickle.dumps([_Runs("eval")], 0)), wanted=("clear",)),
    Case("annotations", "REFER: a pickle of endlessly many values", lambda f, s: _refer(f, s, _BOMB), wanted=("clear",)),
    Case("annotations", "REFER: a pickle that is cut short", lambda f, s: _refer(f, s, pickle.dumps([{"ref_id": 1}])[:-4]),
         wanted=("clear",)),
    Case("annotations", "Entities: XML whose entities grow", lambda f, s: _entities(f, s, _LAUGHS)),
    Case("annotations", "Entities: XML that names a file", lambda f, s: _entities(f, s, '<!DOCTYPE a [<!ENTITY b SYSTEM '
         '"file:///etc/passwd">]><annotation><filename>&b;</filename></annotation>')),
    Case("annotations", "an empty table", lambda f, s: _table(f, s, "t.csv", ""), wanted=("clear",)),
    Case("annotations", "column names with escape sequences", lambda f, s: _table(f, s, "t.csv",
         f"{NASTY},other\n0.png,a\n"), _terminal, wanted=("clear",)),
]  # fmt: skip


# -- terminal


def _nasty_data(folder: Path) -> Path:
    texts = [[NASTY, "b"], ["a dog", MARKUP], [BIDI], [ESCAPE]]
    return _captions_arrow(folder, caption=texts, **{f"column {NASTY}": [NASTY] * 4})


def _nasty_index(folder: Path, sound: Sound) -> list[str]:
    """An index of nasty captions and file names, made in this process before it is searched."""
    from vlc.configuration.config import resolve_use
    from vlc.use.search import build_index

    values = {"data_root": str(_nasty_data(folder)), "datasets": ["captions"], "per_gpu_batchsize": 4, "num_gpus": 0}
    values |= {"num_workers": 0, "load_path": str(sound.model), "index": str(folder / "index")}
    build_index(*resolve_use(**values))
    return _search(sound, index=folder / "index", rerank_k=None)


def _nasty_show(folder: Path, sound: Sound) -> list[str]:
    _nasty_data(folder)
    return ["-m", "write_arrow", "show", str(folder / "captions_0.arrow"), "--sheet", str(folder / "sheet.png")]


def _nasty_check(folder: Path, sound: Sound) -> list[str]:
    _nasty_data(folder)
    shutil.copy(folder / "captions_0.arrow", folder / f"{NASTY.replace('/', '')}.arrow")
    return _check(folder)


def _nasty_images(folder: Path, sound: Sound) -> list[str]:
    _written(folder, f"{NASTY.replace('/', '')}.png", b"no image")
    _written(folder, "good.png", tiny.image_bytes(1, kind="PNG"))
    return _index(sound, folder, image_folder=folder)


def _nasty_classes(folder: Path, sound: Sound) -> list[str]:
    write_folder(folder / "images", {"train": 4, "val": 2}, ("a", "b", NASTY.replace("/", "")))
    return _finetune(folder / "images", folder, nb_classes=2)


_TERMINAL = [
    Case("terminal", "captions and columns, show", _nasty_show, _terminal),
    Case("terminal", "captions, columns and file names, check", _nasty_check, _terminal),
    Case("terminal", "captions, search", _nasty_index, _terminal),
    Case("terminal", "the question, predict", lambda f, s: _predict(s, text="[/b] [bold]dog [MASK]"), _terminal),
    Case("terminal", "a query with markup", lambda f, s: _search(s, query="[/b] [bold]dog", rerank_k=None), _terminal),
    Case("terminal", "file names, index", _nasty_images, _terminal),
    Case("terminal", "names of classes, main_finetune", _nasty_classes, _terminal, wanted=("clear",)),
]  # fmt: skip


# -- mistakes on the command line

_USAGE = [
    Case("usage", "log_dir that is a file", lambda f, s: _train(s, f, log_dir=_written(f, "logs", "x")), wanted=("clear",)),
    Case("usage", "log_dir that cannot be written", lambda f, s: _train(s, f, log_dir="/proc/nowhere"), wanted=("clear",)),
    Case("usage", "a numeric query", lambda f, s: _search(s, query=2024, rerank_k=None)),
    Case("usage", "a numeric text", lambda f, s: _predict(s, text=5)),
    Case("usage", "a numeric image", lambda f, s: _predict(s, image=5), wanted=("clear",)),
    Case("usage", "an empty query", lambda f, s: _search(s, query="", rerank_k=None)),
    Case("usage", "a recipe without `with`", lambda f, s: ["run.py", "task_pretrain_emoji"], wanted=("clear",)),
    Case("usage", "an index that is a file", lambda f, s: _search(s, index=_written(f, "index", "x")), wanted=("clear",)),
    Case("usage", "a folder as load_path", lambda f, s: _predict(s, load_path=f), wanted=("clear",)),
    Case("usage", "a folder as image", lambda f, s: _predict(s, image=f), wanted=("clear",)),
    Case("usage", "vlc.checkpoint with a folder as target", lambda f, s: [*_show(s.model), str(f)], wanted=("clear",)),
    Case("usage", "resume_from a picture", lambda f, s: _train(s, f, resume_from=s.picture), wanted=("clear",)),
    Case("usage", "resume_from weights alone", lambda f, s: _train(s, f, resume_from=s.model.with_name("exported.pt")),
         wanted=("clear",)),
]  # fmt: skip

CASES = [*_CHECKPOINTS, *_CONFIGURATION, *_PICTURE_CASES, *_ARROW, *_PATHS, *_ANNOTATIONS, *_TERMINAL, *_USAGE]


# -- running them


def _sound(folder: Path) -> Sound:
    scenes, checkpoints = folder / "scenes", folder / "checkpoints"
    for make, *arguments in (
        (reading.make_scenes, scenes),
        (reading.make_checkpoints, checkpoints, scenes),
        (reading.make_index, folder / "index", checkpoints / "last.ckpt", scenes),
    ):
        ended = call(make, *arguments, folder=folder / f"{make.__name__}_out", seconds=120)
        if ended.how != "returned":
            raise RuntimeError(f"{make.__name__}: {ended.told()}")
    picture = folder / "picture.png"
    picture.write_bytes(tiny.image_bytes(1, kind="PNG"))
    images = write_folder(folder / "images", {"train": 4, "val": 2})
    return Sound(scenes, checkpoints / "last.ckpt", folder / "index", images, picture)


def _make(number: int, folder: Path, sound: Sound) -> list:
    return CASES[number].make(folder, sound)


def _program(words: list, folder: str) -> None:
    if words and isinstance(words[0], list):  # with variables of the environment
        words, environment = words
        os.environ.update(environment)
    os.chdir(folder)
    program(words, folder)


def _try(number: int, sound: Sound, folder: Path) -> Try:
    case, made = CASES[number], folder / "input"
    made.mkdir(parents=True)
    words = call(_make, number, made, sound, folder=folder / "made")
    if words.how != "returned":
        return Try("hostile", case.kind, case.name, "raw", f"the input could not be made: {words.told()}")
    ended = call(_program, words.value, str(made), folder=folder / "ran")
    touched = ended.touched or any(made.rglob(TOUCHED))
    outcome, detail = _judged(case, made, ended, touched)
    shutil.rmtree(folder)
    return Try("hostile", case.kind, case.name, outcome, detail, seconds=ended.seconds)


def _judged(case: Case, folder: Path, ended: Ended, touched: bool) -> tuple[str, str]:
    if touched:
        return "code run", ended.told() + ended.output[-300:]
    if ended.fault:
        return ended.fault, f"{ended.told()} {ended.output[-300:]}"
    text = ended.output.strip()
    done = ended.how == "returned" or (ended.how == "exited" and ended.value == 0)
    if not done and ended.how != "refused" and not text:
        return "raw", f"{ended.told()}: without a message"
    terminal = _terminal(folder, ended)
    problem = (case.wrong(folder, ended) if done else None) or terminal
    outcome = "same" if done else "clear"
    if problem is None and outcome not in case.wanted:
        problem = "it should have been refused" if done else f"it should have been taken: {text[-300:]}"
    return ("silent", problem) if problem else (outcome, text[-300:])


def tries(folder: Path, seed: int, scale: float = 1.0, cases: list[Case] | None = None) -> Iterator[Try]:
    """A try of each case; of a small scale every so many."""
    sound = _sound(folder)
    wanted = range(0, len(CASES), max(1, round(1 / scale))) if cases is None else [CASES.index(case) for case in cases]
    tasks = [partial(_try, number, sound, folder / f"case_{number}") for number in wanted]
    yield from call_all(tasks)
