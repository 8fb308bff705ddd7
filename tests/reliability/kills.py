"""Programs that are killed, interrupted or short of disk space at random moments, and then continued or run again."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.labelled_folders import words as classification_words
from tests.labelled_folders import write_folder
from tests.reliability import reading
from tests.reliability.damage import judged
from tests.reliability.isolated import REPOSITORY, TRACEBACK, Ended, call, call_all, program, remaining, runs
from tests.reliability.outcomes import Try

EVERY = 3  # optimiser steps between two checkpoints, where the program can be told
SECONDS = 90.0  # that a run may take
LINGER = 30.0  # within which loader processes end after the run that they belong to
STEPS_FILE = "RELIABILITY_STEPS"  # environment variable: the file that a run tells its steps in
FULL_DISK = "full disk"
_MIXED = ("vqa_emoji", "gqa_emoji", "nlvr2_emoji", "snli_ve_emoji", "refer_emoji", "pointing_emoji")
_WRITING = "while it saves"
# What happens to a run, and how often in a whole session, for one process and for two.
_EVENTS = {
    "SIGKILL": (9, 2),
    _WRITING: (6, 1),
    "SIGTERM": (5, 2),
    "SIGINT": (5, 1),
    "SIGUSR1": (4, 1),
    FULL_DISK: (2, 0),
}


@dataclass(frozen=True)
class Training:
    """A program that trains, in one of its ways.

    start: folder of the run -> its command line. resumed: command line and checkpoint -> command line. processes: with
    two, the launcher starts it. share: of the tries (loader processes take seconds to start).
    """

    name: str
    start: Callable[[Path], list[str]]
    resumed: Callable[[list[str], Path], list[str]]
    num_batches: int
    accumulation: int = 1
    processes: int = 1
    share: float = 1.0


# -- what runs


def announce_steps() -> None:
    """Every training step of this process appends its number to the file that STEPS_FILE names."""
    from vlc.training.module import VLCModule

    path = os.environ[STEPS_FILE]
    if os.environ.get("RANK", "0") != "0":
        return
    VLCModule.training_step = _announced(VLCModule.training_step, path)


def _announced(step: Callable, path: str) -> Callable:
    def announced(*arguments, **options):
        with open(path, "ab") as file:
            file.write(b".")
        return step(*arguments, **options)

    return announced


def _train(words: list[str], steps: str) -> None:
    os.environ[STEPS_FILE] = steps
    announce_steps()
    program(words)


def _run_words(data: Path, folder: Path, **values: Any) -> list[str]:
    return _command("task_pretrain_emoji", data, folder, datasets="[emoji_scenes]", **values)


def _mixed_words(data: Path, folder: Path, **values: Any) -> list[str]:
    """Six tasks in turn. Each stops after its first validation without a gain, and takes part in every third round."""
    tasks = f"[{','.join(_MIXED)}]"
    rules = {"mixing": "stop_and_go", "steps": "per_task", "gap": 3, "patience": 0, "cooldown": 0}
    rules = {f"multitask.{name}": value for name, value in rules.items()}
    own = {f"{name}.{key}": 4 for name in _MIXED for key in ("batch_size", "per_gpu_batchsize")}
    return _command("task_12in1_emoji", data, folder, tasks=tasks, **rules, **own, **values)


def _command(recipe: str, data: Path, folder: Path, **values: Any) -> list[str]:
    more = {"data_root": data, "log_dir": folder, "vit": "small_vit", "image_size": 32}
    more |= {"num_gpus": 0, "num_workers": 0, "per_gpu_batchsize": 4, "batch_size": 4, "warmup_steps": 2}
    more |= {"val_check_interval": 1.0, "drop_rate": 0.2} | reading.known(checkpoint_every=EVERY) | values
    return ["run.py", "with", recipe, *(f"{key}={value}" for key, value in more.items())]


def _resumed_run(words: list[str], checkpoint: Path) -> list[str]:
    return [*words, f"resume_from={checkpoint}"]


def _finetune_words(data: Path, folder: Path, **values: Any) -> list[str]:
    import main_finetune

    flags = main_finetune.parser().format_help()
    every = {"checkpoint_every": EVERY} if "--checkpoint_every" in flags else {}
    return ["main_finetune.py", *classification_words(data, folder, batch_size=4, **every, **values)]


def _resumed_finetune(words: list[str], checkpoint: Path) -> list[str]:
    return [*words, "--resume", str(checkpoint)]


def trainings(scenes: Path, images: Path, mixed: Path) -> list[Training]:
    """24 scenes of three captions each: 18 batches of 4 in an epoch. 39 images: 10 batches of 4. mixed: of six tasks."""
    run, finetune = partial(_run_words, scenes), partial(_finetune_words, images)
    return [
        Training("run.py, by steps", partial(run, max_steps=26), _resumed_run, 26),
        Training("run.py, by epochs, accumulation 2, a worker",
                 partial(run, max_steps=None, max_epoch=2, batch_size=8, num_workers=1), _resumed_run, 30, 2, share=0.35),
        Training("run.py, by epochs, accumulation 3", partial(run, max_steps=None, max_epoch=2, batch_size=12),
                 _resumed_run, 30, 3),
        Training("main_finetune", partial(finetune, epochs=3, ema=0.9), _resumed_finetune, 25),
        Training("main_finetune, accumulation 2, two workers", partial(finetune, epochs=3, accum_iter=2, num_workers=2),
                 _resumed_finetune, 25, 2, share=0.35),
        Training("run.py, six tasks that stop and go, a worker",
                 partial(_mixed_words, mixed, max_steps=None, max_epoch=4, num_workers=1), _resumed_run, 50, share=0.6),
        Training("launcher, two processes of run.py", partial(run, max_steps=14, batch_size=8), _resumed_run, 14, 1, 2),
    ]  # fmt: skip


def _last(folder: Path) -> Path | None:
    """The newest last.ckpt below a folder."""
    found = sorted(folder.rglob("last.ckpt"), key=lambda path: path.stat().st_mtime_ns)
    return found[-1] if found else None


def _saved_step(path: Path) -> int:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)["global_step"]


def _run(training: Training, words: list[str], folder: Path, event: Callable[[int], None] | None = None) -> Ended:
    """A run to its end, or to what the event makes of it."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = folder / "steps"
    steps.write_bytes(b"")
    if training.processes == 1:
        return call(
            _train, words, str(steps), folder=folder / "process", seconds=SECONDS, on_start=event, linger=LINGER
        )
    return _launched(training, words, folder, steps, event)


