"""Whether confidences say how often answers are right: reliability, expected calibration error, coverage."""

from vlc.evaluation.intervals import calibration
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_LEAST = 20  # examples
_NOTE = (
    "Bars: the mean score of the answers in each range of confidence; their width is the share of the answers. The line is "
    "where both agree. ECE is the expected calibration error in ten ranges. Below, for each of "
    "some mean scores, the coverage: the share of the answers, the most confident ones, that reaches it."
)


def section(run: Run) -> Section | None:
    charts = []
    for one in run.both:
        for (task, head, split), examples in one.by_head().items():
            sure = [
                (own.confidence, own.score) for own in examples if own.confidence is not None and own.score is not None
            ]
            if len(sure) < _LEAST:
                continue
            confidences, scores = zip(*sure, strict=True)
            name = f"{one.label}: " if run.beside else ""
            title = f"{name}{head_name(task, head)}, {split}"
            charts.append({"title": title, "size": len(sure), "found": calibration(confidences, scores)})
    return Section("Calibration", "calibration", {"charts": charts}, _NOTE) if charts else None
