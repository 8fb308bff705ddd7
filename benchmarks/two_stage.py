"""Recall and time of exact and of two-stage ranking beside each other, for a checkpoint with a contrastive head.

`python -m benchmarks.two_stage task_pretrain_emoji data_root=ARROWS datasets=[emoji_compositional] loss_names.itm=1 ...
load_path=CHECKPOINT`: named configs and keys as run.py takes them. Prints a table; writes it with --json.
"""

import argparse
import time
from pathlib import Path
from typing import Any

from benchmarks.report import report
from benchmarks.words import config_values
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings
from vlc.data.corpus import Corpus
from vlc.evaluation.ranking import Scorer, evaluate
from vlc.objectives.itc import ITC
from vlc.training.run import build_data, build_module

DEPTHS = (16, 32, 64, 128)
SHOWN = ("ir_r1", "ir_r5", "ir_r10", "tr_r1", "tr_r5", "tr_r10")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_stage", description=__doc__)
    parser.add_argument("words", nargs="+", help="named configs, key=value")
    parser.add_argument("--split", default="test")
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    arguments = parser.parse_args()
    named = [word for word in arguments.words if "=" not in word]
    settings = Settings.from_config(resolve(*named, test_only=True, **config_values(arguments.words)))
    data = build_data(settings)
    module = build_module(settings, data).eval()
    heads = module.objectives
    score = heads["irtr" if "irtr" in heads else "itm"].score
    corpus = Corpus(data.evaluation[arguments.split])

    itc = heads["itc"]
    assert isinstance(itc, ITC)
    rows = [_timed("embeddings alone", Scorer(module.encoder, corpus, module.device, itc=itc), None)]
    scorer = Scorer(module.encoder, corpus, module.device, score=score, itc=itc)
    rows += [_timed(f"{depth} re-ranked", scorer, depth) for depth in DEPTHS if depth < corpus.num_rows]
    rows.append(_timed("all, exact", scorer, None))
    report(rows, f"{corpus.num_rows} images, {corpus.num_columns} texts", arguments)


def _timed(name: str, scorer: Scorer, depth: int | None) -> dict[str, Any]:
    started = time.perf_counter()
    found = evaluate(scorer, None, rerank_k=depth)
    seconds = time.perf_counter() - started
    return {"ranking": name, "seconds": round(seconds, 2)} | {key: round(100 * found[key], 1) for key in SHOWN}


if __name__ == "__main__":
    main()
