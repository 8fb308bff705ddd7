"""Sound files of every kind that the suite reads, and what is read from them: a digest, the same for the same values.

`make_*` writes the sound files into a folder; `read_*` opens a folder with them the way the programs do.
"""

import csv
import dataclasses
import hashlib
import inspect
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from tests import tiny
from tests.labelled_folders import write_folder
from vlc.common.errors import UserError
from vlc.configuration.config import resolve, resolve_use
from vlc.configuration.recipes import loss_weights

SCENES = "emoji_scenes"
STEMS = [f"{SCENES}_{split}.arrow" for split in ("train", "val", "test", "held_out")]
QUERY = "red dog left of the house"


def known(**values: Any) -> dict[str, Any]:
    """Those of the configuration's keys that exist."""
    keys = resolve()
    return {key: value for key, value in values.items() if key in keys}


def options(folder: Path, log_dir: Path | str = "", **more: Any) -> dict[str, Any]:
    """Of a short run on the scenes in a folder."""
    heads = {"datasets": [SCENES], "loss_names": loss_weights(mlm=1, itm=1, itc=1), "draw_false_image": 1}
    own = {"data_root": str(folder), "log_dir": str(log_dir), "vit": "small_vit", "mlm_prob": 0.5}
    return heads | own | known(verify=True) | more


def digest(value: Any) -> str:
    """A hash of values: tensors, arrays, data classes, containers and plain values."""
    hashed = hashlib.sha256()
    _add(hashed, value)
    return hashed.hexdigest()


def _add(hashed, value: Any) -> None:
    hashed.update(type(value).__name__.encode())
    if isinstance(value, Tensor):
        value = value.detach().contiguous().numpy()
    if isinstance(value, np.ndarray):
        hashed.update(f"{value.dtype}{value.shape}".encode())
        hashed.update(np.ascontiguousarray(value).tobytes())
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            _add(hashed, getattr(value, field.name))
    elif isinstance(value, Mapping):
        for key, item in sorted(value.items(), key=lambda pair: str(pair[0])):
            hashed.update(str(key).encode("utf-8", "surrogateescape"))
            _add(hashed, item)
    elif isinstance(value, list | tuple):
        hashed.update(str(len(value)).encode())
        for item in value:
            _add(hashed, item)
    else:
        hashed.update(repr(value).encode("utf-8", "surrogateescape"))


# -- Arrow files


def make_scenes(folder: Path, seed: int = 0) -> None:
    """Four files of the embedded scenes."""
    from write_arrow.__main__ import main

    sizes = {"train": 24, "val": 6, "test": 6, "held-out": 6}
    words = [word for name, size in sizes.items() for word in (f"--num-{name}", str(size))]
    main(["emoji_scenes", "--out", str(folder), "--seed", str(seed), *words])


def read_scenes(folder: Path, *, verify: bool = True) -> str:
    """Every sample of training and validation, and of the test splits, as batches of one."""
    from vlc.training.run import build_data

    read = []
    for test_only in (False, True):
        settings = tiny.settings("task_pretrain_emoji", **(options(folder) | known(verify=verify)), test_only=test_only)
        data = build_data(settings)
        for dataset in filter(None, (data.train, *data.evaluation.values())):
            for sample in range(len(dataset)):
                batch = dataset[[(0, sample)]]
                for image in batch.corrupt:
                    raise UserError(f"Told in training: {image}")  # a warning there, and another sample in its place
                read.append(batch)
    return digest(read)


def check_arrows(folder: Path) -> str:
    """What the files hold, if `write_arrow check` finds nothing wrong; if it does, that is raised as a UserError."""
    from write_arrow.check import check
    from write_arrow.machine.storage import Folder

    reports, general = check(Folder(str(folder)))
    problems = [f"{report.stem}: {problem}" for report in reports for problem in report.problems] + general
    if problems:
        raise UserError(" / ".join(problems))
    contents = []
    for path in sorted(folder.glob("*.arrow")):
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        contents.append((path.name, table.to_pylist()))
    return digest(contents)


def make_foreign_arrow(folder: Path) -> None:
    """Captions as other programs write them: large types, dictionaries, compressed batches."""
    folder.mkdir(parents=True)
    rows = range(12)
    table = pa.table(
        {
            "image": pa.array([tiny.image_bytes(row, kind="PNG") for row in rows], pa.large_binary()),
            "caption": pa.array(
                [[f"{tiny.sentence(row)} {n}" for n in range(2)] for row in rows], pa.large_list(pa.large_string())
            ),
            "image_id": pa.array([f"image {row}" for row in rows], pa.large_string()),
        }
    )
    with pa.ipc.new_file(
        str(folder / "captions_0.arrow"), table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")
    ) as file:
        file.write_table(table, max_chunksize=5)


