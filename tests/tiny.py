"""Small things made on the spot: images, arrow files of every data set, a two-layer model, settings for a short run."""

import io
import json
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from vlc.configuration.config import resolve
from vlc.configuration.recipes import RECIPES
from vlc.configuration.settings import Settings
from vlc.data.arrow import ArrowSplit
from vlc.data.catalog import CATALOG
from vlc.data.hard_pool import pool_name, tables_of, write_pool
from vlc.data.spec import DatasetSpec
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.tasks import TASKS
from vlc.tasks.task import Task
from write_arrow.machine import writer
from write_arrow.sources import emoji_scenes

SMALL = EncoderConfig(32, 2, 2, 16, decoder_width=16, decoder_depth=1, decoder_heads=2)
SMALL_VILT = EncoderConfig(32, 2, 2, 32, learned_grid=3, norm_eps=1e-12, pixel_normalization="centred", dropout=True)
ROWS, TEXTS = 6, 2  # of every table, and of every row
WORDS = "dog cat house bus tree red two the of is left grinning face".split()

# Language and kind of each text of a row, where texts translate each other.
_TRANSLATED = [(language, "translation") for language in ("en", "de", "fr", "cs")]
_TRANSLATED += [("en", "hidden"), ("en", "caption"), ("de", "caption")]

