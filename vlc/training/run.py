"""From settings to a finished run: data, module, checkpoint, trainer, in this order."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import LearningRateMonitor, ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.plugins.environments import ClusterEnvironment
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy, Strategy
from pytorch_lightning.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from rich.console import Console
from rich.table import Table

from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.common.files import check_room, full_disk_told
from vlc.common.terminal import cell
from vlc.configuration.aliases import under_flat_names
from vlc.configuration.groups import LoggingSettings, MultitaskSettings, RunSettings
from vlc.configuration.settings import Settings
from vlc.configuration.task_settings import TaskSettings
from vlc.data.clean import open_clean_list
from vlc.data.pieces import require_same_pieces
from vlc.data.tokens import tokenizer_to_store
from vlc.data.vocabulary import Vocabulary, data_vocabulary, stored_vocabularies
from vlc.evaluation.evaluator import Evaluator
from vlc.evaluation.inputs import Inputs
from vlc.evaluation.ranking import Ranking
from vlc.evaluation.results import Results
from vlc.evaluation.writing import Captions, Translation
from vlc.hardware.distributed import init_process_group_after_restart
from vlc.hardware.onednn import MIN_WIDTH_FOR_FAST_PRODUCTS, computes_bfloat16
from vlc.hardware.rendezvous import watch_nodes
from vlc.model.sizes import EncoderConfig
from vlc.objectives.kinds import KINDS
from vlc.objectives.options import ranking_kind
from vlc.training import finetune, lora, resume
from vlc.training.callbacks import FinalValidation
from vlc.training.clean_report import CleanReport
from vlc.training.datamodule import DataModule, num_accumulated
from vlc.training.facts import FactsOfRun
from vlc.training.loggers import Tracking, check_installed, closed, make_loggers
from vlc.training.module import VLCModule, module_of, task_needs
from vlc.training.moving_average import LoggedAverage
from vlc.training.multitask import BestOfTask, Multitask
from vlc.training.optim import check_optimizer, freeze
from vlc.training.pictures import Pictures
from vlc.training.progress import Progress
from vlc.training.saving import Saving
from vlc.training.trainer import common_callbacks, guards, make_trainer, suit_cpu
from vlc.training.validations import Validations


def run(settings: Settings, environment: ClusterEnvironment | None = None) -> dict[str, Any]:
    """Train, or with test_only test; returns the last metrics by name, with the key "log_dir" for where they lie.

    environment: how the processes find each other; None: Lightning detects it.
    """
    own = settings.run
    seed_everything(own.seed, verbose=False)
    _warn_of_settings_without_effect(settings)
    if not own.test_only:
        check_optimizer(settings.optim)
    check_installed(settings.logging)
    option, folder = ("--output_dir ", own.output_dir) if own.flags else ("log_dir=", own.log_dir)
    writes = bool(folder) and not (own.fast_dev_run or (own.flags and own.test_only))
    if writes:
        check_room(option, folder)
    data = build_data(settings)
    if settings.schedule.kind == "plateau" and not data.evaluation:
        raise UserError(
            "schedule.kind=plateau looks at validations, and no data set has a split for them: pass another kind"
        )
    module = build_module(settings, data)
    trainer = build_trainer(settings, num_evaluated=len(data.evaluation), environment=environment)
    if trainer.world_size > 1:
        init_process_group_after_restart("nccl" if trainer.strategy.root_device.type == "cuda" else "gloo")
    if own.num_nodes > 1:
        assert isinstance(trainer.strategy, ParallelStrategy)
        assert trainer.strategy.cluster_environment is not None
        watch_nodes(trainer.strategy.cluster_environment, own.num_nodes)
    if trainer.strategy.root_device.type == "cpu":
        suit_cpu(module, settings.model.size.width, trainer.precision, sharded=own.fsdp)
    if settings.model.compile:
        module.compile_parts()
    with closed(trainer), full_disk_told(option, folder):
        if own.test_only:
            trainer.test(module, datamodule=data, verbose=False)
        else:
            path = _resume_from(settings, module, data, trainer)
            if writes:
                check_room(option, folder, module.checkpoint_bytes())
            trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        metrics: dict[str, float] = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if own.flags:
            return finetune.metrics(trainer)
        log_dir = str(trainer.log_dir)  # asks the other processes
        if own.test_only:
            _report(own, module, metrics, log_dir)
        return {**metrics, "log_dir": log_dir}


def build_data(settings: Settings) -> DataModule:
    """Open the data; mistakes in them show before anything else is built."""
    drops, languages = settings.model.dropped_ratio > 0, settings.languages.embeddings
    needs = [task_needs(task, drops_patches=drops, languages=languages) for task in settings.tasks]
    num_patches = settings.model.size.num_patches(settings.data.image_size)
    return DataModule(
        settings.data,
        settings.tasks,
        needs,
        num_patches=num_patches,
        seed=settings.run.seed,
        test_only=settings.run.test_only,
        clean=open_clean_list(
            settings.clean.exclude, settings.clean.lists, settings.data.data_root, settings.data.data_cache
        ),
    )


def build_module(settings: Settings, data: DataModule) -> VLCModule:
    """The module with its checkpoints loaded: first pretrain_path, then load_path. Prints what was loaded."""
    paths = [path for path in (settings.run.pretrain_path, settings.run.load_path) if path]
    checkpoints = [weights.read(path) for path in paths]
    if settings.run.test_only and not settings.run.load_path:
        raise UserError("test_only=True needs load_path=CHECKPOINT")
    module = module_of(
        settings,
        data.tokenizer,
        settings.model.vocab_size,
        num_images=data.num_images,
        vocabularies=_vocabularies(settings, data, checkpoints),
        image_only=settings.data.image_only,
        text_only=data.text_only,
        task_tokens=[task.token for task in settings.tasks] if settings.multitask.task_tokens else (),
        languages=settings.languages.embeddings,
        optim=settings.optim,
        splits={name: tuple(own.evaluation) for name, own in data.tasks.items()},
        selecting={name: own.selecting for name, own in data.tasks.items()},
        evaluators={task.name: _evaluators(task, settings) for task in settings.tasks},
        seed=settings.run.seed,
        config=settings.as_config(),
    )
    module.extras["preprocessing"] = settings.model.size.preprocessing
    padded = all(task.val_transform_keys == ("keep_shape",) for task in settings.tasks)
    if module.images_alone or padded:  # the evaluation of images alone crops them
        module.extras["preprocessing"]["pipeline"] = settings.tasks[0].val_transform_keys[0]
    if settings.run.flags:
        module.extras["arguments"] = dict(settings.run.flags)
    if data.tokenizer is not None:
        module.extras["tokenizer"] = tokenizer_to_store(data.tokenizer)
    for loaded in checkpoints:
        complete = settings.run.test_only and loaded is checkpoints[-1]
        if complete:
            require_same_pieces(loaded.extras.get("tokenizer"), data.tokenizer, str(loaded.path))
        if not settings.run.test_only:
            loaded, said = weights.with_vocabularies(_without_new_heads(loaded, module), module, data.tokenizer)
            for line in said:
                rank_zero_info(line)
        check = finetune.CHECK if settings.run.flags else weights.CHECK
        rank_zero_info(str(weights.load(module, loaded, complete=complete, check=check)))
    if settings.lora.rank and not settings.run.test_only:
        rank_zero_info(lora.add_adapters(module, settings.lora, checkpoints))
    freeze(module, settings.optimizer.frozen)
    return module


def _without_new_heads(loaded: weights.Checkpoint, module: VLCModule) -> weights.Checkpoint:
    """The checkpoint without the heads that training initialises."""
    heads = tuple(f"objectives.{name}." for name, objective in module.objectives.items() if objective.starts_anew)
    dropped = [name for name in loaded.state if heads and name.startswith(heads)]
    kept = {name: value for name, value in loaded.state.items() if name not in dropped}
    return replace(loaded, state=kept, dropped=(*loaded.dropped, *dropped))


def _evaluators(task: TaskSettings, settings: Settings) -> list[Evaluator]:
    """The evaluators that a task lists."""
    evaluators: list[Evaluator] = []
    run = settings.run
    every, kind = task.evaluators.get("ranking"), ranking_kind(task.kinds)
    if every is not None and kind:
        itc = task.kinds["itc"].name if "itc" in task.kinds else None
        # num_workers=auto measures batches of samples. A ranking reads images alone, and then does it by itself.
        workers = 0 if isinstance(settings.data.num_workers, str) else settings.data.num_workers
        ranks = run.rerank_k, run.save_scores, task.name, bool(task.pairs), workers
        evaluators.append(Ranking(task.kinds[kind].name, itc, every, *ranks))
    for name, writing in (("translation", Translation), ("captions", Captions)):
        if (every := task.evaluators.get(name)) is not None:
            head = task.kinds.get("generation")
            if head is None or bool(getattr(head.options, "target", "")) != (name == "translation"):
                raise UserError(
                    f"{task.name}.evaluators.{name} wants an objective generation that writes {name}, with "
                    f"generation.target={'FIELD' if name == 'translation' else 'None'}: leave the evaluator out"
                )
            evaluators.append(writing(head.name, settings.data.per_gpu_batchsize, every))
    if (every := task.evaluators.get("inputs")) is not None:
        heads = [head.name for head in task.heads if KINDS[head.kind].headline]
        if not heads or settings.data.image_only:
            raise UserError(
                f"{task.name}.evaluators.inputs compares a metric with and without images and texts, and task {task.name} "
                "has no such metric, or no texts: leave the evaluator out"
            )
        evaluators += [Inputs(head, settings.data.per_gpu_batchsize, every) for head in heads]
    return evaluators


def _vocabularies(settings: Settings, data: DataModule, checkpoints: list[weights.Checkpoint]) -> dict[str, Vocabulary]:
    """The vocabulary of each head that gives answers, and the names of image classes where the data have names.

    Training uses the vocabulary of the data of all tasks that share the head. A test uses the checkpoint's vocabulary,
    which translates the labels of the data.
    """
    heads: dict[str, list[TaskSettings]] = {}
    classes: dict[str, Vocabulary] = {}
    for task in settings.tasks:
        for head in task.heads:
            if (names := data.tasks[task.name].class_names) and KINDS[head.kind].images_alone:
                classes[head.name] = Vocabulary(names)
            if KINDS[head.kind].answers_from_vocabulary:
                heads.setdefault(head.name, []).append(task)
    own = {head: _vocabulary(head, list(heads), tasks, settings, data, checkpoints) for head, tasks in heads.items()}
    return own | classes


def _vocabulary(
    head: str,
    heads: list[str],
    tasks: list[TaskSettings],
    settings: Settings,
    data: DataModule,
    checkpoints: list[weights.Checkpoint],
) -> Vocabulary:
    datasets = list(dict.fromkeys(name for task in tasks for name in task.datasets))
    places = (settings.data.data_root, settings.data.data_cache)
    stored = [stored_vocabularies(checkpoint.extras, heads).get(head, Vocabulary()) for checkpoint in checkpoints]
    own = next((vocabulary for vocabulary in reversed(stored) if vocabulary.answers), None)
    if not settings.run.test_only or own is None:
        try:
            return data_vocabulary(datasets, *places)
        except UserError as error:
            if len(tasks) == 1:
                raise
            names = " and ".join(task.name for task in tasks)
            raise UserError(
                f"tasks {names} share the head {head}, but not the answers of its labels: {error}"
            ) from error
    tested = data_vocabulary(
        datasets, *places, {split for task in tasks for split in data.tasks[task.name].evaluated_splits}
    )
    known = own.tested_on(tested)
    if known.of_data and (unknown := own.lacks(tested)):
        rank_zero_warn(
            f"The checkpoint does not know {len(unknown)} of the {len(tested.labels)} answers of the tested data "
            f"({min(unknown)!r} among them), and cannot give them"
        )
    return known


# Settings that do not change what is trained.
_WITHOUT_EFFECT = frozenset(
    "exp_name log_dir data_root data_cache resume_from checkpoint_every load_path pretrain_path val_check_interval "
    "num_gpus num_nodes num_workers fsdp compile activation_checkpointing max_corrupt_ratio fast_dev_run get_recall_metric "
    "rerank_k save_scores splits val_transform_keys".split()
).union(f"logging.{one.name}" for one in fields(LoggingSettings))


def _resume_from(settings: Settings, module: VLCModule, data: DataModule, trainer: Trainer) -> str | Path | None:
    """The checkpoint to resume, if there is one. Differences to its run raise UserError or are logged."""
    path: str | Path | None = settings.run.resume_from
    if settings.run.flags:
        return finetune.resume_from(settings.run, data.facts(trainer.world_size))
    if path is None:
        return None
    if path == resume.AUTO:
        folder = Path(settings.run.log_dir) / log_name(settings.run)
        path = resume.newest(folder.glob("version_*/checkpoints/last.ckpt"))
        rank_zero_info(f"resume_from=auto: {f'continuing {path}' if path else f'nothing to continue in {folder}'}")
        if path is None:
            return None
    option = f"resume_from={path}"
    saved = resume.read(option, path, f"start from them with load_path={path}")
    before, now = saved["vlc"].get("config", {}), settings.as_config()
    changed = resume.differences(under_flat_names(before), under_flat_names(now), _WITHOUT_EFFECT)
    if misfits := resume.misfits(saved["state_dict"], module.state_dict()):
        raise UserError(
            f"{option} is of another model ({_said(changed) or misfits[0]}): give the same settings, or start from its "
            f"weights with load_path={path}"
        )
    optimizer, groups = now["optim_type"], [len(group["params"]) for group in module.parameter_groups()]
    stored = [len(group["params"]) for group in saved["optimizer_states"][0]["param_groups"]]
    if before.get("optim_type", optimizer) != optimizer or (not settings.run.fsdp and stored != groups):
        raise UserError(
            f"{option} is of another optimiser ({_said(changed) or 'its parameters are in other groups'}): give the same "
            f"settings, or start from its weights with load_path={path}"
        )
    require_same_pieces(saved["vlc"].get("tokenizer"), data.tokenizer, str(path))
    resume.check_facts(option, resume.facts(saved), data.facts(trainer.world_size))
    if changed:
        rank_zero_warn(
            f"{option} was saved with other settings: {_said(changed)}. The optimiser keeps the rates and decay of the "
            "checkpoint"
        )
    return Path(path)


def _said(changed: list[str]) -> str:
    return ", ".join(changed)


def build_trainer(settings: Settings, *, num_evaluated: int, environment: ClusterEnvironment | None = None) -> Trainer:
    run, optim = settings.run, settings.optim
    accelerator, devices = _devices(run)
    num_devices = devices if isinstance(devices, int) else len(devices)
    logger: Logger | list[Logger] | bool = False
    if not run.flags:
        logger = make_loggers(settings.logging, run.log_dir, log_name(run))
    elif run.log_dir and not run.test_only:
        logger = TensorBoardLogger(run.log_dir, name="", version="")
    callbacks = finetune.callbacks(settings) if run.flags else _callbacks(settings, num_evaluated > 0)
    precision = _precision(run.precision, accelerator, settings.model.size)
    several = len(settings.tasks) > 1  # then a callback counts their rounds
    interval = 1.0 if several else run.val_check_interval
    trainer = make_trainer(
        accelerator,
        precision,
        plugins=() if environment is None else (environment,),
        caches_casts=not run.fsdp,  # FSDP frees weights after each use, and casts would take memory for the whole model
        devices=devices,
        num_nodes=run.num_nodes,
        strategy=_strategy(run, num_devices * run.num_nodes, num_tasks=len(settings.tasks)),
        max_epochs=optim.max_epoch if optim.max_steps is None else -1,
        max_steps=-1 if optim.max_steps is None else optim.max_steps,
        accumulate_grad_batches=1 if several else num_accumulated(settings.tasks[0], num_devices * run.num_nodes),
        gradient_clip_val=optim.gradient_clip or None,
        val_check_interval=interval if num_evaluated else None,
        check_val_every_n_epoch=None if isinstance(interval, int) else 1,  # int: batches across epochs
        fast_dev_run=run.fast_dev_run,
        logger=logger,
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        num_sanity_val_steps=0 if run.flags else max(2, num_evaluated),
        inference_mode=not run.fsdp,  # its tensors cannot take part in FSDP's gathering of weights
    )
    if run.fast_dev_run:  # of each data set, although they share a loader
        trainer.limit_val_batches = trainer.limit_test_batches = int(run.fast_dev_run) * num_evaluated
    return trainer


def _callbacks(settings: Settings, has_validation: bool) -> list:
    several = [Multitask(settings)] if len(settings.tasks) > 1 and not settings.run.test_only else []
    callbacks = [
        Progress(),
        *several,
        *guards(settings.data.max_corrupt_ratio),
        FinalValidation(),
        CleanReport(),
        *common_callbacks(),
        LearningRateMonitor(logging_interval="step"),
        FactsOfRun(settings.as_config()),
        Tracking(settings.as_config()),
        Validations(),
        Saving(every=settings.run.checkpoint_every),
    ]
    if settings.logging.to and settings.logging.pictures and not settings.run.fsdp:  # a head may gather its weights
        callbacks.append(Pictures(settings.logging.pictures))
    if (ema := settings.optimizer.ema) is not None:
        callbacks.append(LoggedAverage(ema, settings.run.load_path if settings.run.test_only else None))
    if not settings.run.fast_dev_run:
        # Two callbacks, because Lightning's save_last saves only when the best changes.
        if has_validation:
            best = "epoch={epoch}-step={step}"
            callbacks.append(
                ModelCheckpoint(monitor="val/the_metric", mode="max", filename=best, auto_insert_metric_name=False)
            )
        if several and settings.multitask.best_of_each:
            callbacks += [BestOfTask(task.name) for task in settings.tasks]
        callbacks.append(ModelCheckpoint(filename="last", enable_version_counter=False))
    return callbacks


@rank_zero_only
def _report(run: RunSettings, module: VLCModule, metrics: dict[str, float], log_dir: str) -> None:
    """Write the metrics of a test, and print each on a line; Lightning's own table cuts their names short."""
    if not run.fast_dev_run:
        parameters = sum(parameter.numel() for parameter in module.parameters())
        Results(run.load_path, parameters, module.headlines(metrics), metrics).write(log_dir)
    grid = Table("test", "value", box=None)
    for name, value in sorted(metrics.items()):
        grid.add_row(cell(name), f"{value:.4f}")
    Console().print(grid, cell(f"logs: {log_dir}"), sep="\n", soft_wrap=True)