def _launched(
    training: Training, words: list[str], folder: Path, steps: Path, event: Callable[[int], None] | None
) -> Ended:
    command = [sys.executable, "-m", "launch", f"--nproc_per_node={training.processes}", "--standalone"]
    command += [str(REPOSITORY / "tests/reliability/announced.py"), *words]
    environment = os.environ | {STEPS_FILE: str(steps), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    began = time.perf_counter()
    with open(folder / "output.txt", "w") as output:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=output, stderr=output,
                                   stdin=subprocess.DEVNULL, start_new_session=True)  # fmt: skip
        if event is not None:
            event(process.pid)
        try:
            status = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        left = remaining(partial(_marked, steps), LINGER) if status is not None else []
        for number in _marked(steps):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        process.wait()
    text, spent = (folder / "output.txt").read_text(errors="replace"), time.perf_counter() - began
    if status is None:
        return Ended("hung", f"after {SECONDS:.0f} s", text, seconds=spent)
    how, value = ("died", signal.Signals(-status).name) if status < 0 else ("exited", status)
    return Ended(how, value, text, seconds=spent, left=len(left))


def _marked(steps: Path) -> list[int]:
    """The launcher of a run and all that it started, wherever they stand: they have the run's variable."""
    found, mark = [], f"{STEPS_FILE}={steps}".encode()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


# -- what happens to it


def _num_steps(folder: Path) -> int:
    try:
        return (folder / "steps").stat().st_size
    except FileNotFoundError:
        return 0


