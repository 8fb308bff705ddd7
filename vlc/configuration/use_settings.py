"""The keys of the commands that use a trained checkpoint. Training runs do not have them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from vlc.common.errors import require
from vlc.configuration.command_settings import (
    CommandSettings,
    FitSettings,
    ProbeSettings,
    ServiceSettings,
    SweepSettings,
)
from vlc.configuration.values import check_types, read

COMMANDS = (
    "predict",
    "index",
    "search",
    "features",
    "hard_pool",
    "serve",
    "report",
    "explain",
    "export",
    "sweep",
    "doctor",
    "probe",
    "fit",
)
PASS_ON = ("fit",)  # commands that pass keys of training on to runs, which check whether they have an effect


@dataclass(frozen=True)
class UseSettings:
    """Inputs of the commands, and where their results go."""

    image: str | None = None  # file that predict is asked about, or that search finds texts for
    image2: str | None = None  # second image of a statement about two
    text: str | tuple[str, ...] | None = None  # what predict is asked, or a list of it; [MASK] = a word to fill in
    boxes: tuple[float, ...] | None = None  # left, top, right, bottom of each box to choose among, ask about or name
    box_names: tuple[str, ...] | None = None  # what each of boxes is called, where texts name it as [0], [1], ...
    options: tuple[str, ...] | None = None  # for the answer to text, for heads that choose among them
    answer: str | None = None  # to text, where options are rationales for it
    picture: str | None = None  # file for the reconstruction of the image by a mae head, or for the box that is meant
    index: str | None = None  # folder of the index
    image_folder: str | None = None  # read the images below it in place of datasets
    query: str | None = None  # text that search finds images for
    num_results: int = 10  # of a search
    out: str | None = None  # file of what predict, search, report or doctor say; folder for tables, maps, exports, ...
    method: str | None = None  # of explain, and of maps in report; None: the best one (explanations.md)
    limit: int = 100  # examples of which explain draws pictures, over data sets or folders
    file_format: str | None = None  # of tables: arrow, parquet, jsonl; of export: onnx, ... (export.md); None = usual
    ray: str | None = None  # address of a Ray cluster that computes features, index, predict, explain; local: one here
    published_pool: str | None = None  # 12-in-1's hard_negative.pkl, which hard_pool converts in place of images
    service: ServiceSettings = ServiceSettings()  # where serve listens and what it takes (service.md)
    probe: ProbeSettings = ProbeSettings()  # how probe measures on images in classes (evaluations.md)
    run: str | None = None  # log folder of a run, a test or a demonstration that report is about
    compare: str | None = None  # log folder of a run that report sets beside it
    sweep: SweepSettings = SweepSettings()  # which runs sweep does (runs.md)
    num_examples: int = 500  # of each test split that report evaluates
    table: str | None = None  # labelled table that fit learns from: a file, or a folder (own_tables.md)
    fit: FitSettings = FitSettings()  # how fit reads the table, and what it trains (own_tables.md)

    @property
    def several_boxes(self) -> list[tuple[float, ...]] | None:
        """The boxes, four numbers each."""
        edges = self.boxes
        return None if edges is None else [edges[first : first + 4] for first in range(0, len(edges), 4)]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UseSettings":
        """Read and check these keys of a configuration; missing ones have their defaults. Raises UserError."""
        given = {field.name: read(config[field.name], field.type) for field in fields(cls) if field.name in config}
        for name, group in _GROUPS.items():
            if name in given:
                given[name] = group.from_config(config[name])
        settings = cls(**given)
        check_types(settings)
        edges = settings.boxes or (0, 0, 0, 0)
        expected = "four numbers for each box: left, top, right, bottom"
        require(len(edges) % 4 == 0, "boxes", list(edges), expected)
        named = settings.box_names is None or (4 * len(settings.box_names) == len(edges) and settings.boxes is not None)
        require(named, "box_names", settings.box_names, "a name for each of boxes")
        for key in ("answer", "box_names"):
            alone = getattr(settings, key) is not None and not settings.options
            require(not alone, key, getattr(settings, key), "None, as it belongs to options=[...]")
        require(settings.num_examples >= 1, "num_examples", settings.num_examples, "1 or more")
        require(settings.limit >= 0, "limit", settings.limit, "0 or more")
        require(settings.num_results >= 1, "num_results", settings.num_results, "1 or more")
        return settings


_GROUPS: dict[str, type[CommandSettings]] = {
    group.command: group for group in (ServiceSettings, SweepSettings, ProbeSettings, FitSettings)
}
USE_KEYS = {field.name: field.default for field in fields(UseSettings)}
USE_KEYS |= {name: asdict(group()) for name, group in _GROUPS.items()}


def without_use_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without these keys, as a training run has it."""
    return {key: value for key, value in config.items() if key not in USE_KEYS}
