"""The keys of the commands that use a trained checkpoint. Training runs do not have them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from vlc.common.errors import require
from vlc.configuration.values import check_known, check_types, read

COMMANDS = ("predict", "index", "search", "features", "hard_pool", "serve", "report", "explain", "export")


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
    out: str | None = None  # file of what predict, search or report say; folder for tables, hard pools, maps, exports
    method: str | None = None  # of explain, and of maps in report; None: the best one (explanations.md)
    file_format: str | None = None  # of tables: arrow, parquet, jsonl; of an export: export.md; None = the usual one
    ray: str | None = None  # address of a Ray cluster that computes features, index or predict, or local for one here
    published_pool: str | None = None  # 12-in-1's hard_negative.pkl, which hard_pool converts in place of images
    service: ServiceSettings = ServiceSettings()  # where serve listens and what it takes (service.md)
    run: str | None = None  # log folder of a run, a test or a demonstration that report is about
    compare: str | None = None  # log folder of a run that report sets beside it
    num_examples: int = 500  # of each test split that report evaluates

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "UseSettings":
        """Read and check these keys of a configuration; missing ones have their defaults. Raises UserError."""
        given = {field.name: read(config[field.name], field.type) for field in fields(cls) if field.name in config}
        if "service" in given:
            given["service"] = ServiceSettings.from_config(given["service"])
        settings = cls(**given)
        check_types(settings)
        edges = settings.boxes or (0, 0, 0, 0)
        expected = "four numbers for each box: left, top, right, bottom"
        require(len(edges) % 4 == 0, "boxes", list(edges), expected)
        require(settings.num_examples >= 1, "num_examples", settings.num_examples, "1 or more")
        require(settings.num_results >= 1, "num_results", settings.num_results, "1 or more")
        return settings


USE_KEYS = {field.name: field.default for field in fields(UseSettings)} | {"service": asdict(ServiceSettings())}


def without_use_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration without these keys, as a training run has it."""
    return {key: value for key, value in config.items() if key not in USE_KEYS}