def _wait_for(condition: Callable[[], bool], number: int, seconds: float = SECONDS) -> bool:
    """Whether the condition came true while the process ran."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        if condition():
            return True
        if not runs(number):
            return False
        time.sleep(0.001)
    return False


def _happen(event: str, training: Training, folder: Path, step: int, delay: float, number: int) -> None:
    """Waits for a step, a little more, and lets the event happen to the process."""
    if not _wait_for(lambda: _num_steps(folder) >= step, number):
        return
    time.sleep(delay)
    if event == _WRITING:
        _wait_for(lambda: _is_saving(folder), number, 5)
        event = "SIGKILL"
    if event == FULL_DISK:
        _wait_for(lambda: _last(folder) is not None, number, 10)
        resource.prlimit(number, resource.RLIMIT_FSIZE, (20_000, 20_000))
        return
    with contextlib.suppress(ProcessLookupError):
        if event == "SIGKILL" and training.processes > 1:
            found = _marked(folder / "steps")
            for one in found if step % 2 else found[-1:]:  # the machine's end, or that of one process
                os.kill(one, signal.SIGKILL)
        elif event == "SIGINT":
            os.killpg(number, signal.SIGINT)  # as a terminal does
        else:
            os.kill(number, getattr(signal, event))


def _is_saving(folder: Path) -> bool:
    """Whether a checkpoint is being written: a file that is not there for long, beside the checkpoints."""
    for place, _, names in os.walk(folder):
        if any(name.endswith((".tmp", ".part", ".partial")) and "ckpt" in name for name in names):
            return True
        if place.endswith("checkpoints") and any(name.startswith("tmp") for name in names):
            return True
    return False


def _interrupted(training: Training, whole: str, event: str, folder: Path, seed: int) -> tuple[str, str]:
    """Outcome and detail of a run to which the event happens once or twice, and which is continued each time."""
    rng = random.Random(seed)
    words, checkpoint, lost = training.start(folder), None, []
    for _ in range(rng.choice((1, 1, 2))):
        done = 0 if checkpoint is None else _saved_step(checkpoint) * training.accumulation
        left = training.num_batches - done
        if left < 3:
            break
        step = rng.randrange(1, left - 1)
        happen = partial(_happen, event, training, folder, step, rng.random() * 0.05)
        ended = _run(training, words if checkpoint is None else training.resumed(words, checkpoint), folder, happen)
        finished = ended.how in ("returned", "exited") and ended.value in (None, 0)
        if event not in ("SIGKILL", _WRITING):
            if ended.how == "hung" or TRACEBACK in ended.output or ended.how == "raised":
                return ("hang" if ended.how == "hung" else "raw"), f"{event} at batch {done + step}: {ended.told()}"
            if finished and _num_steps(folder) + done < training.num_batches - training.accumulation:
                return "silent", f"{event} at batch {done + step}: it ended with status 0, as if it were complete"
        if ended.left:
            return "hang", f"{event}: {ended.left} processes were still there {LINGER:.0f} s later (seed {seed})"
        reached = (done + _num_steps(folder)) // training.accumulation
        checkpoint = _last(folder) or checkpoint
        saved = 0 if checkpoint is None else _saved_step(checkpoint)
        promised = 1 if event in ("SIGTERM", "SIGINT", "SIGUSR1") else 2 * EVERY
        if not finished and reached - saved > promised:
            lost.append(f"{event} at step {reached}: continued at {saved}")
    ended = _run(training, words if checkpoint is None else training.resumed(words, checkpoint), folder)
    if ended.fault or (ended.how, ended.value) not in (("returned", None), ("exited", 0)):
        fault = ended.fault or "raw"
        return fault, f"resumed after {event}: {ended.told()}"
    if reading.trained_state(_last(folder)) != whole:
        return "silent", f"{event}: other weights than those of a run that was not interrupted (seed {seed})"
    return ("silent", f"steps were lost: {lost}") if lost else ("same", "")


def _try_training(training: Training, whole: str, event: str, folder: Path, seed: int) -> Try:
    began = time.perf_counter()
    outcome, detail = _interrupted(training, whole, event, folder, seed)
    if outcome in ("same", "clear"):
        shutil.rmtree(folder)
    name = f"{event}, seed {seed}"
    return Try("kills", training.name, name, outcome, detail, seconds=time.perf_counter() - began)


def _write_mixed(folder: Path) -> None:
    """The data of the six tasks: 12 samples of each, 3 batches of 4."""
    from tests import tiny
    from vlc.tasks import TASKS

    for name in _MIXED:
        for dataset in TASKS[name].datasets:
            tiny.write_dataset(folder, dataset)


def _train_tries(folder: Path, rng: random.Random, scale: float) -> Iterator[Try]:
    scenes, images = folder / "scenes", write_folder(folder / "images", {"train": 13, "val": 3})
    call(reading.make_scenes, scenes, folder=folder / "scenes_out")
    if scale >= 0.3:
        call(_write_mixed, folder / "mixed", folder=folder / "mixed_out")
    chosen = trainings(scenes, images, folder / "mixed")
    chosen = chosen if scale >= 0.3 else chosen[:1]
    for number, training in enumerate(chosen):
        whole_folder = folder / f"whole_{number}"
        ended = _run(training, training.start(whole_folder), whole_folder)
        found = _last(whole_folder)
        if found is None:
            yield Try("kills", training.name, "a run that nothing interrupts", "raw", ended.told())
            continue
        whole = reading.trained_state(found)
        training = replace(training, num_batches=_num_steps(whole_folder))
        events = [
            event
            for event, counts in _EVENTS.items()
            for _ in range(round(counts[training.processes - 1] * scale * training.share + 0.4))
        ]
        events = events if scale >= 0.3 else ["SIGTERM"]
        tasks = [
            partial(_try_training, training, whole, event, folder / f"run_{number}_{count}", rng.randrange(1 << 32))
            for count, event in enumerate(events)
        ]
        yield from call_all(tasks, at_once=2 if training.processes == 1 else 1)


# -- writers


def _write(words: list[str], steps: str | None = None) -> None:
    """write_arrow with small batches and shards, which tells when it begins to write a file."""
    from write_arrow import __main__
    from write_arrow.machine import writer

    writer.BATCH_BYTES, writer.SHARD_ROWS = 20_000, 60
    write = writer._write

    def announced(*arguments, **options):
        if steps:
            with open(steps, "ab") as file:
                file.write(b".")
        return write(*arguments, **options)

    writer._write = announced
    __main__.main(words)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _killed(
    function: Callable, words: Any, folder: Path, *more: Any, file: int, delay: float = 0.0, event: str = "SIGKILL"
) -> Ended:
    """A call that is killed, or has no more space, so many seconds after it began to write a file."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = folder / "steps"
    steps.write_bytes(b"")

    def happen(number: int) -> None:
        _wait_for(lambda: steps.stat().st_size >= file, number)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            if event == FULL_DISK:
                resource.prlimit(number, resource.RLIMIT_FSIZE, (4000, 4000))
            else:
                os.kill(number, signal.SIGKILL)

    return call(function, words, *more, str(steps), folder=folder / "out", seconds=SECONDS, on_start=happen)


