"""Checks of settings: ranges, and values that contradict each other. Each error names the key and the cure."""

from dataclasses import asdict
from pathlib import PurePath
from typing import Any

from vlc.common.errors import UserError, require
from vlc.configuration.groups import (
    EXCLUDED,
    LOGGERS,
    MIXING,
    SCHEDULES,
    STEPS,
    WARMUPS,
    Groups,
    LoggingSettings,
    LoRASettings,
    ModelSettings,
    OptimizerSettings,
    OptimSettings,
    ScheduleSettings,
)
from vlc.configuration.task_settings import HeadSettings, TaskSettings
from vlc.configuration.values import are_texts, check_known, is_number, is_whole
from vlc.data.catalog import CATALOG
from vlc.data.composers import COMPOSERS
from vlc.data.spec import DIRECTION
from vlc.model.sizes import ENCODERS
from vlc.objectives.options import (
    IMAGES_ALONE,
    RANKING,
    ITCOptions,
    Surroundings,
    check_ranking,
    check_together,
    ranking_kind,
)
from vlc.tasks.task import EVALUATORS

SHAPED_TRANSFORMS = ("pixelbert", "pixelbert_randaug")  # images keep their shape, the others make squares
_SQUARES = (
    "mae",
    "mae_randaug",
    "mae_test",
    "keep_shape",
    "keep_shape_flip",
    "keep_shape_randaug",
    "shift",
    "central_crop",
)
TRANSFORM_NAMES = (*_SQUARES, *SHAPED_TRANSFORMS)
PRECISIONS = (16, 32, "16-mixed", "bf16-mixed", "32-true")


def check(settings: Groups) -> None:
    """Raise UserError for settings that cannot be used. Their types have been checked before."""
    data, model, optim, run = settings.data, settings.model, settings.optim, settings.run
    _check_tasks(settings)
    _check_multitask(settings)
    _check_model(model)
    for task in settings.tasks:
        with task.errors_name_its_keys():
            _check_shapes(task, model)
    patch = model.size.patch_size
    if data.image_size <= 0 or data.image_size % patch:
        raise UserError(f"image_size={data.image_size} is not valid: expected a multiple of the patch size {patch}")
    if model.use_mae != (model.loss_names["mae"] > 0):
        raise UserError(
            f"use_mae={model.use_mae} contradicts loss_names.mae={model.loss_names['mae']}: leave use_mae out, it follows"
        )
    for options in settings.options.values():
        options.check_values()
    _check_task_tokens(settings)
    _check_languages(settings)
    for task in settings.tasks:
        with task.errors_name_its_keys():
            _check_objectives(task, settings)
        _check_evaluators(task)
    if run.get_recall_metric:
        check_ranking({kind for task in settings.tasks for kind in task.kinds})
    others = {head.name for task in settings.tasks for head in task.heads if head.kind not in IMAGES_ALONE}
    if data.image_only and others:
        raise UserError(f"image_only=True leaves no text for {', '.join(sorted(others))}")
    require(data.per_gpu_batchsize > 0, "per_gpu_batchsize", data.per_gpu_batchsize, "the batch size of one device")
    _check_numbers(settings)
    _check_optimizer(optim.optimizer, fsdp=run.fsdp)
    _check_schedule(optim)
    _check_lora(settings)
    _check_logging(settings.logging)
    excluded = settings.clean.exclude
    require(excluded in EXCLUDED, "clean.exclude", excluded, f"one of {', '.join(EXCLUDED)}")
    require(run.precision in PRECISIONS, "precision", run.precision, f"one of {', '.join(map(str, PRECISIONS))}")


