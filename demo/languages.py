"""`python -m demo.languages`: the embedded benchmark in many languages.

Sentences about scenes of emoji in English, German, French and Czech train a tokenizer and go on with the pre-training of
an English model. From this model, four kinds of tasks are trained and tested with every seed: images found by texts in each
language (of all languages, and zero-shot from English), translations found among all sentences, translations written
(also of texts that hide a noun, which only the image tells), and words translated that have several meanings. Every run is
printed as a command that can be typed. Steps that are finished are not done again.
"""

import argparse
import json
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.table import Table as Grid

from demo.replicas import pretrain
from vlc.common.files import to_json
from vlc.evaluation.predictions import write_text
from vlc.tokenizer.__main__ import main as tokenizer
from vlc.workflows.commands import announce, console, run_command, typed, write

DATASETS = ("emoji_translations", "emoji_mlt")
PIECES = 2000
LANGUAGES = ["en", "de", "fr", "cs"]


@dataclass(frozen=True)
class Step:
    """A training and its tests.

    recipe: the name of the training's configuration, without task_finetune_.
    metrics: the names of metrics of the tests, with the titles under which the table has them.
    keys: further keys of training and test.
    tests: further tasks that the trained model is tested on.
    """

    recipe: str
    metrics: Mapping[str, str]
    keys: Mapping[str, Any] = field(default_factory=dict)
    tests: tuple[str, ...] = ()


def _recalls(title: str) -> dict[str, str]:
    return {f"irtr_languages_emoji/test/irtr_r_mean_{name}": f"{title}, {name}" for name in LANGUAGES}


def _translations(images: str, title: str) -> Step:
    """A sentence, of which a noun may be hidden, finds its translation among all others, with its image or without."""
    name = f"translation_retrieval{images}_emoji"
    return Step(name, {f"{name}/test/r_mean": f"translations found {title}, R-mean"})


# Beside images with texts, translations without images keep the languages in one space.
_WITH_TRANSLATIONS = {
    "tasks": ["irtr_languages_emoji", "translation_contrast_emoji"],
    "multitask.mixing": "round_robin",
    "translation_contrast_emoji.per_gpu_batchsize": 64,
    "max_steps": 2400,
}
_ENGLISH_IMAGES = {"irtr_languages_emoji.where.lang": ["en"], "irtr_languages_emoji.tested_where.lang": LANGUAGES}
STEPS = {
    "retrieval": Step("irtr_languages_emoji", _recalls("images and texts, R-mean, all languages")),
    "retrieval_beside_translations": Step(
        "irtr_languages_emoji", _recalls("images and texts beside translations, R-mean"), _WITH_TRANSLATIONS
    ),
    "zero_shot": Step(
        "irtr_languages_emoji",
        _recalls("images and texts, R-mean, English alone"),
        _ENGLISH_IMAGES | _WITH_TRANSLATIONS,
    ),
    "translation": Step(
        "translation_emoji",
        {
            "translation_emoji/test/bleu": "translation, BLEU",
            "translation_emoji/test/bleu_wrong_images": "translation, BLEU with wrong images",
            "translation_hidden_emoji/test/bleu": "translation of hidden nouns, BLEU",
            "translation_hidden_emoji/test/bleu_wrong_images": "translation of hidden nouns, BLEU with wrong images",
        },
        tests=("translation_hidden_emoji",),
    ),
    "translation_retrieval": _translations("", "without images"),
    "translation_retrieval_image": _translations("_image", "with images"),
    "words": Step(
        "mlt_emoji",
        {
            "mlt_emoji/test/accuracy": "ambiguous words, accuracy",
            "mlt_emoji/test/accuracy_with_wrong_images": "ambiguous words, accuracy with wrong images",
            "mlt_emoji/test/most_frequent_accuracy": "ambiguous words, the most frequent translation",
        },
    ),
}


