"""How seconds and peak memory grow with the batch (in the ranking: the texts) and with the image.

`python -m benchmarks.growth --case pretrain_224 --batches 2 4 8 --image-sizes 224 320 384`: each batch at the case's image
size, and each image size at the smallest batch. Prints a table; writes it with --json.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES
from benchmarks.report import ROOT, report
from benchmarks.step import DTYPES, Side


def main() -> None:
    arguments = _parse()
    case, least = CASES[arguments.case], min(arguments.batches)
    points = [(batch, case.image_size) for batch in sorted(arguments.batches)]
    points += [(least, size) for size in sorted(arguments.image_sizes) if size != case.image_size]
    rows = [_row(batch, size, arguments) for batch, size in points]
    report(rows, f"{arguments.case}, {arguments.precision}", arguments)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--batches", nargs="+", type=int, default=[2, 4, 8])
    parser.add_argument("--image-sizes", nargs="+", type=int, default=[])
    parser.add_argument("--precision", choices=DTYPES, default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write the rows to")
    return parser.parse_args()


def _row(batch: int, image_size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    side = Side("benchmarks.ours", [arguments.case, str(batch), arguments.precision, f"image_size={image_size}"], ROOT)
    repeats = [side.repeat() for _ in range(1 + arguments.repeats)][1:]  # the first one warms up
    side.close()
    seconds = [repeat["seconds"] for repeat in repeats]
    return {
        "batch": batch,
        "image_size": image_size,
        "median_s": round(statistics.median(seconds), 3),
        "spread_s": round(max(seconds) - min(seconds), 3),
        "s_per_sample": round(statistics.median(seconds) / batch, 3),
        "peak_mb": round(max(repeat["peak_mb"] for repeat in repeats)),
    }


if __name__ == "__main__":
    main()