def _writer_tries(folder: Path, rng: random.Random, scale: float) -> Iterator[Try]:
    """The same command after a kill: the files of a run that was left alone."""
    raw, command = folder / "raw", ["captions", "--workers", "1"]
    raw.mkdir(parents=True)
    from tests.tiny import image_bytes

    for number in range(300):
        (raw / f"{number:04}.png").write_bytes(image_bytes(number, (16, 16), "PNG"))
        (raw / f"{number:04}.txt").write_text(f"caption {number}")
    command += ["--root", str(raw)]
    began = time.perf_counter()
    ended = call(_write, [*command, "--out", str(folder / "whole")], folder=folder / "whole_out")
    duration, whole = time.perf_counter() - began, _contents(folder / "whole")
    for number in range(max(1, round(10 * scale))):
        out, ended = folder / f"out_{number}", None
        for again in range(3):
            _killed(_write, [*command, "--out", str(out)], folder / f"killed_{number}_{again}",
                    file=rng.randrange(1, 6), delay=rng.random() * duration / 5)  # fmt: skip
        ended = call(_write, [*command, "--out", str(out)], folder=folder / f"again_{number}")
        outcome, detail = judged(ended, None)
        if outcome == "same" and _contents(out) != whole:
            outcome, detail = "silent", "other files than those of a run that was left alone"
        yield Try("kills", "writers, the same command again", f"three kills, {number}", outcome, detail)
    for number in range(max(1, round(2 * scale))):
        out = folder / f"full_{number}"
        ended = _killed(_write, [*command, "--out", str(out)], folder / f"limited_{number}", file=1 + 2 * number,
                        event=FULL_DISK)  # fmt: skip
        outcome, detail = judged(ended, "it should not have been written", (out.name, "TMPDIR"))
        again = call(_write, [*command, "--out", str(out)], folder=folder / f"full_{number}_again")
        if outcome == "clear" and (again.how != "returned" or _contents(out) != whole):
            outcome, detail = "silent", f"other files than those of a run that had space: {again.told()}"
        yield Try("kills", "writers, full disk", f"{number}", outcome, detail)


