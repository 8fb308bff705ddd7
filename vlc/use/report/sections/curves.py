"""Curves of losses and metrics, in training and validation, and of the learning rate."""

from typing import Any

from vlc.use.report.run import Curve, Run
from vlc.use.report.section import Section

_POINTS = 150  # of a line; of more, neighbours are averaged
_SHOWN_ELSEWHERE = ("train/samples_per_second", "train/loader_share", "epoch")


def section(run: Run) -> Section | None:
    charts: dict[str, dict[str, Curve]] = {}
    for one in run.both:
        for tag, curve in one.curves.items():
            if tag not in _SHOWN_ELSEWHERE:
                title, line = named(tag)
                line = f"{one.label} {line}" if run.beside else line
                lines = charts.setdefault(title, {})
                if curve not in lines.values():  # parameter groups often have equal rates
                    lines[line] = curve
    drawn = [chart(title, lines) for title, lines in charts.items() if any(len(curve) > 1 for curve in lines.values())]
    return Section("Curves", "curves", {"charts": drawn}) if drawn else None


def named(tag: str) -> tuple[str, str]:
    """The title of the chart that shows a tag, and the name of its line: vqa/val/loss is line val of vqa loss."""
    *before, last = tag.split("/")
    if tag.startswith("lr-"):
        return "learning rate", last
    return " ".join([*before[:-1], last]), before[-1] if before else ""


def chart(title: str, lines: dict[str, Curve]) -> dict[str, Any]:
    """The lines as points on a field of 100 x 100, y downwards from the highest value."""
    thinned = {name: thin(curve) for name, curve in lines.items()}
    points = [point for line in thinned.values() for point in line]
    last = max(step for step, _ in points) or 1
    bottom, top = min(0, *(value for _, value in points)), max(0, *(value for _, value in points))
    height = top - bottom or 1.0  # nothing but zeros: a flat line at the bottom
    drawn = {
        name: " ".join(f"{100 * x / last:.2f},{100 * (top - y) / height:.2f}" for x, y in line)
        for name, line in thinned.items()
    }
    ends = {name: line[-1][1] for name, line in lines.items()}
    return {"title": title, "lines": drawn, "ends": ends, "last": round(last), "top": top, "bottom": bottom}


def thin(curve: Curve) -> list[tuple[float, float]]:
    """A curve with no more than so many points: the means of neighbours."""
    size = -(-len(curve) // _POINTS)
    parts = [curve[start : start + size] for start in range(0, len(curve), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]