def _check_multitask(settings: Groups) -> None:
    """Check how several tasks train together."""
    own, names = settings.multitask, [task.name for task in settings.tasks]
    require(own.mixing in MIXING, "multitask.mixing", own.mixing, f"one of {', '.join(MIXING)}")
    require(own.steps in STEPS, "multitask.steps", own.steps, " or ".join(STEPS))
    above_0 = {"temperature": own.temperature, "rounds_per_epoch": own.rounds_per_epoch}
    for key, value in above_0.items():
        require(value is None or value > 0, f"multitask.{key}", value, "a number above 0")
    at_least_0 = ("patience", "threshold", "continue_threshold", "cooldown")
    for key in at_least_0:
        require(getattr(own, key) >= 0, f"multitask.{key}", getattr(own, key), "0 or more")
    require(min(own.resets, default=1) > 0, "multitask.resets", own.resets, "epochs, counted from 1")
    if own.mixing == "weighted":
        valid = set(own.weights) == set(names) and all(is_number(one) and one > 0 for one in own.weights.values())
        require(valid, "multitask.weights", dict(own.weights), f"a number above 0 for each of {', '.join(names)}")


def _check_tasks(settings: Groups) -> None:
    """Check the data and the heads of the tasks."""
    for task in settings.tasks:
        _check_data(task)
    data = settings.data
    known = dict.fromkeys(split for task in settings.tasks for name in task.datasets for split in CATALOG[name].tables)
    datasets = list(dict.fromkeys(name for task in settings.tasks for name in task.datasets))
    valid = data.splits is None or (bool(data.splits) and set(data.splits) <= set(known))
    require(valid, "splits", data.splits, f"names out of {', '.join(known)}, which datasets={datasets} have")
    require(0 <= data.max_corrupt_ratio <= 1, "max_corrupt_ratio", data.max_corrupt_ratio, "a share from 0 to 1")
    shared: dict[str, tuple[str, HeadSettings]] = {}
    for task in settings.tasks:
        for head in task.heads:
            other, first = shared.setdefault(head.name, (task.name, head))
            if (first.kind, first.options) != (head.kind, head.options):
                raise UserError(
                    f"tasks {other} and {task.name} share the head {head.name}, but differ in {_difference(first, head)}: "
                    f"give them the same options, or pass one of the tasks alone"
                )


def _difference(first: HeadSettings, second: HeadSettings) -> str:
    """Return the first option in which two heads differ, with both values."""
    values, others = asdict(first.options), asdict(second.options)
    name = next(name for name in values if values[name] != others.get(name))
    return f"{second.kind}.{name} ({values[name]!r} and {others.get(name)!r})"


def _check_objectives(task: TaskSettings, settings: Groups) -> None:
    """Check the weights of a task's objectives, and the options of the active ones."""
    data, model = settings.data, settings.model
    if task.name:
        weights = {head.kind: head.weight for head in task.heads}
        require(bool(weights), f"{task.name}.objectives", weights, "at least one objective with a weight above 0")
    else:
        require(bool(task.heads), "loss_names", dict(model.loss_names), "at least one objective with a weight above 0")
    for head in task.heads:
        head.options.check_values()
        head.options.check(
            Surroundings(
                task.kinds,
                head.weight,
                model.is_pretrain,
                model.mask_ratio,
                data.per_gpu_batchsize,
                task.max_text_len,
                model.max_image_len,
            )
        )
    active = {kind: task.options(kind) if kind in task.kinds else options for kind, options in settings.options.items()}
    check_together(active, task.kinds, data.per_gpu_batchsize)


def _check_task_tokens(settings: Groups) -> None:
    """Check that there are names for the task tokens, and texts in which they stand."""
    if not settings.multitask.task_tokens:
        return
    if not settings.tasks[0].token:
        raise UserError(
            "multitask.task_tokens=True names each task by a token, and no named task has the heads of this run: pass "
            "tasks=[...], or leave multitask.task_tokens out"
        )
    if settings.data.image_only:
        raise UserError(
            "multitask.task_tokens=True puts the token of a task beside its texts, and image_only=True reads none: leave "
            "one of them out"
        )


def says_languages(task: TaskSettings) -> bool:
    """Whether all data sets of a task say the languages of their texts."""
    return all("lang" in CATALOG[name].fields for name in task.datasets)