def _rewriting_tries(folder: Path, rng: random.Random, scale: float) -> Iterator[Try]:
    """A data set that is replaced by another, killed between and inside files: the old one, the new one, or refused."""
    sizes = {"train": 24, "val": 6, "test": 6, "held-out": 6}
    options = [word for name, size in sizes.items() for word in (f"--num-{name}", str(size))]
    digests = {}
    for seed in (0, 1):
        words = ["emoji_scenes", "--seed", str(seed), *options]  # of seed 1 from here on
        call(_write, [*words, "--out", str(folder / f"seed_{seed}")], folder=folder / f"seed_{seed}_out")
        digests[seed] = call(reading.read_scenes, folder / f"seed_{seed}", folder=folder / f"read_{seed}_out").value
    for number in range(max(1, round(12 * scale))):
        out = folder / f"out_{number}"
        shutil.copytree(folder / "seed_0", out)
        file = 1 + number % 4
        _killed(_write, [*words, "--out", str(out)], folder / f"killed_{number}", file=file, delay=rng.random() * 0.02)
        ended = call(reading.read_scenes, out, folder=folder / f"between_{number}")
        outcome, detail = judged(ended, digests[0], (out.name,))
        if outcome == "silent" and ended.value == digests[1]:
            outcome, detail = "same", ""
        if outcome in ("same", "clear"):
            again = call(_write, [*words, "--out", str(out)], folder=folder / f"again_{number}")
            ended = call(reading.read_scenes, out, folder=folder / f"after_{number}")
            if again.how != "returned" or (ended.how, ended.value) != ("returned", digests[1]):
                outcome, detail = "silent", f"the same command did not mend it: {again.told()} {ended.told()}"
        yield Try("kills", "writers, a data set replaced", f"killed in file {file}, {number}", outcome, detail)


# -- index


def _index(folder: str, checkpoint: Path, data: Path, steps: str | None = None) -> None:
    import vlc.use.search.building

    write = vlc.use.search.building.write_kind

    def announced(*arguments, **options):
        if steps:
            with open(steps, "ab") as file:
                file.write(b".")
        return write(*arguments, **options)

    def renamed(*arguments, **options):
        rename(*arguments, **options)
        if steps:
            with open(steps, "ab") as file:
                file.write(b".")
            time.sleep(0.05)  # an old index gives way to a new one between two renames

    rename, os.rename = os.rename, renamed
    vlc.use.search.building.write_kind = announced
    reading.make_index(Path(folder), checkpoint, data)


def _index_tries(folder: Path, rng: random.Random, scale: float) -> Iterator[Try]:
    """An index that is made, or made again, and killed: none, the old one, or the new one."""
    scenes, checkpoints = folder / "scenes", folder / "checkpoints"
    call(reading.make_scenes, scenes, folder=folder / "scenes_out")
    call(reading.make_checkpoints, checkpoints, scenes, folder=folder / "checkpoints_out")
    model = checkpoints / "last.ckpt"
    call(_index, str(folder / "whole"), model, scenes, folder=folder / "whole_out")
    whole = call(reading.read_index, folder / "whole", model, folder=folder / "whole_read")
    for number in range(max(1, round(15 * scale))):
        out, exists = folder / f"index_{number}", number % 3 > 0
        if exists:
            shutil.copytree(folder / "whole", out)
        # 1, 2: while images and texts are embedded. 3, 4: around the renames at the end.
        file, event = 1 + number // 3 % (4 if exists else 3), FULL_DISK if number % 5 == 4 else "SIGKILL"
        delay = rng.random() * (0.15 if file < 3 else 0.02)
        ended = _killed(
            _index, str(out), folder / f"killed_{number}", model, scenes, file=file, delay=delay, event=event
        )
        outcome, detail = "same", ""
        if event == FULL_DISK and (ended.fault or "Traceback" in ended.output):
            outcome, detail = "raw", f"{event}: {ended.told()}"
        if outcome == "same":
            ended = call(reading.read_index, out, model, folder=folder / f"read_{number}")
            outcome, detail = judged(ended, whole.value, (out.name,))
        if exists and outcome == "clear":
            outcome, detail = "silent", f"the index that was there is lost: {detail}"
        if outcome in ("same", "clear"):
            call(_index, str(out), model, scenes, folder=folder / f"again_{number}")
            ended = call(reading.read_index, out, model, folder=folder / f"after_{number}")
            left = sorted(path.name for path in folder.iterdir() if path.name.startswith(f".{out.name}."))
            if (ended.how, ended.value) != ("returned", whole.value) or left:
                outcome, detail = "silent", f"the same command did not mend it: {ended.told()} {left}"
        name = f"{event} in part {file}, {number}"
        yield Try("kills", f"index, made {'again' if exists else 'anew'}", name, outcome, detail)


def tries(folder: Path, seed: int, scale: float = 1.0) -> Iterator[Try]:
    """All tries; with a small scale a few of the fast ones."""
    for name, part in (
        ("train", _train_tries),
        ("write", _writer_tries),
        ("rewrite", _rewriting_tries),
        ("index", _index_tries),
    ):
        (folder / name).mkdir(parents=True)
        yield from part(folder / name, random.Random(f"{seed} {name}"), scale)