def main(words: Sequence[str] | None = None) -> None:
    arguments = _parser().parse_args(words)
    for name in DATASETS:
        if not (arguments.data / f"{name}_test.arrow").exists():
            write(name, arguments.data)
    arguments.tokenizer = arguments.out / "tokenizer"
    if not (arguments.tokenizer / "tokenizer.json").exists():
        _train_tokenizer(arguments)
    pretrained = _pretrained(arguments)
    found: dict[str, list[dict[str, float]]] = {}
    for number, seed in enumerate(arguments.seeds, 1):
        for name in arguments.steps:
            found.setdefault(name, []).append(measured(name, seed, pretrained, arguments))
        path = arguments.out / "languages.json"
        write_text(path, to_json({"seeds": arguments.seeds[:number], "steps": found}))
        console.print(table(found))


def _parser() -> ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo.languages", description=__doc__)
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), help="default: all")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--out", type=Path, default=Path("result/languages"), help="folder of logs and tables")
    parser.add_argument("--data", type=Path, default=Path("data/emoji"), help="folder of the arrow files")
    parser.add_argument("--pretrained", type=Path, help="English checkpoint to start from (default: pre-train one)")
    return parser


def _train_tokenizer(arguments: Namespace) -> None:
    """Train a tokenizer on the training texts: the embedded one makes capital letters small, which translations need."""
    training = arguments.out / "tokenizer_texts"
    training.mkdir(parents=True, exist_ok=True)
    for name in DATASETS:
        link = training / f"{name}_train.arrow"
        link.unlink(missing_ok=True)
        link.symlink_to((arguments.data / link.name).resolve())
    words = ["train", str(training), "--size", str(PIECES), "--out", str(arguments.tokenizer)]
    announce(f"python -m vlc.tokenizer {' '.join(words)}")
    tokenizer(words)


def _pretrained(arguments: Namespace) -> str:
    """The checkpoint of the pre-training on translations, which goes on from an English one."""
    finished = arguments.out / "pretrained.txt"  # a run that was killed leaves a checkpoint too
    if not finished.exists():
        keys = {"data_root": str(arguments.data), "log_dir": str(arguments.out / "log"), "seed": 0}
        english = arguments.pretrained or pretrain(arguments.data, keys)
        keys |= {"load_path": str(english), "tokenizer": str(arguments.tokenizer)}
        write_text(finished, run_command("task_pretrain_translations_emoji", **keys).checkpoint)
    return finished.read_text(encoding="utf-8")


def measured(name: str, seed: int, pretrained: str, arguments: Namespace) -> dict[str, float]:
    """Train and test a step, or read what an earlier call with the same keys has measured. Has the minutes of training."""
    step = STEPS[name]
    keys = {"data_root": str(arguments.data), "log_dir": str(arguments.out / "log"), "seed": seed}
    keys |= {"tokenizer": str(arguments.tokenizer), **step.keys}
    path, command = arguments.out / f"{name}_seed{seed}.json", f"{step.recipe} {pretrained} {typed(keys)}"
    if path.exists() and (known := json.loads(path.read_text(encoding="utf-8")))["command"] == command:
        console.print(f"{path} has {name} of seed {seed}")
        return known["measured"]
    named, started = f"task_finetune_{step.recipe}", time.perf_counter()
    trained = run_command(named, load_path=pretrained, **keys).checkpoint
    values = {"minutes": (time.perf_counter() - started) / 60}
    for task in ([], *([one] for one in step.tests)):  # the trained task is that of the recipe
        testing = {**keys, "load_path": trained, "test_only": True, "splits": ["test"]} | (
            {"tasks": task} if task else {}
        )
        values |= run_command(named, **testing).metrics
    write_text(path, to_json({"command": command, "measured": values}))
    return values


def table(found: Mapping[str, Sequence[Mapping[str, float]]]) -> Grid:
    """The metrics of all steps: the mean over the seeds, the lowest and the highest value."""
    grid = Grid("task", "mean", "lowest", "highest", "minutes", title="Sentences in four languages, on test")
    for name, seeds in found.items():
        minutes = fmean(values["minutes"] for values in seeds)
        for metric, title in STEPS[name].metrics.items():
            values = [measures[metric] for measures in seeds]
            scale = 1 if "BLEU" in title else 100
            shown = (f"{scale * value:.1f}" for value in (fmean(values), min(values), max(values)))
            grid.add_row(title, *shown, f"{minutes:.1f}")
    return grid


if __name__ == "__main__":
    main()