def _check_languages(settings: Groups) -> None:
    """Check that there are texts for the embeddings of languages, and that texts of a batch do not change places."""
    names = settings.languages.embeddings
    if not names:
        return
    require(len(set(names)) == len(names), "languages.embeddings", list(names), "each language once")
    if settings.data.image_only or not any(map(says_languages, settings.tasks)):
        raise UserError(
            f"languages.embeddings={list(names)} are added to texts whose data set says their language, and "
            f"datasets={[name for task in settings.tasks for name in task.datasets]} say none, or no texts are read: leave "
            "them out"
        )
    contrast = [task.options("itc") for task in settings.tasks]
    if any(isinstance(options, ITCOptions) and options.hard_negatives for options in contrast):
        raise UserError(
            "hard_negatives=True takes wrong texts of any language from the batch, and languages.embeddings count on texts "
            "of an example's own language: leave one of them out"
        )


def _check_evaluators(task: TaskSettings) -> None:
    check_known(task.evaluators, EVALUATORS, f"evaluator of task {task.name}")
    for name, every in task.evaluators.items():
        expected = "a number n, for every n-th validation, 0 for tests alone, or None"
        require(every is None or (is_whole(every) and every >= 0), f"{task.name}.evaluators.{name}", every, expected)
    if task.evaluators.get("ranking") is not None and ranking_kind(task.kinds) is None:
        raise UserError(
            f"{task.name}.evaluators.ranking needs one of the objectives {', '.join(RANKING)}: add it, or leave "
            "the evaluator out"
        )
    ranks_pairs = task.evaluators.get("ranking") is not None and bool(task.pairs)
    if ranks_pairs and (ranking_kind(task.kinds) != "choice" or "second_text" not in COMPOSERS[task.composer].columns):
        raise UserError(
            f"{task.name}.evaluators.ranking ranks the translations of sentences where samples are pairs, by choice and "
            f"{task.name}.composer=pair: pass both, or leave the evaluator out"
        )


def _check_numbers(settings: Groups) -> None:
    """Check the ranges of plain numbers."""
    data, optim, run = settings.data, settings.optim, settings.run
    at_least: dict[str, tuple[Any, float]] = {
        "batch_size": (1 if optim.batch_size is None else optim.batch_size, 1),
        "max_epoch": (optim.max_epoch, 1),
        "warmup_steps": (optim.warmup_steps, 0),
        "end_lr": (optim.end_lr, 0),
        "weight_decay": (optim.weight_decay, 0),
        "gradient_clip": (optim.gradient_clip, 0),
        "lr_mult": (optim.lr_mult, 0),
        "num_nodes": (run.num_nodes, 1),
    }
    for key, (value, lowest) in at_least.items():
        require(value >= lowest, key, value, f"{lowest} or more")
    valid = data.num_workers == "auto" or (is_whole(data.num_workers) and int(data.num_workers) >= 0)
    require(valid, "num_workers", data.num_workers, "a number, 0 or more, or auto, which measures")
    require(run.rerank_k is None or run.rerank_k > 0, "rerank_k", run.rerank_k, "a number above 0, or None")
    require(optim.learning_rate > 0, "learning_rate", optim.learning_rate, "a rate above 0")
    require(0 < optim.layer_decay <= 1, "layer_decay", optim.layer_decay, "a factor above 0, at most 1")
    steps = optim.max_steps
    require(steps is None or steps > 0, "max_steps", steps, "a number above 0, or None")
    power = optim.decay_power
    require(power == "cosine" or is_number(power), "decay_power", power, "a number, or cosine")
    every = run.checkpoint_every
    require(every is None or every > 0, "checkpoint_every", every, "a number of optimiser steps above 0, or None")
    interval = run.val_check_interval
    valid = interval > 0 and (isinstance(interval, int) or interval <= 1)
    require(valid, "val_check_interval", interval, "a share of an epoch (0.0 to 1.0), or a whole number of batches")
    gpus = run.num_gpus if isinstance(run.num_gpus, tuple) else (run.num_gpus,)
    valid = all(isinstance(gpu, int) and gpu >= 0 for gpu in gpus)
    require(valid, "num_gpus", run.num_gpus, "a number of devices, or a list of device numbers")


