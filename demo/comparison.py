"""A comparison of one model of several tasks with a model for each of them, as a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

HEADER = ("task", "metric on test", "a guess", "alone", "together")


@dataclass(frozen=True)
class Measured:
    """A finished run: training and test.

    metrics: values by "task/split/metric" of the metrics that judge its tasks.
    parameters: the number of parameters of the model.
    minutes: how long training took, with its validation.
    """

    metrics: dict[str, float]
    parameters: int
    minutes: float


def compared(
    steps: int, seeds: Sequence[int], single: Sequence[Sequence[Measured]], together: Sequence[Measured]
) -> dict[str, Any]:
    """Return the comparison as plain values.

    steps: the batches of each task.
    single, together: by seed, the runs of all tasks alone, and the run of all tasks together.
    """
    rows: list[dict[str, Any]] = []
    for name in together[0].metrics:
        task, _, metric = name.split("/", 2)
        alone = [next(run.metrics[name] for run in runs if name in run.metrics) for runs in single]
        rows.append({"task": task, "metric": metric, "single": alone, "all": [run.metrics[name] for run in together]})
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    return {
        "steps": steps,
        "seeds": list(seeds),
        "rows": rows,
        "better": [task for task in tasks if _score(rows, task, "all") > _score(rows, task, "single")],
        "parameters": {"single": sum(run.parameters for run in single[0]), "all": together[0].parameters},
        "minutes": {
            "single": [sum(run.minutes for run in runs) for runs in single],
            "all": [run.minutes for run in together],
        },
    }


def _score(rows: Sequence[dict[str, Any]], task: str, side: str) -> float:
    """The mean of a task's metrics over all seeds."""
    return fmean(value for row in rows if row["task"] == task for value in row[side])


def cells(comparison: dict[str, Any]) -> list[tuple[str, ...]]:
    """The rows of the table: each metric, and then how many tasks are better, the parameters, and the time."""
    rows = comparison["rows"]
    if not rows:
        return []
    found = []
    for row in rows:
        single, together = (_mean_and_range([100 * value for value in row[side]], " %") for side in ("single", "all"))
        found.append((row["task"], row["metric"], f"{100 * row['guess']:.1f} %", single, together))
    num_tasks, parameters = len({row["task"] for row in rows}), comparison["parameters"]
    minutes = comparison["minutes"]
    return [
        *found,
        ("better tasks", "", "", "", f"{len(comparison['better'])} of {num_tasks}"),
        ("parameters", "", "", f"{parameters['single']:,}", f"{parameters['all']:,}"),
        ("minutes", "", "", *(_mean_and_range(minutes[side], "") for side in ("single", "all"))),
    ]


def _mean_and_range(values: Sequence[float], unit: str) -> str:
    """Such as "62.7 % (60.1 to 64.0)"."""
    spread = f" ({min(values):.1f} to {max(values):.1f})" if len(values) > 1 else ""
    return f"{fmean(values):.1f}{unit}{spread}"
