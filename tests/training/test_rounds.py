"""Stop-and-go and the rhythm of validations, beside traces of the published training loop."""

import json
from dataclasses import replace

import pytest

from tests.conftest import GOLDEN
from vlc.configuration.groups import MultitaskSettings
from vlc.data.mixing import Mixing
from vlc.training.rounds import Controller, Rounds, State

TRACES = json.loads((GOLDEN / "tasks/training/stop_controller.json").read_text())
LOOPS = json.loads((GOLDEN / "tasks/training/train_loop.json").read_text())


def _followed_trace(trace: dict) -> bool:
    """Whether our controller has the states of a trace."""
    own = {name: value for name, value in trace["params"].items() if name not in ("mode", "threshold_mode")}
    rule = MultitaskSettings(**own, absolute=trace["params"].get("threshold_mode") == "abs")
    sign = 1 if trace["params"]["mode"] == "max" else -1
    controller = Controller()
    for number, score in enumerate(trace["scores"]):
        controller = controller.after(sign * score, rule)
        found = (controller.stopped, sign * controller.best, controller.bad, controller.cooldown)
        if found != tuple(trace[name][number] for name in ("in_stop", "best", "bad", "cooldown")):
            return False
        if number in trace["reset_after"]:
            controller = Controller()
    return True


def test_controllers_equal_the_published_ones():
    """Of scores, where higher is better: the only use that 12-in-1 makes of them.

    Where lower is better, or a score is negative, the published comparison with best * (1 - threshold) has the wrong sign:
    a stopped task runs again when it improves.
    """
    assert len(TRACES) == 124
    scores = [trace for trace in TRACES if trace["params"]["mode"] == "max" and min(trace["scores"]) >= 0]
    assert len(scores) == 104
    assert all(map(_followed_trace, scores))
    assert not all(_followed_trace(trace) for trace in TRACES if trace not in scores)


def _published(name: str) -> tuple[Rounds, dict[str, list[float]]]:
    case = LOOPS[name]
    names = [str(task) for task in case["tasks"]]
    gap = int(case["argv"][case["argv"].index("--train_iter_gap") + 1]) if "--train_iter_gap" in case["argv"] else 4
    epochs = int(case["argv"][case["argv"].index("--num_train_epochs") + 1])
    settings = MultitaskSettings(
        mixing="stop_and_go", resets=(6, 8), gap=gap, rounds_per_epoch=case["iterations"] // epochs
    )
    mixing = Mixing(dict.fromkeys(names, 1), gap=gap)
    rounds = Rounds(settings, mixing, case["passes"], frozenset(names), epochs)
    return rounds, {task: list(scores) for task, scores in case["val_scores"].items()}


def _followed(rounds: Rounds, scores: dict[str, list[float]], *, stored: bool) -> dict[int, tuple[list, list]]:
    """By round: the tasks that ran, and the validations after it as [task, score, stopped]."""
    state, found = rounds.start(), {}
    while state is not None:
        if stored:
            state = State.of(json.loads(json.dumps(state.plain())))
        for number, task in zip(*(column.tolist() for column in rounds.mixing.visits(state.stretch)), strict=True):
            found.setdefault(number, ([], []))[0].append(int(rounds.mixing.tasks[task]))
        own = {name: scores[name].pop(0) for name in rounds.mixing.tasks if name in rounds.due(state.stretch)}
        state = rounds.observed(state, own)
        evaluated = [[int(name), score, state.controllers[name].stopped] for name, score in own.items()]
        found.setdefault(state.stretch.end - 1, ([], []))[1].extend(evaluated)
        state = rounds.following(state)
    return found


@pytest.mark.parametrize(
    "name",
    [
        *("schedule_warmup_linear", "stop_and_go_gap4", "stop_and_go_gap3", "stop_and_go_gap1"),
        *("first_task_stops", "all_tasks_stop_cosine", "multiplier_and_last_epoch", "single_task"),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_tasks_run_and_stop_as_in_the_published_loop(name, stored):
    rounds, scores = _published(name)
    found = _followed(rounds, scores, stored=stored)
    for number, expected in enumerate(LOOPS[name]["trace"]):
        ran, evaluated = found.get(number, ([], []))
        assert ran == expected["tasks"], f"round {number}"
        assert [row[::2] for row in evaluated] == [row[::2] for row in expected["evals"]], f"round {number}"
        assert [row[1] for row in evaluated] == pytest.approx([row[1] for row in expected["evals"]], rel=1e-12)


def test_a_gap_of_zero_or_less_is_a_full_stop():
    """The published loop takes -1 for every round, though its help says otherwise."""
    rounds, scores = _published("stop_and_go_gap-1")
    found = _followed(rounds, scores, stored=False)
    stopped: set[int] = set()
    for number in range(rounds.total):
        ran, evaluated = found.get(number, ([], []))
        assert not stopped & set(ran)
        assert set(ran) | stopped == {1, 9, 12}
        stopped = (stopped | {task for task, _, stops in evaluated if stops}) - {
            task for task, _, stops in evaluated if not stops
        }
        if (number + 1) in (36, 48):
            stopped = set()


@pytest.mark.parametrize("epochs", [3, None])
def test_a_run_ends_where_no_task_will_run_again(epochs):
    mixing = Mixing({"a": 1, "b": 1}, gap=0)
    settings = MultitaskSettings(mixing="stop_and_go", gap=0)
    rounds = Rounds(settings, mixing, {"a": 2, "b": 3}, frozenset("ab"), epochs and 100)
    state = rounds.start()
    for _ in range(50):
        state = rounds.trained_next(rounds.observed(state, dict.fromkeys(rounds.due(state.stretch), 0.5)))
        if state is None:
            return
    raise AssertionError("it did not end")


@pytest.mark.parametrize(
    ("interval", "ends"), [(1.0, [8, 16, 24]), (0.5, [4, 8, 12, 16, 20, 24]), (3, [3, 6, 9, 12, 15, 18, 21, 24])]
)
def test_all_tasks_are_validated_together_without_a_rhythm_of_their_own(interval, ends):
    mixing = Mixing({"a": 1, "b": 1})
    rounds = Rounds(MultitaskSettings(), mixing, {"a": 2, "b": 8}, frozenset("ab"), 3, interval)
    state, found = rounds.start(), []
    while state is not None:
        assert rounds.due(state.stretch) == {"a", "b"}
        found.append(state.stretch.end)
        state = rounds.following(state)
    assert found == ends
    assert rounds.num_stretches == len(ends)


def test_a_task_without_validation_never_stops():
    mixing = Mixing({"a": 1, "b": 1})
    rounds = Rounds(MultitaskSettings(mixing="stop_and_go"), mixing, {"a": 2, "b": 8}, frozenset("a"), 2)
    state = rounds.start()
    while state is not None:
        assert rounds.due(state.stretch) <= {"a"}
        last = state = replace(rounds.observed(state, dict.fromkeys(rounds.due(state.stretch), 0.5)))
        state = rounds.following(state)
    assert last.stretch.stopped == {"a"}
    assert last.stretch.visits[1] + last.stretch.end - last.stretch.first == rounds.total
