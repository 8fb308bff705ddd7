"""Ranking: an evaluator that scores every row of a split with every column, exactly or in two stages."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_info

from vlc.common.errors import UnwritableFile
from vlc.common.files import check_room, to_json
from vlc.data.corpus import Corpus, Group, Rankable, Translations
from vlc.data.samples import Samples
from vlc.evaluation.evaluator import Model
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import write_text
from vlc.evaluation.ranks import mean_recall, recalls
from vlc.evaluation.score_files import scores_bytes, write_scores
from vlc.evaluation.scorer import Scorer
from vlc.evaluation.scores import Scores
from vlc.hardware.distributed import gather_lists, is_first_process
from vlc.objectives.itc import ITC

IN_MEMORY_UP_TO = 2 * 10**9  # bytes of exact scores of a process; more lie in a file while they are ranked


@dataclass(frozen=True)
class Ranking:
    """The evaluator of retrieval: recalls of images found by texts, and of texts found by images, in each language apart.

    Of samples that are pairs of texts, recalls of the translations of sentences, in each direction apart.

    head: name of the head that ranks.
    itc: name of the contrastive head that finds candidates, where the task has one.
    every: see `Evaluator`.
    rerank_k: how many candidates the ranking head scores where there are embeddings; None: all.
    save_scores: whether a test writes its scores.
    task: the name of the task, for models with task tokens.
    pairs: whether samples are pairs of texts.
    workers: how many processes read images ahead.
    """

    head: str
    itc: str | None = None
    every: int = 0
    rerank_k: int | None = None
    save_scores: bool = False
    task: str = ""
    pairs: bool = False
    workers: int = 0
    headlines: ClassVar[tuple[str, ...]] = ("ir_r1", "tr_r1", "r_mean")  # r_mean of data with languages

    def __call__(self, model: Model, samples: Samples, out: Path | None) -> dict[str, float]:
        score = None if self.head == self.itc else model.objectives[self.head].score
        itc = model.objectives[self.itc] if self.itc else None
        assert itc is None or isinstance(itc, ITC)
        corpus = Translations(samples) if self.pairs else Corpus(samples)
        options: dict[str, Any] = {"score": score, "itc": itc, "task": self.task, "workers": self.workers}
        scorer = Scorer(model.encoder, corpus, model.device, **options)
        out = None if out is None else out.with_name(f"{out.name}_ranking")
        return evaluate(scorer, out, rerank_k=self.rerank_k, save_scores=self.save_scores)


def evaluate(
    scorer: Scorer, out: Path | None, *, rerank_k: int | None = None, save_scores: bool = False
) -> dict[str, float]:
    """Return the recalls of a corpus, on every process.

    They are exact where the model has no embeddings or rerank_k is None, use embeddings alone where it has no other head,
    and otherwise have two stages. Groups of a name are ranked apart: the names of their metrics end in it, as in ir_r1_de,
    r_mean_de is the mean of the group's recalls, and r_mean the mean over all groups. No process holds the scores of all
    rows. Raises UnwritableFile, before any work, where the disk has no room for the scores.

    out: rank 0 writes OUT.json, the recalls.
    save_scores: rank 0 also writes the scores (`vlc.evaluation.score_files.write_scores`).
    """
    corpus, saves = scorer.corpus, save_scores and out is not None
    kind = "similarities" if scorer.score is None else "exact" if rerank_k is None or not scorer.embeds else "reranked"
    matrices = 2 if kind == "reranked" and corpus.finds_rows else 1
    folder = _room(scorer, out, stored=kind == "exact", saved=matrices * scores_bytes(corpus) if saves else 0)
    scores: Scores
    if kind == "similarities":
        scores = scorer.similarities()
    elif kind == "exact":
        scores = scorer.exact(folder=folder)
    else:
        assert rerank_k is not None
        scores = scorer.reranked(rerank_k)
    if not all(gather_lists([scores.finite])):
        check_finite({"the scores of a ranking": np.nan})
    found = {group.name: _measured(corpus, group, scores) for group in corpus.groups}
    values = {f"{metric}_{name}" if name else metric: value for name in found for metric, value in found[name].items()}
    if means := [own["r_mean"] for own in found.values() if "r_mean" in own]:
        values["r_mean"] = float(np.mean(means))
    if any(found):
        facts = ", ".join(f"{name}: {value}" for name, value in corpus.facts.items())
        rank_zero_info(f"Ranked each of {', '.join(found)} apart ({facts})")
    if out is not None and is_first_process():
        write_text(out.with_name(f"{out.name}.json"), to_json(corpus.facts | values))
    if out is not None and saves:
        write_scores(out, corpus, scores)
    return values


def _room(scorer: Scorer, out: Path | None, *, stored: bool, saved: int) -> Path | None:
    """Return the folder for exact scores that do not fit into memory; None: they do.

    Raises UnwritableFile on all processes where one has no room for them on its disk, or rank 0 for the files.

    stored: whether scores are kept while they are ranked.
    saved: bytes of the files.
    """
    size = 4 * scorer.rows_of_process * scorer.corpus.num_columns if stored else 0
    size = size if size > IN_MEMORY_UP_TO else 0
    folder = Path(tempfile.gettempdir()) if out is None else out.parent
    needed, problems = size * scorer.num_processes + (saved if is_first_process() else 0), list[str]()
    if needed:
        what = f"the scores of the ranking{' (save_scores=True)' if saved else ''} take"
        try:
            check_room("TMPDIR=" if out is None else "log_dir=", folder, needed, what=what)
        except UnwritableFile as error:
            problems.append(str(error))
    if problems := gather_lists(problems):
        raise UnwritableFile(problems[0])
    return folder if size else None


def _measured(corpus: Rankable, group: Group, scores: Scores) -> dict[str, float]:
    """The recalls of a group; of one with a name, their mean too."""
    values = recalls(scores, group, finds_rows=corpus.finds_rows)
    mean = mean_recall(values) if group.name else None
    return values if mean is None else values | {"r_mean": mean}
