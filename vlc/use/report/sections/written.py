"""Texts that the model writes, beside what it read and what is right."""

from typing import Any

import torch

from vlc.data.samples import Samples
from vlc.evaluation.inputs import batch_of
from vlc.objectives.generation import Generation
from vlc.use.report.evaluation import chosen
from vlc.use.report.run import Run, head_name
from vlc.use.report.section import Section

_SHOWN = 12
_NOTE = "Examples are spread over the split, and not selected."


def section(run: Run) -> Section | None:
    module, tables = run.module, []
    for samples in run.data.evaluation.values():
        for one in module.tasks[samples.task].heads:
            if isinstance(head := module.objectives[one.name], Generation):
                title = f"{head_name(samples.task, one.name)}, {samples.called}"
                tables.append({"title": title, "rows": _rows(run, samples, head)})
    return Section("Written texts", "written", {"tables": tables}, _NOTE) if tables else None


@torch.inference_mode()
def _rows(run: Run, samples: Samples, head: Generation) -> list[dict[str, Any]]:
    module, encoder = run.module, samples.preparation.encoder
    numbers = chosen(len(samples), _SHOWN)
    batch = module.normalised(batch_of(samples, numbers).to(module.device))
    written = head.written(module.encoder, batch, encoder)
    rows = []
    for number, one in zip(numbers, written, strict=True):
        source, where = samples.locate(number)
        truth = source.field(where, head.options.target) if head.options.target else source.text(where)
        read = source.text(where) if head.options.target else ""
        rows.append({"read": read, "truth": truth, "written": encoder.text_of(one.ids)})
    return rows