def read_captions(folder: Path) -> str:
    from vlc.training.run import build_data

    data = build_data(tiny.settings("task_pretrain_emoji", **options(folder, datasets=["captions"])))
    read = []
    for sample in range(len(data.train)):
        batch = data.train[[(0, sample)]]
        for image in batch.corrupt:
            raise UserError(f"Told in training: {image}")
        read.append(batch)
    return digest(read)


# -- labelled images


def make_classes(folder: Path, form: str) -> None:
    """Shards of labelled images as our own writer makes them."""
    from write_arrow.__main__ import main

    raw = write_folder(folder.parent / f"{folder.name}_raw", {"train": 5, "val": 2})
    main(["imagenet", "--root", str(raw), "--out", str(folder), "--format", form, "--shard-size", "10"])


def make_hub_parquet(folder: Path) -> None:
    """A Parquet file as the model hub has them."""
    folder.mkdir(parents=True)
    cells = [{"bytes": tiny.image_bytes(row, kind="PNG"), "path": None} for row in range(9)]
    table = pa.table({"image": cells, "label": [row % 3 for row in range(9)]})
    pq.write_table(table, folder / "train-00000-of-00001.parquet", row_group_size=4)


def read_classes(folder: Path) -> str:
    """Every image, decoded, with its label and the name of its class."""
    from vlc.data.labelled.splits import open_split
    from vlc.data.parts import Field
    from vlc.data.sample import Preparation
    from vlc.data.samples import Samples
    from vlc.data.transforms import transform

    wanted = inspect.signature(open_split).parameters
    source = open_split(folder, "train", **({"verify": True} if "verify" in wanted else {}))
    preparation = Preparation(transform("central_crop", 32), num_patches=0, text_encoder=None)
    images = Samples("train", [source], {Field("label")}, preparation, training=False, seed=0)
    return digest([source.class_names, *(images[[(0, number)]] for number in range(len(images)))])


# -- checkpoints


def make_checkpoints(folder: Path, data: Path) -> None:
    """last.ckpt of a short run; the same exported as a torch file and as safetensors."""
    from vlc.checkpoint import weights
    from vlc.training.run import run

    folder.mkdir(parents=True)
    metrics = run(tiny.settings("task_pretrain_emoji", **options(data, folder / "logs"), max_steps=2))
    shutil.copy(Path(metrics["log_dir"]) / "checkpoints" / "last.ckpt", folder / "last.ckpt")
    shutil.rmtree(folder / "logs")
    found = weights.read(folder / "last.ckpt")
    weights.export(found, folder / "exported.safetensors", "vlc")
    weights.export(found, folder / "exported.pt", "vlc")


def _read_checkpoint(path: Path) -> str:
    from vlc.checkpoint import weights

    found = weights.read(path)
    return digest([found.state, dict(found.extras), found.dropped, found.heads])


def read_last(folder: Path) -> str:
    return _read_checkpoint(folder / "last.ckpt")


def read_safetensors(folder: Path) -> str:
    return _read_checkpoint(folder / "exported.safetensors")


def read_torch(folder: Path) -> str:
    return _read_checkpoint(folder / "exported.pt")


def resume(folder: Path, data: Path) -> str:
    """Weights and the optimiser's state after one more step from last.ckpt."""
    from vlc.training.run import run

    more = {"max_steps": 3, "resume_from": str(folder / "last.ckpt")}
    metrics = run(tiny.settings("task_pretrain_emoji", **options(data, folder / "logs"), **more))
    return trained_state(Path(metrics["log_dir"]) / "checkpoints" / "last.ckpt")