def log_name(run: RunSettings) -> str:
    """Return the name of the folder in log_dir that has the versions of a run."""
    return f"{run.exp_name}_seed{run.seed}_from_{Path(run.load_path).stem}"


def _devices(run: RunSettings) -> tuple[str, int | list[int]]:
    """Accelerator and devices: GPUs as asked for, CPU for num_gpus=0 or where there is none.

    On the CPU there are as many processes as the launcher started here (LOCAL_WORLD_SIZE), by default one.
    """
    num_gpus = list(run.num_gpus) if isinstance(run.num_gpus, tuple) else run.num_gpus
    if run.accelerator is not None:
        return run.accelerator, num_gpus
    if num_gpus and torch.cuda.is_available():
        return "gpu", num_gpus
    if num_gpus not in (0, 1):
        rank_zero_warn(f"num_gpus={num_gpus}, but no GPU was found: running on the CPU")
    return "cpu", int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def _strategy(run: RunSettings, num_devices: int, num_tasks: int) -> str | Strategy:
    """Lightning's strategy. DDP reduces no gradients while they accumulate.

    In a step of one task, the heads of the others have no gradient, which DDP would wait for.
    """
    if not run.fsdp:
        ddp = "ddp" if num_tasks == 1 else "ddp_find_unused_parameters_true"
        return ddp if num_devices > 1 else "auto"
    if num_devices == 1:
        raise UserError("fsdp=True shares the model out over several devices, and there is one: leave fsdp out")
    return ModelParallelStrategy(
        data_parallel_size=num_devices, tensor_parallel_size=1, save_distributed_checkpoint=False
    )


