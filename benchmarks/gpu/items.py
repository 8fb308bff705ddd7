"""Items of a part: each is run by itself, and what failed or had no time is a row of the table too."""

import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """How items are run.

    device: where they are computed.
    tiny: whether the models and images are tiny, which tests the paths and measures nothing of interest.
    ends: the time by `time.monotonic` after which no item starts.
    compare: a checkout of guilk/VLC.
    """

    device: torch.device
    tiny: bool
    ends: float
    compare: Path | None = None

    @property
    def words(self) -> list[str]:
        """Config keys of the small size; none in full size."""
        return ["vit=mae_vit_tiny_patch16", "image_size=32"] if self.tiny else []


Item = Callable[[Setting], dict[str, Any]]


class Unsuitable(Exception):
    """An item that cannot be run in this setting; the message says why."""


def rows(items: Mapping[str, Item], setting: Setting) -> Iterator[dict[str, Any]]:
    """Yield a row for each item: its figures, and the outcome "ok", "FAILED: why" or "left out: why"."""
    for name, item in items.items():
        if time.monotonic() > setting.ends:
            yield {"item": name, "outcome": "left out: no time"}
            continue
        started = time.monotonic()
        try:
            found = {"outcome": "ok"} | item(setting)
        except Unsuitable as why:
            found = {"outcome": f"left out: {why}"}
        except Exception as error:  # of any kind: the table names it, and the command ends with status 1
            traceback.print_exc()
            found = {"outcome": f"FAILED: {type(error).__name__}: {str(error)[:300]}"}
        yield {"item": name, **found, "took_s": round(time.monotonic() - started, 1)}
        if setting.device.type == "cuda":
            torch.cuda.empty_cache()
