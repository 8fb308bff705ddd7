"""The keys of the commands that use a trained checkpoint. Training runs do not have them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vlc.common.errors import require
from vlc.configuration.values import check_types, read

COMMANDS = ("predict", "index", "search", "hard_pool", "features")


@dataclass(frozen=True)
class UseSettings:
    """Inputs of the commands, and where their results go."""

    image: str | None = None  # file that predict is asked about, or that search finds texts for
    image2: str | None = None  # second image of a statement about two
    text: str | tuple[str, ...] | None = None  # what predict is asked, or a list of it; [MASK] = a word to fill in
    boxes: tuple[float, ...] | None = None  # left, top, right, bottom of each box to choose among or to ask about
    picture: str | None = None  # file for the reconstruction of the image by a mae head, or for the box that is meant
    index: str | None = None  # folder of the index
    image_folder: str | None = None  # read the images below it in place of datasets
    query: str | None = None  # text that search finds images for
    num_results: int = 10  # of a search
    out: str | None = (
        None  # JSON file for what predict and search print; folder for tables, and for what hard_pool makes
    )
    file_format: str | None = (
        None  # of the tables in a folder: arrow, parquet, or of predict jsonl; None = arrow, or jsonl
    )
    ray: str | None = None  # address of a Ray cluster that computes features, index or predict, or local for one here
    published_pool: str | None = None  # 12-in-1's hard_negative.pkl, which hard_pool converts in place of images

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UseSettings":
        """Read and check these keys of a configuration; missing ones have their defaults. Raises UserError."""
        given = {field.name: read(config[field.name], field.type) for field in fields(cls) if field.name in config}
        settings = cls(**given)
        check_types(settings)
        edges = settings.boxes or (0, 0, 0, 0)
        expected = "four numbers for each box: left, top, right, bottom"
        require(len(edges) % 4 == 0, "boxes", list(edges), expected)
        formats = "arrow, parquet or jsonl, or None"
        require(
            settings.file_format in (None, "arrow", "parquet", "jsonl"), "file_format", settings.file_format, formats
        )
        require(settings.num_results >= 1, "num_results", settings.num_results, "1 or more")
        return settings


USE_KEYS = {field.name: field.default for field in fields(UseSettings)}


def without_use_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without these keys, as a training run has it."""
    return {key: value for key, value in config.items() if key not in USE_KEYS}
