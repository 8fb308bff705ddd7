"""The report of the demonstration: the page of `run.py report` about its two runs, with a table of all its results."""

from pathlib import Path
from typing import Any

from vlc.configuration.config import resolve
from vlc.use.report import Page, Part, Run, write_page
from vlc.use.report.section import Section
from vlc.workflows.commands import Stage

NUM_EXAMPLES = 300  # of each split of a run, which the report evaluates
_LEAD = (
    "One ViT read captions and scenes of emoji in a single stream (masked language, image-text matching, masked patches), "
    "then learnt to answer questions. test: scenes it never saw. held_out: scenes that show two things together which no "
    "training scene shows together."
)
_NOTE = (
    "Chance is the most frequent training answer to each type of question, the most frequent class, or a guess. Figures "
    "are those of tests of whole splits."
)


def write_report(path: Path, rows: list[dict[str, Any]], pretrained: Stage, finetuned: Stage) -> Path:
    """Write the report of a pre-trained and a fine-tuned model; rows: the result table. Returns the path."""
    stages = {"Questions": finetuned, "Pre-training": pretrained}
    parts = [Part(name, Run(stage.log_dir, resolve(), {}, NUM_EXAMPLES)) for name, stage in stages.items()]
    columns = ["", "test", "chance", "held_out", "chance"]
    keys = ["test", "test_chance", "held_out", "held_out_chance"]
    table = [[row["label"], *("" if row[key] is None else f"{row[key]} {row['unit']}" for key in keys)] for row in rows]
    results = Section("All results", "table", {"columns": columns, "rows": table}, _NOTE)
    title = "what a model of a million parameters learnt in minutes"
    write_page(Page(title, "make demo", parts, _LEAD, [results]), path)
    return path
