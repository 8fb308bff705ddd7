"""Frozen settings. `Settings.from_config` is the only reader of Sacred's raw dictionary.

Each key of the configuration is a field of exactly one of these classes, and has one reader below.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any

from vlc.common.errors import UserError
from vlc.configuration.recipes import OBJECTIVE_NAMES
from vlc.data.catalog import CATALOG
from vlc.model.sizes import ENCODERS, EncoderSize

SHAPED_TRANSFORMS = ("pixelbert", "pixelbert_randaug")  # images keep their shape, the others make squares
TRANSFORM_NAMES = ("mae", "mae_randaug", "mae_test", "shift", *SHAPED_TRANSFORMS)
PRECISIONS = (16, 32, "16-mixed", "bf16-mixed", "32-true")


@dataclass(frozen=True)
class DataSettings:
    """Which samples there are and how they are prepared."""

    data_root: str
    data_cache: str | None
    datasets: tuple[str, ...]
    dataset_weights: tuple[float, ...] | None
    published_splits: bool
    verify: bool | None
    splits: tuple[str, ...] | None
    train_transform_keys: tuple[str, ...]
    val_transform_keys: tuple[str, ...]
    image_size: int
    image_only: bool
    max_text_len: int
    tokenizer: str
    whole_word_masking: bool
    mlm_prob: float
    draw_false_image: int
    draw_false_text: int
    false_image_source: str
    per_gpu_batchsize: int
    num_workers: int
    max_corrupt_ratio: float


@dataclass(frozen=True)
class ModelSettings:
    """The network and its objectives."""

    vit: str
    patch_size: int
    hidden_size: int
    num_heads: int
    num_layers: int
    mlp_ratio: float
    vocab_size: int | None
    drop_rate: float
    compile: bool
    activation_checkpointing: bool
    loss_names: Mapping[str, float]
    mask_ratio: float
    is_pretrain: bool
    use_mae: bool
    mae_weight: float
    wpa_weight: float
    vqav2_label_size: int
    hard_negatives: bool
    max_image_len: int

    @property
    def size(self) -> EncoderSize:
        return ENCODERS[self.vit]

    @property
    def dropped_ratio(self) -> float:
        """Share of patches that the encoder does not see."""
        return self.mask_ratio if self.is_pretrain else 0.0

    @property
    def objectives(self) -> dict[str, float]:
        """Active objectives and their weights."""
        return {name: weight for name, weight in self.loss_names.items() if weight > 0}


@dataclass(frozen=True)
class OptimSettings:
    """Optimiser, schedule and length of training."""

    optim_type: str
    learning_rate: float
    weight_decay: float
    layer_decay: float
    lr_mult: float
    decay_power: float | str
    end_lr: float
    warmup_steps: int | float
    max_epoch: int
    max_steps: int | None
    gradient_clip: float
    batch_size: int


@dataclass(frozen=True)
class RunSettings:
    """Where and how the run happens."""

    exp_name: str
    seed: int
    log_dir: str
    resume_from: str | None
    checkpoint_every: int | None
    load_path: str
    pretrain_path: str
    test_only: bool
    fast_dev_run: bool | int
    val_check_interval: int | float
    get_recall_metric: bool
    save_scores: bool
    rerank_k: int | None
    num_gpus: int | tuple[int, ...]
    num_nodes: int
    fsdp: bool
    precision: int | str


@dataclass(frozen=True)
class UseSettings:
    """What predict, index and search are given, and where their results go."""

    image: str | None
    image2: str | None
    text: str | tuple[str, ...] | None
    picture: str | None
    index: str | None
    image_folder: str | None
    query: str | None
    num_results: int
    out: str | None


_GROUPS = {
    "data": DataSettings,
    "model": ModelSettings,
    "optim": OptimSettings,
    "run": RunSettings,
    "use": UseSettings,
}


@dataclass(frozen=True)
class Settings:
    """All settings of a run, checked. Raises UserError, naming the key and the valid values."""

    data: DataSettings
    model: ModelSettings
    optim: OptimSettings
    run: RunSettings
    use: UseSettings

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        check_keys(config)
        groups = {}
        for name, group in _GROUPS.items():
            values = {field.name: _frozen(config[field.name], field.type) for field in fields(group)}
            groups[name] = group(**values)
        settings = cls(**groups)
        _check(settings)
        return settings

    def as_config(self) -> dict[str, Any]:
        """The same as one flat dictionary of plain values, as written into checkpoints."""
        flat = {key: value for group in asdict(self).values() for key, value in group.items()}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in flat.items()}


def config_keys() -> tuple[str, ...]:
    return tuple(field.name for group in _GROUPS.values() for field in fields(group))


def check_keys(config: Mapping[str, Any]) -> None:
    """Raise UserError for a key that no setting reads, with the nearest valid ones."""
    _check_known(config, config_keys(), "config key")
    losses = config.get("loss_names", {})
    _require(isinstance(losses, Mapping), "loss_names", losses, "weights by objective, as in loss_names.mlm=1")
    _check_known(losses, OBJECTIVE_NAMES, "objective in loss_names")


def check_sources(config: Mapping[str, Any]) -> None:
    """Raise UserError for values of the wrong kind that other defaults are computed from, and so must be known first."""
    if "seed" in config:
        seed = config["seed"]
        _require(_is_whole(seed) and 0 <= seed < 2**32, "seed", seed, "a whole number from 0 to 4294967295")
    for key in ("vit", "tokenizer"):
        if key in config:
            _require(isinstance(config[key], str), key, config[key], f"a text{_as_text(key, config[key])}")
    for name, weight in config.get("loss_names", {}).items():
        _require(_is_number(weight), f"loss_names.{name}", weight, "a number")


def _check_known(names: Iterable[str], known: tuple[str, ...], kind: str) -> None:
    for name in names:
        if name not in known:
            near = get_close_matches(str(name)[:100], known, n=3, cutoff=0.5)
            hint = f"Did you mean {', '.join(near)}? " if near else ""
            raise UserError(f"Unknown {kind} {name!r}. {hint}Valid: {', '.join(sorted(known))}")


def _frozen(value: Any, kind: Any) -> Any:
    """Plain containers instead of Sacred's, which a checkpoint would need code to load.

    A list of names may come without the quotes that a shell takes away: [coco, vg].
    """
    if (
        kind in (tuple[str, ...], tuple[str, ...] | None)
        and isinstance(value, str)
        and value.startswith("[")
        and value.endswith("]")
    ):
        return tuple(name.strip(" '\"") for name in value[1:-1].split(","))
    if isinstance(value, Mapping):
        return dict(value)
    return tuple(value) if isinstance(value, list) else value


def _require(valid: bool, key: str, value: Any, expected: str) -> None:
    if not valid:
        raise UserError(f"{key}={value!r} is not valid: expected {expected}")


def _check(settings: Settings) -> None:
    data, model, optim, run = settings.data, settings.model, settings.optim, settings.run
    _check_types(settings)
    _check_data(data)
    _check_model(model)
    _check_shapes(data, model)
    patch = model.size.patch_size
    if data.image_size <= 0 or data.image_size % patch:
        raise UserError(f"image_size={data.image_size} is not valid: expected a multiple of the patch size {patch}")
    objectives = model.objectives
    _require(bool(objectives), "loss_names", dict(model.loss_names), "at least one objective with a weight above 0")
    if model.use_mae != (model.loss_names["mae"] > 0):
        raise UserError(
            f"use_mae={model.use_mae} contradicts loss_names.mae={model.loss_names['mae']}: leave use_mae out, it follows"
        )
    if "mae" in objectives and not model.dropped_ratio:
        raise UserError(
            f"loss_names.mae={model.loss_names['mae']} needs dropped patches, but is_pretrain={model.is_pretrain} and "
            f"mask_ratio={model.mask_ratio} drop none"
        )
    if "itm" in objectives and data.draw_false_image == 0:
        raise UserError("loss_names.itm needs wrong images, but draw_false_image=0: pass draw_false_image=1")
    if data.draw_false_image > 1:
        raise UserError(
            f"draw_false_image={data.draw_false_image}, but itm, as published, uses one wrong image for each sample: pass "
            "draw_false_image=1"
        )
    if "itm" in objectives and data.false_image_source == "batch" and data.per_gpu_batchsize == 1:
        raise UserError(
            "loss_names.itm takes wrong images from the batch, but per_gpu_batchsize=1: raise it, or pass "
            "false_image_source=dataset"
        )
    if "irtr" in objectives and data.draw_false_text == 0:
        raise UserError("loss_names.irtr needs texts of other images, but draw_false_text=0: pass draw_false_text=15")
    if model.hard_negatives:
        _check_hard_negatives(data, objectives)
    if run.get_recall_metric and not {"irtr", "itm", "itc"} & set(objectives):
        raise UserError("get_recall_metric=True ranks with the head of irtr, itm or itc: give one of them a weight")
    if data.image_only and set(objectives) != {"mae"}:
        raise UserError(f"image_only=True leaves no text for {', '.join(sorted(set(objectives) - {'mae'}))}")
    _require(data.per_gpu_batchsize > 0, "per_gpu_batchsize", data.per_gpu_batchsize, "the batch size of one device")
    _check_numbers(settings)
    _require(optim.optim_type in ("adamw", "adam", "sgd"), "optim_type", optim.optim_type, "adamw, adam or sgd")
    _require(run.precision in PRECISIONS, "precision", run.precision, f"one of {', '.join(map(str, PRECISIONS))}")


def _check_hard_negatives(data: DataSettings, objectives: Mapping[str, float]) -> None:
    if "itc" not in objectives or not {"itm", "irtr"} & set(objectives):
        raise UserError(
            "hard_negatives=True needs loss_names.itc, and loss_names.itm or loss_names.irtr to train on them"
        )
    if "itm" in objectives and data.false_image_source != "batch":
        raise UserError("hard_negatives=True takes wrong images from the batch, not from false_image_source=dataset")
    if "irtr" in objectives and data.per_gpu_batchsize <= data.draw_false_text:
        raise UserError(
            f"hard_negatives=True takes draw_false_text={data.draw_false_text} wrong texts from the batch, which has "
            f"only per_gpu_batchsize={data.per_gpu_batchsize}: raise it"
        )


def _check_numbers(settings: Settings) -> None:
    """Ranges of plain numbers."""
    data, optim, run = settings.data, settings.optim, settings.run
    at_least: dict[str, tuple[Any, float]] = {
        "batch_size": (optim.batch_size, 1),
        "max_epoch": (optim.max_epoch, 1),
        "warmup_steps": (optim.warmup_steps, 0),
        "end_lr": (optim.end_lr, 0),
        "weight_decay": (optim.weight_decay, 0),
        "gradient_clip": (optim.gradient_clip, 0),
        "lr_mult": (optim.lr_mult, 0),
        "num_workers": (data.num_workers, 0),
        "draw_false_image": (data.draw_false_image, 0),
        "draw_false_text": (data.draw_false_text, 0),
        "num_nodes": (run.num_nodes, 1),
        "num_results": (settings.use.num_results, 1),
    }
    for key, (value, lowest) in at_least.items():
        _require(value >= lowest, key, value, f"{lowest} or more")
    _require(run.rerank_k is None or run.rerank_k > 0, "rerank_k", run.rerank_k, "a number above 0, or None")
    _require(optim.learning_rate > 0, "learning_rate", optim.learning_rate, "a rate above 0")
    _require(0 < optim.layer_decay <= 1, "layer_decay", optim.layer_decay, "a factor above 0, at most 1")
    steps = optim.max_steps
    _require(steps is None or steps > 0, "max_steps", steps, "a number above 0, or None")
    power = optim.decay_power
    _require(power == "cosine" or _is_number(power), "decay_power", power, "a number, or cosine")
    every = run.checkpoint_every
    _require(every is None or every > 0, "checkpoint_every", every, "a number of optimiser steps above 0, or None")
    interval = run.val_check_interval
    valid = interval > 0 and (isinstance(interval, int) or interval <= 1)
    _require(valid, "val_check_interval", interval, "a share of an epoch (0.0 to 1.0), or a whole number of batches")
    gpus = run.num_gpus if isinstance(run.num_gpus, tuple) else (run.num_gpus,)
    valid = all(isinstance(gpu, int) and gpu >= 0 for gpu in gpus)
    _require(valid, "num_gpus", run.num_gpus, "a number of devices, or a list of device numbers")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_data(data: DataSettings) -> None:
    _require(bool(data.datasets), "datasets", data.datasets, "at least one data set")
    for name in data.datasets:
        _require(name in CATALOG, "datasets", name, f"names out of {', '.join(CATALOG)}")
    weights = data.dataset_weights
    valid = weights is None or (len(weights) == len(data.datasets) and all(weight > 0 for weight in weights))
    _require(valid, "dataset_weights", weights, f"a number above 0 for each of datasets={list(data.datasets)}, or None")
    known = dict.fromkeys(split for name in data.datasets for split in CATALOG[name].tables)
    valid = data.splits is None or (bool(data.splits) and set(data.splits) <= set(known))
    _require(
        valid, "splits", data.splits, f"names out of {', '.join(known)}, which datasets={list(data.datasets)} have"
    )
    for key in ("train_transform_keys", "val_transform_keys"):
        names = getattr(data, key)
        _require(
            len(names) == 1 and names[0] in TRANSFORM_NAMES, key, list(names), f"one of {', '.join(TRANSFORM_NAMES)}"
        )
    sources = ("batch", "dataset")
    _require(data.false_image_source in sources, "false_image_source", data.false_image_source, " or ".join(sources))
    _require(0 < data.mlm_prob < 1, "mlm_prob", data.mlm_prob, "a share between 0 and 1")
    _require(data.max_text_len > 2, "max_text_len", data.max_text_len, "room for [CLS], [SEP] and a token")
    _require(0 <= data.max_corrupt_ratio <= 1, "max_corrupt_ratio", data.max_corrupt_ratio, "a share from 0 to 1")


def _check_shapes(data: DataSettings, model: ModelSettings) -> None:
    """Images of varying shape need positions that follow them, and keep all patches."""
    for key in ("train_transform_keys", "val_transform_keys"):
        names = getattr(data, key)
        if names[0] not in SHAPED_TRANSFORMS:
            continue
        if model.size.learned_grid is None:
            learned = ", ".join(name for name, size in ENCODERS.items() if size.learned_grid is not None)
            raise UserError(
                f"{key}={list(names)} leaves images their shape, but the positions of vit={model.vit} are for squares: "
                f"pass another pipeline, or vit={learned}"
            )
        if model.dropped_ratio:
            raise UserError(
                f"{key}={list(names)} leaves images their shape, and then mask_ratio={model.mask_ratio} cannot drop "
                "patches (nor loss_names.mae reconstruct them): pass mask_ratio=0, or a pipeline for squares"
            )


def _check_model(model: ModelSettings) -> None:
    """Values, and that what follows from vit does."""
    _require(model.vit in ENCODERS, "vit", model.vit, f"one of {', '.join(ENCODERS)}")
    implied = {
        "patch_size": model.size.patch_size,
        "hidden_size": model.size.width,
        "num_heads": model.size.heads,
        "num_layers": model.size.depth,
        "mlp_ratio": model.size.mlp_ratio,
    }
    for key, value in implied.items():
        if getattr(model, key) != value:
            raise UserError(
                f"{key}={getattr(model, key)} contradicts vit={model.vit}, which has {value}: leave {key} out, it follows"
            )
    vocabulary = model.vocab_size
    _require(vocabulary is None or vocabulary > 0, "vocab_size", vocabulary, "a number of tokens, or None")
    _require(model.vqav2_label_size > 0, "vqav2_label_size", model.vqav2_label_size, "a number of answers")
    length = model.max_image_len
    _require(length == -1 or length > 0, "max_image_len", length, "a number of patches, or -1 for all")
    if length != -1 and model.dropped_ratio and model.size.learned_grid is not None:
        raise UserError(
            f"max_image_len={length} and mask_ratio={model.mask_ratio} both drop patches: pass max_image_len=-1 or "
            "mask_ratio=0"
        )
    _require(0 <= model.drop_rate < 1, "drop_rate", model.drop_rate, "a share from 0 to below 1")
    for key in ("mae_weight", "wpa_weight"):
        _require(getattr(model, key) >= 0, key, getattr(model, key), "a weight of 0 or more")
    for name, weight in model.loss_names.items():
        _require(weight >= 0, f"loss_names.{name}", weight, "a weight of 0 or more")
    _require(0 <= model.mask_ratio < 1, "mask_ratio", model.mask_ratio, "a share from 0 to below 1")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(item, str) for item in value)


# Type of a field -> (what its values must fulfil, how to say it). Fields of other types are checked by value alone.
_TYPES: dict[Any, tuple[Callable[[Any], bool], str]] = {
    int: (_is_whole, "a whole number"),
    float: (_is_number, "a number"),
    int | float: (_is_number, "a number"),
    int | None: (lambda value: value is None or _is_whole(value), "a whole number, or None"),
    bool: (lambda value: isinstance(value, bool), "True or False"),
    str: (lambda value: isinstance(value, str), "a text"),
    str | None: (lambda value: value is None or isinstance(value, str), "a text, or None"),
    str | tuple[str, ...] | None: (
        lambda value: value is None or isinstance(value, str) or _are_texts(value),
        "a text, or a list of texts",
    ),
    tuple[float, ...] | None: (
        lambda value: value is None or (isinstance(value, tuple) and all(map(_is_number, value))),
        "a list of numbers, or None",
    ),
    tuple[str, ...]: (_are_texts, "a list of names, as in ['mae']"),
    tuple[str, ...] | None: (lambda value: value is None or _are_texts(value), "a list of names, or None"),
}


def _as_text(key: str, value: Any) -> str:
    """How a number, or another word that Python reads as a value, is given as a text on a command line."""
    return (
        "" if isinstance(value, str | tuple | list | Mapping) else f"; for the text {value} write '{key}=\"{value}\"'"
    )


def _check_types(settings: Settings) -> None:
    """Numbers must be numbers: Sacred passes on whatever stands behind the equals sign."""
    for name, group in _GROUPS.items():
        values = getattr(settings, name)
        for field in fields(group):
            if field.type in _TYPES:
                valid, expected = _TYPES[field.type]
                value = getattr(values, field.name)
                hint = _as_text(field.name, value) if expected.startswith("a text") else ""
                _require(valid(value), field.name, value, expected + hint)
    for name, weight in settings.model.loss_names.items():
        _require(_is_number(weight), f"loss_names.{name}", weight, "a number")