def _check_optimizer(optimizer: OptimizerSettings, *, fsdp: bool) -> None:
    """Check numbers. The names of optimisers, their options and those of parameters are checked where they are known."""
    for pattern, factor in optimizer.rates.items():
        expected = f"a factor above 0; optimizer.frozen={[pattern]} trains nothing of it"
        require(is_number(factor) and factor > 0, f"optimizer.rates.{pattern}", factor, expected)
    ema = optimizer.ema
    require(ema is None or 0 <= ema < 1, "optimizer.ema", ema, "a decay from 0 to below 1, such as 0.9999, or None")
    if ema is not None and fsdp:
        raise UserError(
            "optimizer.ema needs all weights on each device, and fsdp=True shares them out: leave one of them out"
        )


def _check_lora(settings: Groups) -> None:
    """Check the numbers of the adapters, and that there are weights for them to adapt."""
    lora, run = settings.lora, settings.run
    require(lora.rank >= 0, "lora.rank", lora.rank, "0 or more")
    require(lora.alpha is None or lora.alpha > 0, "lora.alpha", lora.alpha, "a number above 0, or None")
    require(0 <= lora.dropout < 1, "lora.dropout", lora.dropout, "a share from 0 to below 1")
    require(lora.targets != (), "lora.targets", [], "names of layers, as in [qkv,proj], or None")
    changed = [name for name, value in asdict(lora).items() if value != getattr(LoRASettings, name)]
    if changed and not lora.rank:
        raise UserError(f"lora.{changed[0]} has no effect with lora.rank=0: pass lora.rank=8, or leave it out")
    if lora.rank and not (run.load_path or run.pretrain_path):
        raise UserError(
            f"lora.rank={lora.rank} adapts the weights of a checkpoint, and none is given: pass load_path=CHECKPOINT"
        )


def _check_logging(logging: LoggingSettings) -> None:
    check_known(logging.to, LOGGERS, "logger in logging.to")
    require(bool(logging.project), "logging.project", logging.project, "a name")
    require(logging.pictures >= 0, "logging.pictures", logging.pictures, "0 or more")
    for pattern in logging.files:
        inside = bool(pattern) and not PurePath(pattern).is_absolute() and ".." not in PurePath(pattern).parts
        require(inside, "logging.files", pattern, "names or patterns of files in the run's folder")


# The fields of `schedule` that only some kinds have.
_OF_KINDS = {
    "milestones": ("step",),
    "factor": ("step", "plateau"),
    "cycles": ("cosine_restart",),
    "warmup": ("constant", "step", "plateau"),
    "warmup_start": ("constant", "step", "plateau"),
    "patience": ("plateau",),
    "threshold": ("plateau",),
    "cooldown": ("plateau",),
}


def _check_schedule(optim: OptimSettings) -> None:
    """Check the schedule's numbers, and that they belong to its kind."""
    schedule, kind = optim.schedule, optim.schedule.kind
    require(kind is None or kind in SCHEDULES, "schedule.kind", kind, f"one of {', '.join(SCHEDULES)}, or None")
    for name, kinds in _OF_KINDS.items():
        if getattr(schedule, name) != getattr(ScheduleSettings(), name) and kind not in kinds:
            raise UserError(
                f"schedule.{name} has no effect with schedule.kind={kind}: leave it out, or pass schedule.kind="
                f"{' or '.join(kinds)}"
            )
    marks = schedule.milestones
    require(
        all(mark > 0 for mark in marks), "schedule.milestones", list(marks), "steps, or shares of all steps, above 0"
    )
    require(bool(marks) or kind != "step", "schedule.milestones", [], "steps, or shares of all steps, for kind=step")
    require(0 < schedule.factor < 1, "schedule.factor", schedule.factor, "a factor above 0 and below 1")
    require(schedule.cycles > 0, "schedule.cycles", schedule.cycles, "a number above 0")
    require(schedule.warmup in WARMUPS, "schedule.warmup", schedule.warmup, f"one of {', '.join(WARMUPS)}")
    require(0 <= schedule.warmup_start <= 1, "schedule.warmup_start", schedule.warmup_start, "a share from 0 to 1")
    for name in ("patience", "threshold", "cooldown"):
        value = getattr(schedule, name)
        require(value >= 0, f"schedule.{name}", value, "0 or more")
    if kind == "polynomial" and optim.decay_power == "cosine":
        raise UserError(
            "schedule.kind=polynomial contradicts decay_power=cosine: pass a number, or schedule.kind=cosine"
        )
    if kind in ("constant", "step", "cosine_restart") and optim.end_lr:
        raise UserError(f"end_lr={optim.end_lr} has no effect with schedule.kind={kind}: leave it out")


