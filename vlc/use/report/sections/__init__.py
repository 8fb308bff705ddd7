"""The sections of a report, in their order: a row for each, in a file of its own."""

from vlc.use.report.section import Row
from vlc.use.report.sections import (
    calibration,
    comparison,
    confusion,
    curves,
    examples,
    first,
    grounding,
    groups,
    masks,
    origin,
    reconstructions,
    reproduce,
    results,
    retrieval,
    sanity,
    speed,
    written,
)

_ANSWERS = "no head of the run judges single answers on labelled samples"
SECTIONS = {
    "What it is": Row(origin.section, ""),
    "Results": Row(results.section, "nothing was measured"),
    "Comparison": Row(comparison.section, "the two runs share no example that both have answered", compares=True),
    "By type, language and split": Row(groups.section, "nothing in the data describes the examples"),
    "Inputs left out": Row(sanity.section, _ANSWERS),
    "Calibration": Row(calibration.section, "no head gives a probability with its answer"),
    "Confident answers": Row(examples.section, _ANSWERS),
    "First answers": Row(first.section, _ANSWERS),
    "Grounding": Row(grounding.section, "no head answers with a box"),
    "Confusion": Row(confusion.section, "no head chooses among answers that come again"),
    "Retrieval": Row(retrieval.section, "no head ranks images and texts"),
    "Reconstructions": Row(reconstructions.section, "no head reconstructs images"),
    "Hidden words": Row(masks.section, "no head fills in hidden words"),
    "Written texts": Row(written.section, "no head writes texts"),
    "Curves": Row(curves.section, "the log folder has no curve of a training"),
    "Speed": Row(speed.section, "nothing of its speed was logged"),
    "How to reproduce": Row(reproduce.section, ""),
}
