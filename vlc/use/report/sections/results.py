"""The result table: every metric with its bootstrap interval, what chance gives, and what a whole test measured."""

from typing import Any

from vlc.common.errors import UserError
from vlc.evaluation.intervals import Interval, bootstrap
from vlc.use.report.evaluation import Metric
from vlc.use.report.run import Run
from vlc.use.report.section import Section

_NOTE = (
    "95 % intervals come from 1,000 resamples: of examples where the head judges single answers, otherwise of batches, if "
    "there are 8 or more. Chance is what a choice at random among the answers would have."
)

_MOST_SIZES = 4  # splits that are listed


def section(run: Run) -> Section | None:
    tables = [_table(one) for one in run.both]
    if not any(table["others"] or any(table["groups"].values()) for table in tables):
        return None
    return Section("Results", "results", {"tables": tables}, _NOTE)


def _table(run: Run) -> dict[str, Any]:
    """The rows of a run. What was not evaluated, as it cannot be, stands there as its test measured it."""
    whole = dict(run.results.metrics) if run.results else {}
    measured, chances, problem = {}, {}, ""
    try:
        measured, chances = intervals(run), _chances(run)
    except UserError as error:
        if not whole:
            raise
        problem = str(error)
    rows = []
    for metric, interval in measured.items():
        name = _name(run, metric)
        chance = chances.get(metric[:3]) if _is_headline(run, metric) else None
        rows.append((metric, interval, chance, whole.pop(name, None)))
    first = [row for row in rows if _is_headline(run, row[0])]
    return {
        "name": run.label,
        "groups": {"": first, "Losses and further metrics": [row for row in rows if row not in first]},
        "others": sorted(whole.items()),
        "problem": problem,
        "part": _part(run, problem),
    }


def intervals(run: Run) -> dict[Metric, Interval]:
    """The interval of each metric of each head and split."""
    found = {}
    for (task, head, split), examples in run.by_head().items():
        metric = Metric(task, head, split, f"{run.module.objectives[head].headline}")
        found[metric] = bootstrap([one.score for one in examples if one.score is not None])
    if run.stores_examples:  # a whole test: its other metrics are known already
        return found
    for metric, ratios in run.evaluated.ratios.items():
        if metric not in found and any(count for _, count in ratios):
            found[metric] = bootstrap([total for total, _ in ratios], [count for _, count in ratios])
    return dict(sorted(found.items()))


def _chances(run: Run) -> dict[tuple[str, ...], float]:
    return {place: total / count for place, (total, count) in run.evaluated.chances.items() if count}


def _is_headline(run: Run, metric: Metric) -> bool:
    return run.module.objectives[metric.head].headline == metric.name


def _name(run: Run, metric: Metric) -> str:
    """The name of a metric in metrics.json."""
    task = run.module.tasks[metric.task]
    return task.metric(next(head for head in task.heads if head.name == metric.head), metric.split, metric.name)


def _part(run: Run, problem: str) -> str:
    """Of how many samples the intervals are."""
    if problem:
        return ""
    if run.stores_examples:
        return "The examples are those of the whole test."
    sizes = [
        f"{done:,} of {size:,} of {' '.join(filter(None, place))}"
        for place, (done, size) in run.evaluated.sizes.items()
    ]
    if len(sizes) > _MOST_SIZES:
        most = max(done for done, _ in run.evaluated.sizes.values())
        sizes = [f"up to {most:,} samples of each of {len(sizes)} splits, spread evenly"]
    return f"Evaluated here, from {run.checkpoint.name}: {', '.join(sizes)}."
