"""How fast the run was, how long it waited for data, and how much memory it took."""

import statistics
from typing import Any

from vlc.use.report.run import Run
from vlc.use.report.section import Section
from vlc.use.report.sections.curves import chart


def section(run: Run) -> Section | None:
    runs = [_measured(one) for one in run.both]
    return Section("Speed", "speed", {"runs": runs}) if any(one["rows"] for one in runs) else None


def _measured(run: Run) -> dict[str, Any]:
    rows, charts = {}, []
    if rates := run.curves.get("train/samples_per_second"):
        values = [value for _, value in rates]
        rows["samples/s in training, median"] = f"{statistics.median(values):.1f}"
        rows["slowest and fastest ten batches"] = f"{min(values):.1f} and {max(values):.1f}"
        if len(rates) > 1:
            charts.append(chart("samples/s", {"train": rates}))
    if waits := run.curves.get("train/loader_share"):
        rows["share of the time that waits for batches, median"] = f"{statistics.median(v for _, v in waits):.1%}"
    if run.facts is not None:
        rows["machine"] = run.facts.machine
        if run.facts.seconds is not None:
            rows["seconds"] = f"{run.facts.seconds:,.0f}"
        if run.facts.peak_memory is not None:
            rows["peak memory"] = f"{run.facts.peak_memory / 1e9:.2f} GB"
    return {"name": run.label, "rows": rows, "charts": charts}