def trained_state(path: Path) -> str:
    """Weights, the optimiser's state and the step of a checkpoint of ours."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    return digest([saved["state_dict"], saved["optimizer_states"], saved["global_step"]])


def make_hub(folder: Path) -> None:
    """A folder as transformers saves a ViLT with its tokenizer."""
    import transformers

    from vlc.data.tokens import load_tokenizer

    tokenizer, size = load_tokenizer("emoji"), tiny.SMALL_VILT
    config = transformers.ViltConfig(
        hidden_size=size.width,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        intermediate_size=4 * size.width,
        image_size=size.learned_grid * size.patch_size,
        patch_size=size.patch_size,
        vocab_size=len(tokenizer),
        max_position_embeddings=16,
        qkv_bias=True,
        layer_norm_eps=size.norm_eps,
    )
    torch.manual_seed(0)
    transformers.ViltForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def read_hub(folder: Path) -> str:
    """What a masked word of a picture is, as `predict` says it."""
    from vlc.use.model import Model

    values = {"tokenizer": str(folder), "vit": "small_vilt", "image_size": 64, "num_gpus": 0}
    values |= {"max_text_len": 16, "vocab_size": None, "loss_names": loss_weights(mlm=1)}
    values |= {"train_transform_keys": ["pixelbert"], "val_transform_keys": ["pixelbert"]}
    model = Model.from_checkpoint(folder, **values)
    found = model.answer(tiny.image_bytes(3, (64, 64)), ["a [MASK] dog", "red [MASK] house [MASK]"])
    return digest([[answer.example, answer.about, answer.choices] for answer in found])


# -- a search index


def make_index(folder: Path, checkpoint: Path, data: Path) -> None:
    from vlc.use.search import build_index

    values = {"data_root": str(data), "datasets": [SCENES], "splits": ["val", "test"], "per_gpu_batchsize": 4}
    values |= {"num_gpus": 0, "num_workers": 0, "load_path": str(checkpoint), "index": str(folder)}
    build_index(*resolve_use(**values))


def read_index(folder: Path, checkpoint: Path) -> str:
    """Everything that a search of images and one of texts find."""
    from vlc.use.search import search

    picture = folder.parent / f"{folder.name}.png"
    picture.write_bytes(tiny.image_bytes(5, kind="PNG"))
    found = []
    for asked in ({"query": QUERY}, {"image": str(picture)}):
        values = {"num_gpus": 0, "load_path": str(checkpoint), "index": str(folder), "num_results": 1000}
        values |= {"rerank_k": None} | asked
        found.append(search(*resolve_use(**values)))
    return digest(found)


# -- annotations given to a converter


def make_annotations(folder: Path) -> None:
    """Pictures, and their captions as CSV, TSV, JSON, JSON lines and Parquet."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(8):
        (folder / f"{number}.png").write_bytes(tiny.image_bytes(number, (16, 16), "PNG"))
        rows.append({"image": f"{number}.png", "caption": tiny.sentence(number, 8)})
    for suffix, delimiter in (("csv", ","), ("tsv", "\t")):
        with open(folder / f"table.{suffix}", "w", newline="") as file:
            writer = csv.DictWriter(file, ["image", "caption"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(rows)
    (folder / "table.json").write_text(json.dumps(rows))
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), folder / "table.parquet")


def convert(folder: Path, suffix: str) -> str:
    """Rows and rejected rows that the converter makes of a table."""
    from write_arrow.__main__ import main

    out = folder / "out"
    words = ["--root", str(folder), "--table", str(folder / f"table.{suffix}"), "--out", str(out), "--workers", "1"]
    main(["captions", *words])
    rows = [
        pa.ipc.open_file(str(path)).read_all().select(["image", "caption"]).to_pylist()
        for path in sorted(out.glob("*.arrow"))
    ]
    rejected = [path.read_text() for path in sorted(out.glob("*.rejected.jsonl"))]
    if rejected and any(rejected):
        raise UserError(f"table.{suffix}: rejected {rejected}")  # told and listed, which is as good as a message
    return digest(rows)


def convert_tar(folder: Path) -> str:
    """Rows that the converter makes of a WebDataset shard of captions."""
    from write_arrow.__main__ import main

    out = folder / "out"
    main(["captions", "--root", str(folder), "--out", str(out), "--workers", "1"])
    rejected = [path.read_text() for path in sorted(out.glob("*.rejected.jsonl"))]
    if any(rejected):
        raise UserError(f"captions.tar: rejected {rejected}")
    return digest([pa.ipc.open_file(str(path)).read_all().select(["image", "caption"]).to_pylist()
                   for path in sorted(out.glob("*.arrow"))])  # fmt: skip


def make_tar(folder: Path) -> None:
    import io
    import tarfile

    folder.mkdir(parents=True)
    with tarfile.open(folder / "captions.tar", "w") as file:
        for number in range(8):
            for suffix, content in (
                ("png", tiny.image_bytes(number, (16, 16), "PNG")),
                ("txt", tiny.sentence(number, 8).encode()),
            ):
                member = tarfile.TarInfo(f"{number:04}.{suffix}")
                member.size = len(content)
                file.addfile(member, io.BytesIO(content))
