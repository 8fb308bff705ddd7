"""The file of metrics that a test leaves in its log folder."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from vlc.common.errors import UserError
from vlc.common.files import to_json
from vlc.evaluation.predictions import write_text

FILE = "metrics.json"


@dataclass(frozen=True)
class Results:
    """What a test measured.

    checkpoint: the path of the tested checkpoint.
    parameters: the number of parameters of the model.
    headlines: the names of the metrics that judge the tasks.
    metrics: all metrics by name: task/split/metric, or head/split/metric of a task without a name.
    """

    checkpoint: str
    parameters: int
    headlines: list[str]
    metrics: Mapping[str, float]

    def write(self, folder: str | Path) -> None:
        write_text(Path(folder) / FILE, to_json(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Read a file. Raises UserError where it is damaged or something else."""
        try:
            found = cls(**json.loads(path.read_text(encoding="utf-8")))
            values = [found.metrics[name] for name in found.headlines]
        except (OSError, ValueError, TypeError, LookupError) as error:
            raise UserError(f"{path} does not hold the metrics of a test ({error}): test again") from error
        if not all(isinstance(value, float) for value in values):
            raise UserError(f"{path} does not hold the metrics of a test, which are numbers: test again")
        return found
