"""Input, what the encoder saw of it, and the reconstruction, for images spread over a test split."""

from typing import Any

import torch

from vlc.evaluation.drawing import reconstructions
from vlc.evaluation.inputs import batch_of
from vlc.objectives.mae import MAE
from vlc.use.report.evaluation import chosen
from vlc.use.report.run import Run
from vlc.use.report.section import Section

SHOWN = 8
_NOTE = (
    "Input, what the encoder saw ({:.0f} % of the patches dropped), and the reconstruction. Reconstructed patches have the "
    "mean and contrast of the true ones, which the objective does not predict."
)


def section(run: Run) -> Section | None:
    module = run.module
    for samples in run.data.evaluation.values():
        heads = [one.name for one in module.tasks[samples.task].heads if isinstance(module.objectives[one.name], MAE)]
        if heads:
            return Section(
                "Reconstructions",
                "reconstructions",
                {"triples": _triples(run, samples, heads[0])},
                _NOTE.format(100 * run.settings.model.mask_ratio),
            )
    return None


@torch.inference_mode()
def _triples(run: Run, samples: Any, head: str) -> list[list[Any]]:
    module = run.module
    batch = module.normalised(batch_of(samples, chosen(len(samples), SHOWN)).to(module.device))
    outcome, size = module.outcomes(batch)[head], module.encoder.size
    return reconstructions(batch, outcome, size)