# One value for each text of a row, by arrow column.
_VALUES = {
    "question_id": lambda number: number,
    "answers": lambda number: ["yes", "no"],
    "answer_labels": lambda number: [number % 2, 2],
    "answer_scores": lambda number: [1.0, 0.3],
    "answer_types": lambda number: ("number", "other")[number % 2],
    "question_types": lambda number: ("count", "where")[number % 2],
    "semantic_types": lambda number: ("attr", "rel")[number % 2],
    "detailed_types": lambda number: "what",
    "gold_answers": lambda number: ("yes", "no")[number % 2],
    "groups": lambda number: ("place", None)[number % 2],
    "entailed": lambda number: [str(number - number % 2)],
    "is_balanced": lambda number: True,
    "labels": lambda number: number % 2,
    "pair_id": lambda number: f"pair{number}",
    "caption_ids": lambda number: f"caption{number}",
    "statement_types": lambda number: ("place", "list")[number % 2],
    "options": lambda number: [sentence(number + place, 2) for place in range(5)],
    "answer_index": lambda number: number % 4,
    "relevance": lambda number: [[0.5, 0.0, 0.0, 1.0, 0.0], []][number % 2],
    "history": lambda number: [sentence(number), "yes"] * (number % 2),
    "round_id": lambda number: 1 + number % 2,
    "boxes": lambda number: boxes(number),
    "box_ids": lambda number: [10 * number + place for place in range(4)],
    "target_boxes": lambda number: [boxes(number // TEXTS)[number % 4]],
    "ref_id": lambda number: number // 2,
    "sent_id": lambda number: number,
    "ann_id": lambda number: 7 * number,
    "qa_id": lambda number: number,
    "game_id": lambda number: number,
    "status": lambda number: ("success", "failure")[number % 2],
    "dialogue": lambda number: [sentence(number), "Yes", sentence(number + 1), "No"],
    "box_names": lambda number: ["dog", "cat", "bird", "tree"],
    "categories": lambda number: ("dog", "cat")[number % 2],
    "phrase_id": lambda number: f"phrase{number}",
    "chain_id": lambda number: str(number),
    "phrase_types": lambda number: ("people", "scene")[number % 2],
    "lang": lambda number: _TRANSLATED[number % len(_TRANSLATED)][0],
    "kind": lambda number: _TRANSLATED[number % len(_TRANSLATED)][1],
    "sent_idx": lambda number: int(_TRANSLATED[number % len(_TRANSLATED)][1] == "caption"),
    "words": lambda number: sentence(number).split()[number % 5],
    "word_places": lambda number: number % 5,
    "target_lang": lambda number: ("de", "fr")[number % 2],
    "translation": lambda number: ("Haus", "maison")[number % 2],
    "acceptable": lambda number: [("Haus", "maison")[number % 2]],
    "candidates": lambda number: [["Bau", "Haus"], ["foyer", "maison"]][number % 2],
    "most_frequent": lambda number: ("Bau", "maison")[number % 2],
}
_VALUES_OF_ROWS = {
    "caption": lambda number: sentence(number),
    "image_id": lambda number: number,
    "width": lambda number: 40,
    "height": lambda number: 30,
    "boxes": lambda number: boxes(number),
    "box_ids": lambda number: [10 * number + place for place in range(4)],
    "box_names": lambda number: ["person", "dog", "person", "tree"],
    "segms": lambda number: json.dumps([[[[box[0], box[1]], [box[2], box[1]], box[2:]]] for box in boxes(number)]),
    "proposal_boxes": lambda number: boxes(number + 100),
    "proposal_scores": lambda number: [0.9, 0.8, 0.5, 0.1],
}
_WORD_TAGS = [0, 1, 0, 0, 2]  # of a sentence
_VALUES_OF_CHOICES = {  # columns of a question with its answers, and of a question and an answer with rationales
    **dict.fromkeys(("question_tags", "given_question_tags", "given_answer_tags"), lambda number: _WORD_TAGS),
    **dict.fromkeys(("answers", "rationales"), lambda number: [sentence(number + place) for place in range(4)]),
    **dict.fromkeys(("answer_tags", "rationale_tags"), lambda number: [_WORD_TAGS] * 4),
    **dict.fromkeys(("answer_index", "rationale_index", "given_answer_index"), lambda number: number % 4),
    **dict.fromkeys(("annot_id", "given_annot_id"), lambda number: f"val-{number}"),
    "given_answers": lambda number: sentence(number),
    "question_types": _VALUES["question_types"],
}
_VALUES_OF_PAIRS = {
    "answers": lambda number: str(number % 3 == 0),
    "identifiers": lambda number: f"dev-{number // 8}-{number // 2 % 4}-{number % 2}",
    "statement_types": lambda number: ("both", "count")[number % 2],
}


def of_family(vit: str, **sizes: Any) -> EncoderConfig:
    """An encoder's parts at 48 channels, with two blocks; sizes: further fields that differ."""
    small: dict[str, Any] = {
        "width": 48,
        "depth": 2,
        "heads": 4,
        "decoder_width": 16,
        "decoder_depth": 1,
        "decoder_heads": 2,
    }
    return replace(ENCODERS[vit], **(small | sizes))


def image_bytes(seed: int = 0, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A random RGB image, encoded."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def sentence(seed: int, num_words: int = 5) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, num_words))


def boxes(seed: int, count: int = 4) -> list[list[float]]:
    """Boxes inside a picture of 40x30 pixels."""
    rng = np.random.default_rng(seed)
    left_top, size = rng.uniform([0, 0], [20, 15], (count, 2)), rng.uniform([5, 5], [20, 15], (count, 2))
    return np.concatenate([left_top, left_top + size], axis=1).tolist()


def rows(spec: DatasetSpec, split: str, num_rows: int = ROWS, first: int = 0) -> dict[str, list[Any]]:
    """Columns of a table as the data set's writers make them."""
    numbers = range(first, first + num_rows)
    columns: dict[str, list[Any]] = {}
    for place, image in enumerate(spec.images):
        columns[image] = [image_bytes(2 * number + place) for number in numbers]
    count = len(_TRANSLATED) if "second_text" in spec.fields and "kind" in spec.fields else TEXTS
    columns[spec.text] = [[sentence(count * number + text) for text in range(count)] for number in numbers]
    if not spec.images:  # the writer makes a row of each text
        columns[spec.text] = [sentence(number) for number in numbers]
    wanted = {column.name for column in spec.fields.values() if column.per_text} | (
        {"answers"} if "answer_labels" in spec.fields else set()
    )
    values = _VALUES_OF_CHOICES if "option_tags" in spec.fields else _VALUES
    values = _VALUES_OF_PAIRS if len(spec.images) == 2 else values
    if len(spec.images) == 2:
        columns["identifier"] = [f"dev-{number // 4}-{number % 4}" for number in numbers]
    for name in sorted(wanted - {spec.text}):
        value = values[name]
        columns[name] = [[value(count * number + text) for text in range(count)] for number in numbers]
    for column in spec.fields.values():
        if not column.per_text:
            columns[column.name] = [_VALUES_OF_ROWS[column.name](number) for number in numbers]
    if split in spec.unlabelled:
        known = (spec.text, *spec.images, "question_id", "options", "history", "round_id", *_VALUES_OF_ROWS)
        withheld = {spec.fields["answer_index"].name} if "option_tags" in spec.fields else columns.keys() - {*known}
        columns |= {name: [[] for _ in numbers] for name in withheld}
    return columns


def write_table(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns)
    with pa.ipc.new_file(str(path), table.schema) as writer:
        writer.write_table(table)
    return path


def write_dataset(folder: Path, name: str, num_rows: int = ROWS) -> Path:
    """Every table of a data set; numbered ones as two shards. One file may have the texts of several data sets."""
    spec, first = CATALOG[name], 0
    for split, stems in spec.tables.items():
        for stem in stems:
            for path in [stem[:-1] + "0", stem[:-1] + "1"] if stem.endswith("*") else [stem]:
                columns = rows(spec, split, num_rows, first)
                others = _columns(folder / f"{path}.arrow")
                write_table(folder / f"{path}.arrow", columns if spec.text in others else others | columns)
                first += num_rows
    return folder


def _columns(path: Path) -> dict[str, list[Any]]:
    return pa.ipc.open_file(str(path)).read_all().to_pydict() if path.exists() else {}


def write_catalog(folder: Path) -> Path:
    for name, spec in CATALOG.items():
        first = next(iter(spec.tables.values()))
        if not spec.labelled and spec.text not in _columns(folder / f"{first[0]}.arrow"):
            write_dataset(folder, name)
    write_hard_pools(folder)
    return folder


def write_hard_pools(folder: Path) -> None:
    """The pools of all tasks that draw texts of images that look alike."""
    for name in {name for task in TASKS.values() if _uses_hard_texts(task) for name in task.datasets}:
        write_hard_pool(folder, name)


def _uses_hard_texts(task: Task) -> bool:
    return bool(task.options.get("choice", {}).get("hard_texts"))


def write_hard_pool(folder: Path, name: str) -> None:
    """A pool in which every image of the training split looks like the one after it."""
    spec = CATALOG[name]
    source = ArrowSplit(
        [folder / f"{stem}.arrow" for stem in spec.tables["train"]], spec, name, set(), read_texts=False
    )
    near = (np.arange(source.num_rows, dtype=np.int32)[:, None] + 1) % source.num_rows
    write_pool(folder / pool_name(name), near, list(map(str, range(len(near)))), (), {"tables": tables_of(source)})


def complete(recipe: str) -> tuple[str, ...]:
    """A recipe, behind the one of a task where it stands beside such a one."""
    return ("task_finetune_foil_emoji", recipe) if recipe.startswith("finetune_") else (recipe,)


def settings(*named: str, **updates: Any) -> Settings:
    """Settings for a short run on the CPU: `named` configs, with small values unless `updates` say otherwise."""
    small = {
        "vit": "small_vit",
        "image_size": 32,
        "tokenizer": "emoji",
        "vocab_size": None,
        "max_text_len": 16,
        "batch_size": 4,
        "per_gpu_batchsize": 4,
        "num_gpus": 0,
        "num_workers": 0,
        "max_steps": 1,
        "warmup_steps": 0,
        "val_check_interval": 1.0,
    }
    if "tasks" in updates or any("tasks" in RECIPES.get(name, {}) for name in named):
        del small["max_text_len"]  # which each task has for itself
    return Settings.from_config(resolve(*named, **(small | updates)))


def checkpoints(arrows: Path, folder: Path, trained: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Checkpoints of short runs by name. trained: a recipe and further keys for each."""
    from vlc.training.run import run  # here, as most of those who import this file train nothing

    paths = {}
    for name, (recipe, values) in trained.items():
        options = {"data_root": str(arrows), "log_dir": str(folder / name), "vit": "mae_vit_tiny_patch16", **values}
        paths[name] = f"{run(settings(recipe, **options))['log_dir']}/checkpoints/last.ckpt"
    return paths


def untrained(arrows: Path, folder: Path, made: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Checkpoints with random weights by name, which take no run to make. made: as in `checkpoints`."""
    from vlc.training.run import build_data, build_module  # here, as most of those who import this file build nothing

    paths = {}
    for name, (recipe, values) in made.items():
        own = settings(recipe, **{"data_root": str(arrows), "vit": "mae_vit_tiny_patch16", **values})
        module = build_module(own, build_data(own))
        paths[name] = str(folder / f"{name}.ckpt")
        torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, paths[name])
    return paths


def write_scenes(folder: Path, **sizes: int) -> Path:
    """The embedded scenes in small: number of scenes by split."""
    parser = ArgumentParser()
    emoji_scenes.add_options(parser)
    words = [word for split, size in sizes.items() for word in (f"--num-{split.replace('_', '-')}", str(size))]
    for table in emoji_scenes.tables(parser.parse_args(words)):
        writer.write_table(table, folder)
    return folder