def _check_data(task: TaskSettings) -> None:
    """Check the data of a task. Errors name its keys as the user gives them."""
    prefix = task.prefix
    require(bool(task.datasets), f"{prefix}datasets", task.datasets, "at least one data set")
    for name in task.datasets:
        require(name in CATALOG, f"{prefix}datasets", name, f"names out of {', '.join(CATALOG)}")
    weights = task.dataset_weights
    valid = weights is None or (len(weights) == len(task.datasets) and all(weight > 0 for weight in weights))
    expected = f"a number above 0 for each of datasets={list(task.datasets)}, or None"
    require(valid, f"{prefix}dataset_weights", weights, expected)
    for key in ("train_transform_keys", "val_transform_keys"):
        names = getattr(task, key)
        valid = len(names) == 1 and names[0] in TRANSFORM_NAMES
        require(valid, f"{prefix}{key}", list(names), f"one of {', '.join(TRANSFORM_NAMES)}")
    require(task.max_text_len > 2, f"{prefix}max_text_len", task.max_text_len, "room for [CLS], [SEP] and a token")
    require(task.learning_rate > 0, f"{prefix}learning_rate", task.learning_rate, "a rate above 0")
    _check_selection(task)
    for key in ("batch_size", "per_gpu_batchsize") if prefix else ():
        require(getattr(task, key) > 0, f"{prefix}{key}", getattr(task, key), "a number of samples above 0")


def _check_selection(task: TaskSettings) -> None:
    """Check which texts are samples."""
    for key in ("where", "tested_where"):
        for name, values in getattr(task, key).items():
            require(
                are_texts(values) and values, f"{task.name}.{key}.{name}", values, "a list of values, as in [en,de]"
            )
    for key in ("pairs", "tested_pairs"):
        for direction in getattr(task, key):
            expected = "directions of languages, as in [en-de,*-fr]"
            require(DIRECTION.fullmatch(direction) is not None, f"{task.name}.{key}", direction, expected)
    if task.tested_pairs and not task.pairs:
        raise UserError(f"{task.name}.tested_pairs is given and pairs is not: pass {task.name}.pairs too")
    weights = task.language_weights
    valid = all(is_number(weight) and weight > 0 for weight in weights.values())
    require(valid, f"{task.name}.language_weights", dict(weights), "a number above 0 by language, or by direction")
    if weights and task.dataset_weights:
        raise UserError(
            f"{task.name}.language_weights and {task.name}.dataset_weights both say how often samples are drawn: pass one"
        )


def _check_shapes(task: TaskSettings, model: ModelSettings) -> None:
    """Check that images of varying shape have positions that follow their shape, and that all their patches are kept."""
    for field in ("train_transform_keys", "val_transform_keys"):
        key, names = task.prefix + field, getattr(task, field)
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
    """Check values, and that keys that follow from vit do so."""
    require(model.vit in ENCODERS, "vit", model.vit, f"one of {', '.join(ENCODERS)}")
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
    require(vocabulary is None or vocabulary > 0, "vocab_size", vocabulary, "a number of tokens, or None")
    length = model.max_image_len
    require(length == -1 or length > 0, "max_image_len", length, "a number of patches, or -1 for all")
    if length != -1 and model.dropped_ratio and model.size.learned_grid is not None:
        raise UserError(
            f"max_image_len={length} and mask_ratio={model.mask_ratio} both drop patches: pass max_image_len=-1 or "
            "mask_ratio=0"
        )
    require(0 <= model.drop_rate < 1, "drop_rate", model.drop_rate, "a share from 0 to below 1")
    require(0 <= model.mask_ratio < 1, "mask_ratio", model.mask_ratio, "a share from 0 to below 1")
