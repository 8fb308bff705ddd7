"""The keys of the commands that use a trained checkpoint. Training runs do not have them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vlc.common.errors import require
from vlc.configuration.values import are_texts, check_known, check_types, read

COMMANDS = ("predict", "index", "search", "features", "hard_pool", "serve", "report", "explain", "fit")
PASS_ON = ("fit",)  # commands that pass keys of training on to runs, which check whether they have an effect


@dataclass(frozen=True)
class ServiceSettings:
    """Where `run.py serve` listens, and what it takes.

    host: the address to listen at; 0.0.0.0 is every address of the machine.
    port: to listen at.
    checkpoints: further checkpoints by name, beside load_path or in place of it; the name stands in their addresses.
    api_key: the key that requests have to show; None: the environment variable VLC_API_KEY, or else none is asked for.
    wait_ms: milliseconds for which a request waits for others that can be computed with it.
    queue: requests that may be under way; further ones are refused with status 503.
    timeout_s: seconds that a request may take; then it is answered with status 504.
    decoders: threads that decode pictures and texts.
    max_bytes: size of the body of a request.
    max_pixels: width times height of a picture.
    max_text: characters of a text.
    max_items: texts, options or boxes of a request.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    api_key: str | None = None
    wait_ms: float = 5.0
    queue: int = 256
    timeout_s: float = 30.0
    decoders: int = 4
    max_bytes: int = 16 * 1024**2
    max_pixels: int = 50_000_000
    max_text: int = 2000
    max_items: int = 64

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "ServiceSettings":
        """Read and check the dictionary `service` of a configuration. Raises UserError."""
        types = {field.name: field.type for field in fields(cls)}
        require(isinstance(config, Mapping), "service", config, "options by name, as in service.port=5000")
        check_known(config, types, "option of service")
        settings = cls(**{key: read(value, types[key]) for key, value in config.items()})
        check_types(settings, "service")
        named = settings.checkpoints.items()
        valid = all(isinstance(path, str) and name.replace("-", "_").isidentifier() for name, path in named)
        expected = "paths by names of letters, digits, - and _, as in service.checkpoints.NAME=PATH"
        require(valid, "service.checkpoints", dict(named), expected)
        require(0 <= settings.port < 2**16, "service.port", settings.port, "0 to 65535; 0 is any free port")
        require(0 <= settings.wait_ms <= 1000, "service.wait_ms", settings.wait_ms, "0 to 1000")
        require(settings.timeout_s > 0, "service.timeout_s", settings.timeout_s, "a number above 0")
        for key in ("queue", "decoders", "max_bytes", "max_pixels", "max_text", "max_items"):
            require(getattr(settings, key) >= 1, f"service.{key}", getattr(settings, key), "1 or more")
        return settings


@dataclass(frozen=True)
class FitSettings:
    """How `run.py fit` reads a labelled table, and what it trains.

    columns: the names of columns by role, as in fit.columns.question=q; other roles are found by names and contents.
    task: what is learnt of the table, such as questions (own_tables.md); empty: the columns decide.
    root: the folder that paths of images start from; empty: the folder of the table.
    boxes: what the four numbers of a box are: xyxy, left, top, right and bottom; or xywh, left, top, width and height;
        empty: the boxes decide.
    split: the shares of training, validation and test, where the table has no column of splits.
    minutes: the time that training takes, about, where neither max_steps nor max_epoch is given.
    encoding: of a CSV or TSV, such as latin-1; empty: UTF-8, or what its first bytes say.
    delimiter: between the cells of a CSV; empty: a comma, semicolon or tab, as its first line has them.
    """

    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    task: str = ""
    root: str = ""
    boxes: str = ""
    split: tuple[float, ...] = (0.8, 0.1, 0.1)
    minutes: float = 5.0
    encoding: str = ""
    delimiter: str = ""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "FitSettings":
        """Read and check the dictionary `fit` of a configuration. Raises UserError."""
        types = {field.name: field.type for field in fields(cls)}
        require(isinstance(config, Mapping), "fit", config, "options by name, as in fit.columns.question=q")
        check_known(config, types, "option of fit")
        settings = cls(**{key: read(value, types[key]) for key, value in config.items()})
        check_types(settings, "fit")
        for role, names in settings.columns.items():
            named = are_texts(names) and len(names) > 0
            require(named, f"fit.columns.{role}", names, "the name of a column, or a list of them")
        require(settings.boxes in ("", "xyxy", "xywh"), "fit.boxes", settings.boxes, "xyxy or xywh")
        shares = settings.split
        valid = len(shares) == 3 and all(share > 0 for share in shares) and abs(sum(shares) - 1) < 1e-6
        require(
            valid, "fit.split", list(shares), "three shares above 0 whose sum is 1: of training, validation and test"
        )
        require(settings.minutes > 0, "fit.minutes", settings.minutes, "a number above 0")
        require(len(settings.delimiter) < 2, "fit.delimiter", settings.delimiter, "one character")
        return settings


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
    out: str | None = None  # file of what predict, search or report say; folder for tables, hard pools, maps
    method: str | None = None  # of explain, and of maps in report; None: the best one (explanations.md)
    file_format: str | None = None  # of tables: arrow or parquet, of predict also jsonl; None = arrow, of predict jsonl
    ray: str | None = None  # address of a Ray cluster that computes features, index or predict, or local for one here
    published_pool: str | None = None  # 12-in-1's hard_negative.pkl, which hard_pool converts in place of images
    service: ServiceSettings = ServiceSettings()  # where serve listens and what it takes (service.md)
    run: str | None = None  # log folder of a run, a test or a demonstration that report is about
    compare: str | None = None  # log folder of a run that report sets beside it
    num_examples: int = 500  # of each test split that report evaluates
    table: str | None = None  # labelled table that fit learns from: a file, or a folder (own_tables.md)
    fit: FitSettings = FitSettings()  # how fit reads the table, and what it trains (own_tables.md)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UseSettings":
        """Read and check these keys of a configuration; missing ones have their defaults. Raises UserError."""
        given = {field.name: read(config[field.name], field.type) for field in fields(cls) if field.name in config}
        if "service" in given:
            given["service"] = ServiceSettings.from_config(given["service"])
        if "fit" in given:
            given["fit"] = FitSettings.from_config(config["fit"])
        settings = cls(**given)
        check_types(settings)
        edges = settings.boxes or (0, 0, 0, 0)
        expected = "four numbers for each box: left, top, right, bottom"
        require(len(edges) % 4 == 0, "boxes", list(edges), expected)
        require(settings.num_examples >= 1, "num_examples", settings.num_examples, "1 or more")
        formats = "arrow, parquet or jsonl, or None"
        require(
            settings.file_format in (None, "arrow", "parquet", "jsonl"), "file_format", settings.file_format, formats
        )
        require(settings.num_results >= 1, "num_results", settings.num_results, "1 or more")
        return settings


USE_KEYS = {field.name: field.default for field in fields(UseSettings)} | {
    "service": asdict(ServiceSettings()),
    "fit": asdict(FitSettings()),
}


def without_use_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without these keys, as a training run has it."""
    return {key: value for key, value in config.items() if key not in USE_KEYS}