def _precision(precision: int | str, accelerator: str, size: EncoderConfig) -> str:
    """Lightning's name for a precision; 16 stands for what suits the device and the encoder."""
    if isinstance(precision, str):
        return precision
    if accelerator == "cpu" and precision == 16:
        half = size.width >= MIN_WIDTH_FOR_FAST_PRODUCTS and computes_bfloat16(accelerator)
        return "bf16-mixed" if half else "32-true"
    if precision == 32:
        return "32-true"
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"


def _warn_of_settings_without_effect(settings: Settings) -> None:
    # 12-in-1's command for going on with one task has a gap, too.
    own = [one.name for one in fields(settings.multitask) if one.name not in ("task_tokens", "gap")]
    changed = [name for name in own if getattr(settings.multitask, name) != getattr(MultitaskSettings(), name)]
    if changed and len(settings.tasks) == 1:
        rank_zero_warn(f"multitask.{changed[0]} has no effect, as the run has one task: name several in tasks=[...]")
    if settings.languages.of_texts:
        rank_zero_warn("languages.of_texts has no effect here: the data set says the languages of its texts")
    if settings.model.max_image_len != -1 and settings.model.size.learned_grid is None:
        rank_zero_warn(f"max_image_len has no effect with vit={settings.model.vit}, as in the published code")
    if settings.optim.lr_mult != 1 and settings.optim.layer_decay != 1:
        rank_zero_warn(
            f"lr_mult={settings.optim.lr_mult} has no effect beside layer_decay={settings.optim.layer_decay}, as in the "
            "published code"
        )
