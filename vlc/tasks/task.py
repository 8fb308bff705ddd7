"""A task is a row of data: what is learnt from which data sets, by which heads, and what is reported of a test."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vlc.common.files import to_json

EVALUATORS = ("ranking", "inputs", "translation", "captions")
# What the tasks on scenes of emoji have in common: short texts, and images that need no augmentation.
SMALL: dict[str, Any] = {"max_text_len": 16, "transforms": ("mae_test", "mae_test"), "batch_size": 32}
Records = list[dict[str, Any]]  # one for each example of an evaluated split


def _no_summary(records: Records) -> dict[str, float]:
    return {}


def _all_records(records: Records) -> tuple[str, str]:
    return "json", to_json(records)


@dataclass(frozen=True)
class Report:
    """What is made of the records of a whole split.

    summary: returns further metrics by name.
    submission: returns the suffix and the content of the file that an evaluation server or a scorer takes.
    """

    summary: Callable[[Records], dict[str, float]] = _no_summary
    submission: Callable[[Records], tuple[str, str]] = _all_records


@dataclass(frozen=True)
class Task:
    """One stream of batches with its objectives.

    objectives: weight of the loss by kind of objective.
    datasets: names in the catalogue; their training splits are joined.
    heads: name of the head by kind of objective, where it is not the kind's name. Tasks that name the same head share it.
    options: by kind of objective, the options that differ from their defaults.
    report: what is made of the records of a tested split.
    max_text_len: tokens with [CLS] and [SEP].
    transforms: image pipelines of training and of evaluation.
    batch_size, learning_rate, epochs: defaults of the run that trains the task.
    composer: the name in `vlc.data.composers.COMPOSERS` by which texts are put together.
    drops_patches: the encoder sees a part of the patches, as in pre-training.
    image_only: no texts are read.
    published: further names by which the task may be called, such as its number and name in 12-in-1 (Lu et al. 2020).
    evaluators: names out of EVALUATORS; each runs in tests, and at every n-th validation where its number n is not 0.
    where: the texts that are samples, as values by field of the catalogue, such as {"lang": ("en", "de")}; empty: all.
    pairs: directions such as en-de, or *-*; a sample is then a text with its translation (`vlc.data.selection`).
    tested_where, tested_pairs: what holds in evaluation instead; fields that tested_where lacks are as in `where`.
    language_weights: shares of languages, or of directions, in training; empty: all samples are drawn.
    """

    objectives: Mapping[str, float]
    datasets: tuple[str, ...]
    heads: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    max_text_len: int = 40
    transforms: tuple[str, str] = ("mae_randaug", "mae_test")
    batch_size: int = 256
    learning_rate: float = 1e-4
    epochs: int = 10
    drops_patches: bool = False
    image_only: bool = False
    composer: str = "plain"
    evaluators: Mapping[str, int] = field(default_factory=dict)
    published: tuple[str, ...] = ()
    where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pairs: tuple[str, ...] = ()
    tested_where: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tested_pairs: tuple[str, ...] = ()
    language_weights: Mapping[str, float] = field(default_factory=dict)

    def head(self, kind: str) -> str:
        """The name of the head of an objective."""
        return self.heads.get(kind, kind)
