"""The Lightning module, which weighs and sums losses and logs metrics. It knows no task by name."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from transformers import PreTrainedTokenizerFast

from vlc.common.errors import UserError
from vlc.common.inputs import Images, mapped
from vlc.common.modules import Modules
from vlc.configuration import own_tasks
from vlc.configuration.checks import says_languages
from vlc.configuration.groups import ModelSettings, OptimSettings
from vlc.configuration.settings import Settings
from vlc.configuration.task_settings import HeadSettings, TaskSettings
from vlc.data.batch import Batch
from vlc.data.mixing import Turn
from vlc.data.parts import Languages, PatchNoise
from vlc.data.tokens import vocabulary
from vlc.data.transforms import normalize
from vlc.data.vocabulary import Vocabulary
from vlc.evaluation.evaluator import Evaluator, is_due, selects
from vlc.evaluation.examples import Example, examples_of, write_examples
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.evaluation.predictions import write_predictions
from vlc.model.blocks import Block
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives.base import ModelContext, Objective, Outcome
from vlc.objectives.kinds import KINDS
from vlc.tasks import family
from vlc.training.datamodule import TaskNeeds
from vlc.training.optim import (
    LAYERS,
    PlateauSchedule,
    build_optimizer,
    build_schedule,
    layer_decay_groups,
    may_fuse,
    plain_groups,
    with_own_rates,
)


def task_needs(task: TaskSettings, *, drops_patches: bool, languages: Sequence[str] = ()) -> TaskNeeds:
    """Return what the objectives of a task want in a batch, together. Without dropped patches none needs patch noise.

    languages: those that have an embedding; where the task's data say the languages of texts, batches have them.
    """
    kinds = [(KINDS[head.kind], head.options) for head in task.heads]
    parts = {part for kind, options in kinds for part in kind.parts(options)}
    if languages and says_languages(task):
        parts.add(Languages(tuple(languages), pairs=bool(task.pairs)))
    return TaskNeeds(
        frozenset(part for part in parts if drops_patches or not isinstance(part, PatchNoise)),
        max(kind.num_images(options) for kind, options in kinds),
        any(kind.needs_images for kind, _ in kinds),
        next((kind.num_classes(options) for kind, options in kinds if kind.num_classes(options) is not None), None),
    )


class Measured(NamedTuple):
    """The task, head and split that a metric belongs to.

    selects: whether its split selects the checkpoint.
    """

    task: TaskSettings
    head: HeadSettings
    split: str
    metric: str
    selects: bool


class VLCModule(LightningModule):
    """Encoder and heads, by name. loss = sum of weight * objective loss over the heads of the batch's task.

    optim: None for a module that is only evaluated.
    num_images: the most images that an example has.
    vocabularies: the vocabulary of each head that gives answers.
    image_only: no batch has texts.
    text_only: no batch has images.
    task_tokens: the names of the tasks whose token stands beside their texts (`vlc.model.encoder.Encoder.encode`).
    languages: the names of the languages that have an embedding.
    splits: the names of the evaluated splits, by task.
    selecting: the splits that select the checkpoint, by task; by default all.
    evaluators: further measurements on the evaluated splits, by task.
    config: the configuration that is written into checkpoints.
    """

    def __init__(
        self,
        settings: ModelSettings,
        tasks: Sequence[TaskSettings],
        *,
        image_size: int,
        max_text_len: int,
        vocab_size: int,
        pad_token_id: int = 0,
        num_images: int = 1,
        vocabularies: Mapping[str, Vocabulary] | None = None,
        image_only: bool = False,
        text_only: bool = False,
        task_tokens: Sequence[str] = (),
        languages: Sequence[str] = (),
        optim: OptimSettings | None = None,
        splits: Mapping[str, Collection[str]] | None = None,
        selecting: Mapping[str, Collection[str]] | None = None,
        evaluators: Mapping[str, Sequence[Evaluator]] | None = None,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.settings, self.optim_settings, self.seed = settings, optim, seed
        self.evaluators = evaluators or {}
        self.tasks = {task.name: task for task in tasks}
        self.validations = dict.fromkeys(self.tasks, 0)  # how many each task has had
        self.scores: dict[str, float] = {}  # of several tasks, the latest score of each, and of choices at random
        self.random_scores: dict[str, float] = {}
        self._turn = Turn()
        splits, vocabularies = splits or {}, vocabularies or {}
        self.encoder = Encoder(
            settings.size,
            image_size,
            vocab_size=vocab_size,
            max_text_len=max_text_len,
            text_dropout=settings.drop_rate,
            pad_token_id=pad_token_id,
            num_image_types=num_images,
            drop_path=settings.drop_path,
            activation_checkpointing=settings.activation_checkpointing,
            max_patches=settings.max_image_len if settings.max_image_len > 0 else None,
            num_box_tags=_num_box_tags(tasks),
            num_box_classes=max(
                (KINDS[head.kind].num_box_classes(head.options) for task in tasks for head in task.heads), default=0
            ),
            task_tokens=task_tokens,
            languages=languages,
        )
        self.objectives: Modules[Objective] = _made_heads(tasks, self.encoder, vocab_size, pad_token_id, vocabularies)
        self.images_alone = all(objective.images_alone for objective in self.objectives.values())
        if self.images_alone:
            final_norm = any(objective.reads_normalised for objective in self.objectives.values())
            self.encoder.keep_images_only(final_norm=final_norm)
        else:
            self._freeze_unread(image_only=image_only, text_only=text_only)
        self.extras = _extras(config or {}, vocabularies, tasks, self.encoder)
        self._prepare_metrics(splits, selecting or splits)
        self.records: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        self.examples: list[Example] = []  # of a test

    def _prepare_metrics(self, splits: Mapping[str, Collection[str]], selecting: Mapping[str, Collection[str]]) -> None:
        self.selecting = selecting
        self.measured = {
            task.metric(head, split, metric): self._measured(task, head, split, metric)
            for task in self.tasks.values()
            for split in splits.get(task.name, ())
            for head in task.heads
            for metric in self.objectives[head.name].metrics
        }
        self.ratios: Modules[Ratio] = Modules({name: Ratio() for name in self.measured})
        # Of several tasks, what choices at random would have in place of the headlines, by task.
        self.chances: Modules[Ratio] = Modules({name: Ratio() for name in self.tasks if len(self.tasks) > 1})

    def _freeze_unread(self, *, image_only: bool, text_only: bool) -> None:
        """Freeze the parts of the encoder that no loss reaches, because DDP would wait for their gradients."""
        encoder = self.encoder
        unread: list[nn.Module | nn.Parameter] = []
        if not any(objective.reads_pooled for objective in self.objectives.values()):
            unread.append(encoder.pooler)
        if image_only:
            unread += [encoder.text_embeddings, encoder.token_types]
        if text_only:
            unread += [encoder.patch_embed, encoder.cls_token, encoder.pos_embed, encoder.norm_pre]
            unread += [] if encoder.registers is None else [encoder.registers]
        for part in unread:
            part.requires_grad_(False)

    def _measured(self, task: TaskSettings, head: HeadSettings, split: str, metric: str) -> Measured:
        return Measured(task, head, split, metric, split in self.selecting.get(task.name, ()))

    @property
    def optim(self) -> OptimSettings:
        """The settings of the optimiser, of a module that is trained."""
        assert self.optim_settings is not None
        return self.optim_settings

    def compile_parts(self, **options: Any) -> None:
        """Compile the encoder's blocks and what gains in the objectives, with options of torch.compile."""
        self.encoder.compile_blocks(**options)
        for objective in self.objectives.values():
            objective.compile_parts(**options)

    # -- steps

    def normalised(self, batch: Batch) -> Batch:
        """A batch of the loader with its images, those in its parts too, as the encoder takes them."""
        scale = self.encoder.size.pixel_normalization
        return mapped(batch, Images, lambda images: replace(images, pixels=normalize(images.pixels, scale)))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.normalised(batch)

    def outcomes(
        self, batch: Batch, averaged: tuple[Encoder, Mapping[str, Objective]] | None = None
    ) -> dict[str, Outcome]:
        """Return the outcome of each head of the batch's task for a normalised batch; heads share encoder passes.

        averaged: an encoder and objectives with averaged weights, in place of the module's own.
        """
        heads, known = self.tasks[batch.task].heads, None
        ratio = self.settings.dropped_ratio
        encoder, made = averaged or (self.encoder, self.objectives)
        objectives = {head.name: made[head.name] for head in heads}
        for objective in objectives.values() if self.training else ():
            if objective.hard_negatives:
                known = encode_passes(encoder, batch, objective.passes(batch), ratio, known)
                batch = objective.with_hard_negatives(known, batch)
        passes = [one for objective in objectives.values() for one in objective.passes(batch)]
        encoded = encode_passes(encoder, batch, passes, ratio, known)
        return {name: objective(encoded, batch) for name, objective in objectives.items()}

    def total_loss(self, outcomes: Mapping[str, Outcome], task: str = "") -> Tensor:
        """The weighted sum of the losses of a task's heads; of several tasks, each is scaled by its own learning rate."""
        scale = self.tasks[task].learning_rate / self.optim.learning_rate if len(self.tasks) > 1 else 1
        losses = []
        for head in self.tasks[task].heads:
            loss = outcomes[head.name].loss
            assert loss is not None, f"{head.name} has no labels"
            losses.append(scale * head.weight * loss)
        return sum(losses[1:], losses[0])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Dropout draws from the global generator: seeding it here makes a resumed run continue with the same draws.
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        outcomes = self._training_outcomes(batch, place)
        loss = self.total_loss(outcomes, batch.task)
        values: dict[str, Tensor | float] = {"train/loss": loss.detach()}
        task, self._turn = self.tasks[batch.task], batch.turn
        for head in task.heads:
            for metric, (total, count) in outcomes[head.name].metrics.items():
                values[task.metric(head, "train", metric)] = total / max(count, 1)
        self.log_dict(values, batch_size=len(batch))
        return loss * batch.turn.share if batch.turn.share != 1 else loss

    def _training_outcomes(self, batch: Batch, place: tuple[int, ...]) -> dict[str, Outcome]:
        for head in self.tasks[batch.task].heads:
            batch = self.objectives[head.name].training_batch(batch, np.random.default_rng(place))
        return self.outcomes(batch)

    def trial(self, batch: Batch) -> Tensor:
        """The loss of a training step that leaves no trace, for a measurement of its time."""
        return self.total_loss(self._training_outcomes(batch, (self.seed,)), batch.task)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()  # Lightning does so after the next forward pass, which needs the memory

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer) -> None:
        """Do nothing: `optimizer_step` has done so, and the gradients of several batches may accumulate."""

    def lr_scheduler_step(self, scheduler, metric: float | None) -> None:
        """Advance the schedule; of several tasks, once a round."""
        if metric is not None or self._turn.ends_round:
            super().lr_scheduler_step(scheduler, metric)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Outcome]:  # type: ignore[override]  # Lightning hands it to callbacks as it is
        return self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        task = self.tasks[batch.task]
        samples = self.trainer.datamodule.tasks[task.name].evaluation[batch.split]  # type: ignore[attr-defined]  # Lightning sets it
        for name, outcome in self._evaluate(batch).items():
            self.examples += examples_of(task.name, name, self.objectives[name], outcome, batch, samples)
            if not self.objectives[name].writes_records:
                continue
            records = [dict(answer.record or {}) for answer in self.objectives[name].answers(outcome, batch)]
            if outcome.logits.isnan().any():  # without labels no loss would show it
                head = next(head for head in task.heads if head.name == name)
                check_finite({task.metric(head, batch.split, "logits"): math.nan})
            self.records.setdefault((task.name, name, batch.split), []).extend(records)

    def _evaluate(self, batch: Batch) -> dict[str, Outcome]:
        """The outcomes of a batch, after their metrics were added up; none for a batch that counts elsewhere."""
        outcomes = self.outcomes(batch)
        if batch.again:
            return {}
        task = self.tasks[batch.task]
        for head in task.heads:
            for metric, ratio in outcomes[head.name].metrics.items():
                self.ratios[task.metric(head, batch.split, metric)].update(*ratio)
            if (chance := outcomes[head.name].chance) is not None and batch.task in self.chances:
                self.chances[batch.task].update(*chance)
        return outcomes

    # -- ends of epochs

    def on_validation_epoch_end(self) -> None:
        values = self._computed_ratios()
        self.random_scores |= {name: float(value) for name, value in _computed(self.chances).items()}
        if self.trainer.sanity_checking:  # a few batches, in which there may be nothing to count
            return
        chosen = self.trainer.datamodule.due  # type: ignore[attr-defined]  # Lightning sets it
        # Evaluators wait for all processes, and a set has another order on each.
        due = [name for name in self.tasks if chosen is None or name in chosen]
        for name in due:
            self.validations[name] += 1
            values |= self._evaluator_values(name, None, self.validations[name])
        self.log_dict(values)
        selecting = self.the_metric(values) if due else self._mean_score()
        self.log("val/the_metric", selecting, prog_bar=True)
        self.log_dict({f"{name}/val/the_metric": self.scores[name] for name in due if name in self.scores})
        if due and isinstance(schedule := self.lr_schedulers(), PlateauSchedule):
            schedule.validated(float(selecting))

    def on_test_epoch_end(self) -> None:
        values: dict[str, Tensor | float] = dict(self._computed_ratios())
        for (name, kind, split), records in self.records.items():
            folder = self.trainer.log_dir if not self.trainer.fast_dev_run else None  # type: ignore[attr-defined]  # Lightning sets it
            task = self.tasks[name]
            head = next(head for head in task.heads if head.name == kind)
            summary = write_predictions(head.report, task.file(head, split), records, folder)
            values |= {task.metric(head, split, metric): value for metric, value in summary.items()}
        self.records.clear()
        folder = self.trainer.log_dir if self.trainer.loggers else None  # main_finetune.py tests without a log
        if folder and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]  # Lightning sets it
            write_examples(self.examples, folder)
        self.examples.clear()
        for name in self.tasks:
            values |= self._evaluator_values(name, self.trainer.log_dir)
        self.log_dict({name: float(value) for name, value in values.items()})

    def _evaluator_values(self, name: str, folder: str | None, validation: int | None = None) -> dict[str, Tensor]:
        """The metrics of a task's evaluators that are due, on every evaluated split of the task.

        validation: the number of the validation, counted from 1; None: it is a test, in which all run.
        """
        own = self.evaluators.get(name, ())
        chosen = [evaluator for evaluator in own if validation is None or is_due(evaluator, validation)]
        if not chosen:
            return {}
        with gathered(self):
            return self._run_evaluators(self.tasks[name], chosen, folder)

    def _run_evaluators(self, task: TaskSettings, chosen: list[Evaluator], folder: str | None) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        data = self.trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        for evaluator in chosen:
            head = next(head for head in task.heads if head.name == evaluator.head)
            for split, samples in data.tasks[task.name].evaluation.items():
                out = Path(folder) / task.file(head, split) if folder else None
                with self.trainer.precision_plugin.forward_context():
                    found = evaluator(self, samples, out)
                values |= {task.metric(head, split, metric): torch.tensor(value) for metric, value in found.items()}
                self.measured |= {
                    task.metric(head, split, metric): self._measured(task, head, split, metric) for metric in found
                }
        return values

    def _computed_ratios(self) -> dict[str, Tensor]:
        """Every ratio that counted something, and the ratios reset. Raises NonFiniteMetric."""
        values = _computed(self.ratios)
        check_finite(values)
        return values

    def the_metric(self, values: Mapping[str, Tensor]) -> Tensor:
        """The metric that selects checkpoints, from the metrics of a validation. Higher is better.

        Of one task it is the sum of the objectives' headlines over the selecting splits. Of several tasks each has a score,
        the mean of its headlines, which it keeps until its next validation, and 0 before the first. The metric is the mean
        over the families of tasks of the mean of their scores, as Lu et al. (2020) group them.

        Where no objective has a headline, as in reconstruction, negative losses stand for them.
        Raises UserError where nothing was counted.
        """
        found = {name: self._selecting(name, values) for name in self.tasks}
        if not any(headlines or losses for headlines, losses in found.values()) and not self.scores:
            selecting = {measured.split for measured in self.measured.values() if measured.selects}
            with next(iter(self.tasks.values())).errors_name_its_keys():
                raise UserError(
                    f"Nothing was counted in the splits that select the checkpoint ({', '.join(sorted(selecting))}): they "
                    "are too small for loss_names.mlm to hide a token, raise mlm_prob"
                )
        if len(self.tasks) == 1:
            ((headlines, losses),) = found.values()
            return torch.stack(headlines or losses).sum()
        for name, (headlines, losses) in found.items():
            if headlines or losses:
                self.scores[name] = float(torch.stack(headlines or losses).mean())
        return self._mean_score()

    def _mean_score(self) -> Tensor:
        """The mean over the families of several tasks of the mean of their latest scores."""
        families: dict[str, list[float]] = {}
        for name in (task.name for task in self.tasks.values() if self.selecting.get(task.name)):
            families.setdefault(family(name), []).append(self.scores.get(name, 0.0))
        return torch.tensor([sum(scores) / len(scores) for scores in families.values()]).mean()

    def _selecting(self, name: str, values: Mapping[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The headlines of a task in its selecting splits, and its negative losses."""
        headlines, losses = [], []
        chosen = [evaluator for evaluator in self.evaluators.get(name, ()) if selects(evaluator)]
        for key, value in values.items():
            measured = self.measured[key]
            if not measured.selects or measured.task.name != name:
                continue
            if self._is_headline(measured, chosen):
                headlines.append(value)
            elif measured.metric == "loss":
                losses.append(-value)
        return headlines, losses

    def _is_headline(self, measured: Measured, evaluators: Sequence[Evaluator]) -> bool:
        """Whether a metric judges its task: those of evaluators do so in place of the head's own."""
        if evaluators:
            return measured.metric in {name for evaluator in evaluators for name in evaluator.headlines}
        return measured.metric == self.objectives[measured.head.name].headline

    def headlines(self, names: Iterable[str]) -> list[str]:
        """The names, out of a test's metrics, of the metrics that judge the tasks."""
        ranked = {name: [one for one in own if one.headlines] for name, own in self.evaluators.items()}
        known = {name: self.measured[name] for name in names if name in self.measured}
        return [name for name, own in known.items() if self._is_headline(own, ranked.get(own.task.name, ()))]

    # -- optimiser and checkpoints

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig | torch.optim.Optimizer:
        fused = may_fuse(self.trainer.precision, clips=bool(self.optim.gradient_clip))
        optimizer = build_optimizer(self.parameter_groups(), self.optim, fused=fused)
        if self.optim.warmup_epochs is not None:
            return optimizer  # a callback sets its learning rates
        rounds = self.trainer.datamodule.num_rounds  # type: ignore[attr-defined]  # Lightning sets it
        num_steps = int(self.trainer.estimated_stepping_batches) if rounds is None else rounds
        schedule = build_schedule(optimizer, self.optim, num_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The groups of parameters that the optimiser is made of."""
        if self.optim.layer_decay == 1 and self.optim.optim_type != "adamw_torch":
            groups = plain_groups(self, self.optim, self._task_head_parameters())
        else:
            groups = layer_decay_groups(self, self.optim)
        return with_own_rates(groups, self, self.optim.optimizer.rates)

    def checkpoint_bytes(self) -> int:
        """The smallest size of a checkpoint: float32 weights, their average, and the optimiser's state of trained ones."""
        copies = 1 + (self.optim.optimizer.ema is not None)
        kept = {"sgd": 1, "adam": 2, "adamw": 2, "adamw_torch": 2, "radam": 2}.get(self.optim.optim_type, 0)
        return sum(4 * value.numel() * (copies + kept * value.requires_grad) for value in self.parameters())

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """The layers, for timm's parameter groups."""
        return LAYERS

    def configure_model(self) -> None:
        """Shard the model where the trainer's strategy does so. Lightning calls this once the processes have met."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not isinstance(self, FSDPModule):
            assert self.device_mesh is not None
            shard(self, self.device_mesh["data_parallel"])

    def _task_head_parameters(self) -> set[str]:
        heads = [name for name, objective in self.objectives.items() if objective.task_head]
        return {f"objectives.{head}.{name}" for head in heads for name, _ in self.objectives[head].named_parameters()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vlc"] = self.extras
        checkpoint["validations"], checkpoint["scores"] = dict(self.validations), dict(self.scores)
        checkpoint["random_scores"] = dict(self.random_scores)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the temperature of contrast its dimension, which older checkpoints lack, also in the optimiser's state."""
        validations = checkpoint.get("validations", 0)
        self.validations |= validations if isinstance(validations, dict) else dict.fromkeys(self.tasks, validations)
        self.scores = dict(checkpoint.get("scores", {}))
        self.random_scores = dict(checkpoint.get("random_scores", {}))
        name = "objectives.itc.log_scale"
        state = checkpoint.get("state_dict", {})  # sharded training reads the weights by itself
        if name in state and not state[name].ndim:
            state[name] = state[name].reshape(1)
            for optimizer in checkpoint.get("optimizer_states", ()):
                for moments in optimizer["state"].values():
                    scalars = [key for key, value in moments.items() if key != "step" and not value.ndim]
                    moments |= {key: moments[key].reshape(1) for key in scalars}


def _computed(ratios: Modules[Ratio]) -> dict[str, Tensor]:
    """The value of every ratio that counted something, and the ratios reset."""
    values = {}
    for name, ratio in ratios.items():
        value = ratio.compute()
        ratio.reset()
        if value is not None:
            values[name] = value.float()
    return values


def module_of(
    settings: Settings, tokenizer: PreTrainedTokenizerFast | None, vocab_size: int | None, **options: Any
) -> VLCModule:
    """Return the module that settings describe.

    tokenizer: None for a model of images alone.
    vocab_size: rows of its table of words; None: as many as the tokenizer has.
    options: further arguments of `VLCModule`.
    """
    pad_token_id, num_rows = vocabulary(tokenizer, vocab_size)
    return VLCModule(
        settings.model,
        settings.tasks,
        image_size=settings.data.image_size,
        max_text_len=settings.data.max_text_len,
        vocab_size=num_rows,
        pad_token_id=pad_token_id,
        **options,
    )


def _extras(
    config: Mapping[str, Any], vocabularies: Mapping[str, Vocabulary], tasks: Sequence[TaskSettings], encoder: Encoder
) -> dict[str, Any]:
    """What a checkpoint stores beside the weights, all of it plain values."""
    stored = {head: list(vocabulary.answers) for head, vocabulary in vocabularies.items()}
    extras: dict[str, Any] = {"config": dict(config), "answers": stored}
    if rows := own_tasks.stored(tasks):
        extras["rows"] = rows
    if encoder.task_tokens is not None:
        extras["task_tokens"] = list(encoder.task_tokens.names)
    if encoder.languages is not None:
        extras["languages"] = list(encoder.languages.names)
    return extras


def _num_box_tags(tasks: Sequence[TaskSettings]) -> int | None:
    """How many tags name boxes, in the task with the most; None: no pass has boxes as tokens."""
    numbers = [KINDS[head.kind].num_box_tags(head.options) for task in tasks for head in task.heads]
    return max((number for number in numbers if number is not None), default=None)


def _made_heads(
    tasks: Sequence[TaskSettings],
    encoder: Encoder,
    vocab_size: int,
    pad_token_id: int,
    vocabularies: Mapping[str, Vocabulary],
) -> Modules[Objective]:
    """The heads of the tasks by name; a name that several tasks have is one head."""
    size, num_patches = encoder.size, encoder.num_patches
    context = ModelContext(
        width=size.width, vocab_size=vocab_size, num_patches=num_patches, size=size, pad_token_id=pad_token_id
    )
    made: Modules[Objective] = Modules()
    for task in tasks:
        with task.errors_name_its_keys():
            for head in (head for head in task.heads if head.name not in made):
                own = replace(context, vocabulary=vocabularies.get(head.name, Vocabulary()))
                made[head.name] = KINDS[head.kind](head.options, own)
    return made


def shard(module: VLCModule, mesh: DeviceMesh) -> None:
    """Shard a module over a mesh in place (FSDP2). Each block gathers its weights while it runs; the rest is one unit."""
    for block in [part for part in module.modules() if isinstance(part, Block)]:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "forward_first_token")
    fully_shard(module, mesh=mesh)
    for entry in ("training_step", "validation_step", "test_step", "_run_evaluators"):
        register_fsdp_forward_method(module, entry)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """Keep all weights of a sharded module on every process, so that each process runs any number of passes."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    inner = [part for part in parts if part is not module]
    for part in inner:
        part.set_reshard_after_forward(False, recurse=False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in inner:
            part.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.reshard()
