"""Stopped and resumed runs end with the very weights of unbroken ones: a sample, tests/reliability has all of it."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.resuming import Stop, assert_same, finetuning, pretraining, run_with_stops
from vlc.training.progress import Progress

SIGNAL, KILL = "SIGTERM", "kill"
STEPS = {"max_steps": 9, "val_check_interval": 0.5, "checkpoint_every": 2}
EPOCHS = {"max_steps": None, "max_epoch": 2, "val_check_interval": 1.0}
# The rate falls at the third validation and at each later one, of three in an epoch.
PLATEAU = {
    "schedule.kind": "plateau",
    "schedule.threshold": 10.0,
    "optim_type": "radam",
    "optimizer.frozen": ["text_embeddings"],
    "optimizer.rates": {"classifier": 2.0},
    "warmup_steps": 2,
}


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        # Nine steps are an epoch of six and three of the next; a kill leaves the checkpoint of two steps or of validation.
        (STEPS, [Stop("training_step", 7, KILL), Stop("training_step", 2, SIGNAL)]),
        (STEPS | {"num_workers": 1}, [Stop("training_step", 6, SIGNAL)]),
        (STEPS | {"batch_size": 8}, [Stop("training_step", 3, SIGNAL), Stop("validation_step", 2, SIGNAL)]),
        (EPOCHS, [Stop("training_step", 7, KILL)]),
        (EPOCHS | {"batch_size": 12, "num_workers": 1}, [Stop("training_step", 8, SIGNAL)]),
        (EPOCHS, [Stop("validation_step", 1, SIGNAL), Stop("training_step", 1, SIGNAL)]),
        (
            EPOCHS | PLATEAU | {"val_check_interval": 2},
            [Stop("training_step", 8, SIGNAL), Stop("validation_step", 2, SIGNAL)],
        ),
    ],
    ids=[
        "steps-twice",
        "steps-epoch-end",
        "steps-accumulated",
        "epochs-killed",
        "epochs-accumulated",
        "epochs-validation",
        "plateau",
    ],
)
def test_run_ends_as_an_unbroken_one(arrows, small_vit, tmp_path, monkeypatch, options, stops):
    assert assert_same(pretraining(arrows, small_vit, **options), tmp_path, stops, monkeypatch) == len(stops)


@pytest.mark.parametrize(
    ("options", "stops"),
    [
        ({"num_workers": 1}, [Stop("training_step", 7, KILL)]),
        ({"accum_iter": 2, "ema": 0.9}, [Stop("training_step", 3, SIGNAL), Stop("validation_step", 1, SIGNAL)]),
    ],
    ids=["epoch-end", "accumulated-validation"],
)
def test_main_finetune_ends_as_an_unbroken_one(images, tmp_path, monkeypatch, options, stops):
    assert assert_same(finetuning(images, **options), tmp_path, stops, monkeypatch) == len(stops)


def test_a_validation_that_was_stopped_is_made_up_for(arrows, small_vit, tmp_path, monkeypatch):
    """The checkpoint selected, its score and the steps that are logged are those of an unbroken run."""
    program = pretraining(arrows, small_vit, **EPOCHS)
    program.start(tmp_path / "unbroken", None)
    run_with_stops(program, tmp_path / "stopped", [Stop("validation_step", 2, SIGNAL)], monkeypatch)
    unbroken, stopped = (_scores(tmp_path / name) for name in ("unbroken", "stopped/1"))
    assert unbroken == stopped
    assert list(unbroken) == [5, 11]


def _scores(folder: Path) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (log,) = {path.parent for path in folder.rglob("events.out.tfevents.*")}
    events = EventAccumulator(str(log)).Reload()
    return {event.step: event.value for event in events.Scalars("val/the_metric")}


def test_a_checkpoint_within_a_step_is_that_of_the_step_before(arrows, small_vit, tmp_path, monkeypatch):
    program = pretraining(arrows, small_vit, batch_size=12, max_steps=4)
    run_with_stops(program, tmp_path, [Stop("training_step", 5, SIGNAL)], monkeypatch)
    state = torch.load(tmp_path / "1/last.ckpt", weights_only=True)
    found = state["callbacks"]["Progress"]
    assert (state["global_step"], found["epoch"], found["num_batches"]) == (1, 0, 3), "three batches make a step"


@pytest.mark.parametrize(
    ("started", "processed", "num_batches", "is_last_batch", "position"),
    [
        (7, 6, 4, False, (6, 4)),  # stopped by a signal
        (7, 7, 4, False, (6, 4)),  # ended by max_steps
        (7, 7, 6, True, (7, 0)),  # ended with an epoch
        (7, 6, 6, True, (6, 6)),  # saved by the validation of an epoch's end
    ],
)
def test_checkpoints_of_63cb081_tell_their_place(started, processed, num_batches, is_last_batch, position):
    epochs, batches = {"started": started, "processed": processed}, {"processed": num_batches}
    counted = {"current": batches, "total": {"processed": 6 * 6 + num_batches}, "is_last_batch": is_last_batch}
    loops = {"epoch_progress": {"current": epochs}, "epoch_loop.batch_progress": counted}
    progress, trainer = Progress(), SimpleNamespace(datamodule=SimpleNamespace())
    progress.on_load_checkpoint(trainer, None, {"loops": {"fit_loop": loops}, "callbacks": {}})
    assert progress.position == trainer.datamodule.start == position
