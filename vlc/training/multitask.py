"""Leads a run of several tasks through its rounds, and shows how the tasks stand."""

import time
from collections.abc import Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from vlc.common.errors import UserError
from vlc.configuration.settings import Settings
from vlc.data.batch import Batch
from vlc.data.mixing import Mixing, Stretch, Turn
from vlc.training.datamodule import DataModule, num_accumulated
from vlc.training.rounds import Rounds, State


class Multitask(Callback):
    """Gives the sampler its stretches of rounds, tells the controllers the scores, and says when a step is made.

    Lightning takes each stretch for an epoch, and validates at its end. So a decision is valid from the next stretch on,
    for all processes and every resumed run, whatever the loaders have read ahead. It comes behind `Progress` among the
    callbacks and before those that save.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.turn = Turn()
        self.num_rounds = 0  # that are complete
        self.seconds = dict.fromkeys((task.name for task in settings.tasks), 0.0)
        self._rounds: Rounds | None = None
        self._state: State | None = None
        self._since = 0.0

    @property
    def rounds(self) -> Rounds:
        assert self._rounds is not None, "training has not been set up"
        return self._rounds

    @property
    def state(self) -> State:
        assert self._state is not None, "training has not been set up"
        return self._state

    # -- the plan

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data: DataModule = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it
        self._rounds = planned_rounds(self.settings, data, trainer.world_size)
        self._state = self.rounds.start()
        data.mixing, data.stretch = self.rounds.mixing, self._stretch
        data.num_rounds = self.rounds.total or self._rounds_of_steps(trainer.max_steps)
        if trainer.fast_dev_run:  # type: ignore[attr-defined]  # as above
            return
        if self.rounds.num_stretches is not None:
            trainer.fit_loop.max_epochs = self.rounds.num_stretches
        trainer.fit_loop.epoch_loop._accumulated_batches_reached = lambda: self.turn.ends_step  # type: ignore[method-assign]

    def _rounds_of_steps(self, num_steps: int) -> int:
        """The rounds that have so many optimiser steps where all tasks run."""
        of_a_round = len(self.rounds.passes) if self.rounds.mixing.step_for_each_task else 1
        return -(-num_steps // of_a_round)

    def _stretch(self, number: int) -> Stretch:
        """The stretch of a number, which is the present one or the next. An empty one where the run is over."""
        if number == self.state.stretch.number + 1:
            self._state = self.rounds.trained_next(self.state) or self.state
        stretch = self.state.stretch
        return stretch if stretch.number == number else Stretch(number, stretch.end, stretch.end, stretch.visits)

    # -- training

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin(trainer)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        """Tell Lightning how long the stretch is, and the loaders which tasks are validated at its end."""
        loop, data = trainer.fit_loop, trainer.datamodule  # type: ignore[attr-defined]  # as above
        data.due = self.rounds.due(self._stretch(trainer.current_epoch))
        loader = loop._combined_loader
        assert loader is not None
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]  # as above
            loop.max_batches = trainer.val_check_batch = len(loader.flattened[0])
            loader.limits = [loop.max_batches]

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self.turn, self._since = batch.turn, time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs, batch: Batch, batch_idx: int
    ) -> None:
        self.seconds[batch.task] += time.perf_counter() - self._since
        self.num_rounds += batch.turn.ends_round
        if trainer.global_step == trainer.max_steps:  # the last validation is of all tasks
            trainer.datamodule.due = None  # type: ignore[attr-defined]  # as above

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.sanity_checking:
            return
        due = trainer.datamodule.due  # type: ignore[attr-defined]  # as above
        scores: dict[str, float] = module.scores  # type: ignore[assignment]  # of VLCModule
        due = self.rounds.validated if due is None else due
        self._state = self.rounds.observed(self.state, {name: scores[name] for name in scores if name in due})
        if due:
            self._show(module.random_scores)  # type: ignore[arg-type]  # of VLCModule

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.rounds.trained_next(self.state) is None:
            trainer.should_stop = True

    @rank_zero_only
    def _show(self, random_scores: Mapping[str, float]) -> None:
        """Print a line for each task: its scores beside chance, whether it runs, and its share of the time."""
        whole, title = sum(self.seconds.values()) or 1.0, f"after {self.num_rounds} rounds"
        grid = Table("task", "score", "best", "chance", "state", "share of time", title=title, box=None)
        for name, seconds in self.seconds.items():
            known = [values.get(name) for values in (self.state.scores, self.state.bests, random_scores)]
            controller = self.state.controllers.get(name)
            stops = self.rounds.settings.mixing == "stop_and_go" and controller is not None and controller.stopped
            figures = ["-" if value is None else f"{value:.4f}" for value in known]
            grid.add_row(name, *figures, "stopped" if stops else "running", f"{100 * seconds / whole:.0f} %")
        Console().print(grid)

    # -- checkpoints

    def state_dict(self) -> dict[str, Any]:
        if self._state is None:
            return {}
        return {"state": self.state.plain(), "num_rounds": self.num_rounds, "seconds": dict(self.seconds)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = State.of(state_dict["state"])
        self.num_rounds = 0  # that are complete
        self.num_rounds, self.seconds = state_dict["num_rounds"], dict(state_dict["seconds"])


class BestOfTask(ModelCheckpoint):
    """Keeps the best checkpoint of one task as best-TASK.ckpt. The task has a new score only where it is validated."""

    def __init__(self, task: str):
        self.task = task
        super().__init__(
            monitor=f"{task}/val/the_metric", mode="max", filename=f"best-{task}", enable_version_counter=False
        )

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        due = trainer.datamodule.due  # type: ignore[attr-defined]  # Lightning sets it
        if due is None or self.task in due:
            super().on_validation_end(trainer, module)


def planned_rounds(settings: Settings, data: DataModule, num_devices: int) -> Rounds:
    """The rounds of a run. Raises UserError where a task has nothing to train on, or a controller nothing to go by."""
    own, optim = settings.multitask, settings.optim
    samplers = data.train_samplers()
    tasks = {name: data.tasks[name].task for name in samplers}
    batches = {name: num_accumulated(task, num_devices) for name, task in tasks.items()}
    validated = frozenset(name for name in samplers if data.tasks[name].evaluation)
    if own.mixing == "stop_and_go" and (without := [name for name in samplers if name not in validated]):
        raise UserError(
            f"multitask.mixing=stop_and_go stops tasks by their validation, and {', '.join(without)} have none: pass "
            "another mixing, or leave them out of tasks"
        )
    samples = {name: float(sampler.num_samples) for name, sampler in samplers.items()}
    chances = {
        "size_proportional": samples,
        "temperature": {name: number ** (1 / own.temperature) for name, number in samples.items()},
        "weighted": dict(own.weights),
    }.get(own.mixing)
    mixing = Mixing(
        batches,
        chances,
        gap=own.gap,
        step_for_each_task=own.steps == "per_task",
        seed=settings.run.seed,
    )
    return Rounds(
        own,
        mixing,
        {name: max(1, len(sampler) // batches[name]) for name, sampler in samplers.items()},
        validated,
        optim.max_epoch if optim.max_steps is None else None,
        settings.run.val_check_interval,
    )
