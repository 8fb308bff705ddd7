"""Training steps with adapters of low rank beside full fine-tuning: the share of parameters that are trained, time, memory.

    python -m benchmarks.lora --rank 8 --case vqa_384
Both sides run in processes of their own and take turns, so that a noisy machine disturbs both alike. Weights are random.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.ours import made
from benchmarks.report import ROOT, report
from benchmarks.step import DTYPES, Side
from benchmarks.words import config_values
from vlc.configuration.config import resolve
from vlc.configuration.settings import Settings


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.lora", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, default="vqa_384")
    parser.add_argument("--precision", nargs="+", choices=DTYPES, default=list(DTYPES))
    parser.add_argument("--rank", nargs="+", type=int, default=[8])
    parser.add_argument("--batch", type=int, help="by default the case's")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="further config keys of both sides")
    parser.add_argument("--warmup", type=int, default=2, help="repeats that do not count (default: 2)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    parser.add_argument("-v", action="store_true", help="show what the sides print")
    arguments = parser.parse_args()
    rows = [row for precision in arguments.precision for row in measure(precision, arguments)]
    report(rows, "training steps", arguments)


def measure(precision: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for full fine-tuning, and one for each rank; ratios are the figure of full fine-tuning over the row's."""
    batch = arguments.batch or CASES[arguments.case].batch
    assignments = {"full": arguments.set}
    assignments |= {
        f"rank {rank}": [*arguments.set, f"lora.rank={rank}", "load_path=random"] for rank in arguments.rank
    }
    sides = {
        name: Side("benchmarks.ours", [arguments.case, str(batch), precision, *words], ROOT)
        for name, words in assignments.items()
    }
    for number in range(arguments.warmup + arguments.repeats):
        for side in sides.values():
            answer = side.repeat()
            if number >= arguments.warmup:
                side.repeats.append(answer)
    rows = []
    for name, side in sides.items():
        side.close()
        seconds = [repeat["seconds"] for repeat in side.repeats]
        trained, whole = _sizes(arguments.case, assignments[name])
        row = {"case": arguments.case, "batch": batch, "precision": precision, "side": name}
        row |= {
            "trained": trained,
            "share": round(trained / whole, 4),
            "median_s": round(statistics.median(seconds), 3),
        }
        row |= {"spread_s": round(max(seconds) - min(seconds), 3)}
        rows.append(row | {"peak_mb": round(max(repeat["peak_mb"] for repeat in side.repeats))})
    for row in rows:
        row["faster"] = round(rows[0]["median_s"] / row["median_s"], 2)
        row["less_memory"] = round(rows[0]["peak_mb"] / row["peak_mb"], 2)
    return rows


def _sizes(case: str, assignments: list[str]) -> tuple[int, int]:
    """How many parameters are trained, and how many there are."""
    own = CASES[case]
    settings = Settings.from_config(resolve(own.recipe, **own.settings | config_values(assignments)))
    parameters = list(made(own, settings).parameters())
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    return trained, sum(parameter.numel() for parameter in parameters)


if __name__ == "__main__":
    main()
