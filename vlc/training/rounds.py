"""The rounds of a run of several tasks: when each task is validated, and which tasks stop or go on.

Everything here is a pure function of settings and states, so that all processes and every resumed run agree.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vlc.configuration.groups import MultitaskSettings
from vlc.data.mixing import Mixing, Stretch


@dataclass(frozen=True)
class Controller:
    """Decides from a task's validations whether it trains, as dynamic stop-and-go of 12-in-1 does (Lu et al. 2020).

    best: the best score so far.
    bad: the validations in a row that did not improve it.
    cooldown: the number of validations to come that do not count against the task.
    """

    best: float = -math.inf
    bad: int = 0
    cooldown: int = 0
    stopped: bool = False

    def after(self, score: float, rule: MultitaskSettings) -> "Controller":
        """The controller after a validation with this score; higher is better."""
        best, bad, cooldown = self.best, self.bad + 1, self.cooldown
        if best == -math.inf or score > best + rule.threshold * (1 if rule.absolute else abs(best)):
            best, bad = score, 0
        if cooldown > 0:
            bad, cooldown = 0, cooldown - 1
        if bad > rule.patience:
            return Controller(best, 0, rule.cooldown, stopped=True)
        if self.stopped and score < best - rule.continue_threshold * (1 if rule.absolute else abs(best)):
            return Controller(best, 0, rule.cooldown, stopped=False)
        return Controller(best, bad, cooldown, self.stopped)


@dataclass(frozen=True)
class State:
    """Where a run of several tasks is: its stretch of rounds, and what validation said of each task.

    scores: the latest score of each task.
    bests: the best score of each task, which no reset forgets.
    """

    stretch: Stretch
    controllers: Mapping[str, Controller]
    scores: Mapping[str, float] = field(default_factory=dict)
    bests: Mapping[str, float] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The state as plain values for a checkpoint; `State.of` reads them."""
        stretch = asdict(self.stretch) | {"visits": list(self.stretch.visits), "stopped": sorted(self.stretch.stopped)}
        controllers = {name: asdict(controller) for name, controller in self.controllers.items()}
        return {
            "stretch": stretch,
            "controllers": controllers,
            "scores": dict(self.scores),
            "bests": dict(self.bests),
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "State":
        stretch = values["stretch"]
        return cls(
            Stretch(**{**stretch, "visits": tuple(stretch["visits"]), "stopped": frozenset(stretch["stopped"])}),
            {name: Controller(**own) for name, own in values["controllers"].items()},
            values["scores"],
            values["bests"],
        )


@dataclass(frozen=True)
class Rounds:
    """The plan of a run.

    passes: by task, the visits that see all its samples once.
    validated: the tasks that have a validation.
    max_epoch: the number of epochs; None: something else ends the run.
    interval: the share of an epoch, or the number of rounds, from one validation of all tasks to the next, where they have
        no rhythm of their own.
    """

    settings: MultitaskSettings
    mixing: Mixing
    passes: Mapping[str, int]
    validated: frozenset[str]
    max_epoch: int | None
    interval: float | int = 1.0

    @property
    def epoch(self) -> int:
        """The rounds of an epoch."""
        return self.settings.rounds_per_epoch or max(self.passes.values())

    @property
    def total(self) -> int | None:
        """The rounds of the whole run; None where something else ends it."""
        return None if self.max_epoch is None else self.max_epoch * self.epoch

    @property
    def num_stretches(self) -> int | None:
        """The stretches of the whole run; fewer where all tasks stop."""
        if self.total is None:
            return None
        end = count = 0
        while end < self.total:
            end, count = self._end_after(end), count + 1
        return count

    @property
    def _own_rhythm(self) -> bool:
        own = self.settings.own_rhythm
        return self.settings.mixing == "stop_and_go" if own is None else own

    def start(self) -> State:
        """The state at the beginning of a run."""
        stretch = Stretch(0, 0, self._end_after(0), (0,) * len(self.passes))
        return State(stretch, {name: Controller() for name in self.passes if name in self.validated})

    def due(self, stretch: Stretch) -> frozenset[str]:
        """The tasks that are validated at the end of a stretch. At the end of the run all are."""
        if stretch.end == self.total:
            return self.validated
        if self._own_rhythm:
            return frozenset(name for name in self.validated if self._passed(name, stretch.end))
        return self.validated if stretch.end == self._after_interval(stretch.end - 1) else frozenset()

    def observed(self, state: State, scores: Mapping[str, float]) -> State:
        """The state after a validation."""
        controllers = {name: state.controllers[name].after(score, self.settings) for name, score in scores.items()}
        bests = {name: max(score, state.bests.get(name, score)) for name, score in scores.items()}
        return replace(
            state,
            controllers={**state.controllers, **controllers},
            scores={**state.scores, **scores},
            bests={**state.bests, **bests},
        )

    def following(self, state: State) -> State | None:
        """The state with the next stretch; None at the end of the run."""
        first = state.stretch.end
        if first == self.total:
            return None
        if first % self.epoch == 0 and first // self.epoch in self.settings.resets:
            state = replace(state, controllers={name: Controller() for name in state.controllers})
        stopped = frozenset(name for name, own in state.controllers.items() if own.stopped)
        if self.settings.mixing != "stop_and_go":
            stopped = frozenset()
        return replace(state, stretch=self.mixing.following(state.stretch, self._end_after(first), stopped))

    def trained_next(self, state: State) -> State | None:
        """The state with the next stretch that has anything to train; None at the end of the run.

        Where all tasks are stopped, a validation would give the scores that are known, and they are taken again.
        """
        number = state.stretch.number + 1
        limit = self.total or state.stretch.end + 4 * self.epoch
        following = self.following(state)
        while following is not None and not len(self.mixing.visits(following.stretch)[0]):
            if following.stretch.end >= limit:
                return None
            known = {name: state.scores[name] for name in self.due(following.stretch) if name in state.scores}
            following = self.following(self.observed(following, known))
        if following is None:
            return None
        return replace(following, stretch=replace(following.stretch, number=number))

    def _end_after(self, first: int) -> int:
        """The round up to which the stretch goes that begins with round `first`."""
        ends = [epoch * self.epoch for epoch in self.settings.resets if epoch * self.epoch > first]
        if self._own_rhythm:
            ends += [
                max(first - 1, 0) // self.passes[name] * self.passes[name] + self.passes[name] + 1
                for name in self.validated
            ]
        else:
            ends.append(self._after_interval(first))
        if self.total is not None:
            ends.append(self.total)
        if not self.validated:
            ends.append((first // self.epoch + 1) * self.epoch)
        return min(ends)

    def _passed(self, name: str, end: int) -> bool:
        """Whether a task is validated after the round before `end`. As published, a pass is then over by one round."""
        return end > 1 and (end - 1) % self.passes[name] == 0

    def _after_interval(self, first: int) -> int:
        """The next round, after `first` rounds, at which all tasks are validated."""
        if isinstance(self.interval, int):
            return (first // self.interval + 1) * self.interval
        epochs, rest = divmod(first, self.epoch)
        step = max(1, int(self.epoch * self.interval))
        return epochs * self.epoch + min((rest // step + 1) * step, self.epoch)
