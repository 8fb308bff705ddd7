"""The program as it is called: flags, whole runs, resuming, several processes, mistakes."""

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pytorch_lightning.plugins.environments import LightningEnvironment
from timm.scheduler import CosineLRScheduler

import main_finetune
from main_finetune import _environment, _local_size
from tests import tiny
from tests.labelled_folders import arguments, words, write_folder
from tests.warm import command
from vlc.checkpoint.weights import read
from vlc.common.errors import MissingFile, UserError
from vlc.training.finetune import half_cosine
from vlc.training.module import VLCModule

REPOSITORY = Path(__file__).parents[1]

PUBLISHED = {
    "batch_size": 64, "epochs": 50, "accum_iter": 1, "model": "vit_large_patch16", "input_size": 224, "drop_path": 0.1,
    "clip_grad": None, "weight_decay": 0.05, "lr": None, "blr": 1e-3, "layer_decay": 0.75, "min_lr": 1e-6,
    "warmup_epochs": 5, "color_jitter": None, "aa": "rand-m9-mstd0.5-inc1", "smoothing": 0.1, "reprob": 0.25,
    "remode": "pixel", "recount": 1, "resplit": False, "mixup": 0, "cutmix": 0, "cutmix_minmax": None, "mixup_prob": 1.0,
    "mixup_switch_prob": 0.5, "mixup_mode": "batch", "finetune": "", "global_pool": True, "nb_classes": 1000,
    "output_dir": "./output_dir", "log_dir": "./output_dir", "device": "cuda", "seed": 0, "resume": "", "start_epoch": 0,
    "eval": False, "dist_eval": False, "num_workers": 10, "pin_mem": True, "world_size": 1, "local_rank": -1,
    "dist_on_itp": False, "dist_url": "env://",
}  # fmt: skip


def _lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "log.txt").read_text().splitlines()]


def _weights(out: Path, name: str = "last.ckpt") -> dict[str, torch.Tensor]:
    return torch.load(out / name, weights_only=True)["state_dict"]


def _assert_same_weights(one: Path, other: Path) -> None:
    for name, value in _weights(one).items():
        torch.testing.assert_close(_weights(other)[name], value, rtol=0, atol=0, msg=name)


def test_defaults_are_the_published_ones():
    parsed = vars(main_finetune.parser().parse_args([]))
    assert {name: parsed[name] for name in PUBLISHED} == PUBLISHED
    flags = ["--cls_token", "--no_pin_mem", "--resplit", "--local-rank=1", "--cutmix_minmax", "0.2", "0.8"]
    parsed = main_finetune.parser().parse_args(flags)
    assert (parsed.global_pool, parsed.pin_mem, parsed.local_rank, parsed.cutmix_minmax) == (
        False,
        False,
        1,
        [0.2, 0.8],
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys, main_finetune as m\ntry: m.main(['--help'])\nexcept SystemExit: assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, capture_output=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mixup": 0.8, "batch_size": 7}, "--batch_size 7: mixup and cutmix mix pairs"),
        ({"eval": True}, "--eval needs --resume"),
        ({"finetune": "nowhere.pth"}, "--finetune nowhere.pth does not exist"),
        ({"drop_path": 1}, r"--drop_path 1.0 must be in \[0, 1\)"),
        ({"blr": 0}, "--blr 0.0 must be above 0"),
        ({"data_path": ""}, "--data_path is needed"),
        ({"dist_url": "file:///x"}, "--dist_url"),
        ({"dist_url": "tcp://host"}, "--dist_url tcp://host: expected env:// or tcp://HOST:PORT"),
        ({"start_epoch": 2}, "--start_epoch 2 leaves nothing of --epochs 2"),
        ({"cutmix_minmax": [0.8, 0.2]}, r"--cutmix_minmax 0\.8 0\.2: expected two shares"),
        ({"cutmix_minmax": [0.5, 3]}, "--cutmix_minmax"),
        ({"cutmix_minmax": [0.5, 0.51]}, "--cutmix_minmax"),
    ],
)
def test_mistakes_are_told_before_anything_is_imported(images, options, message):
    with pytest.raises(UserError, match=message):
        arguments(images, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nb_classes": 1000}, "pass --nb_classes 3"),
        ({"batch_size": 50}, r"48 images, fewer than one step takes: 50"),
        ({"amp": "fp16"}, "--amp fp16 needs a GPU"),
        ({"device": "abacus"}, "--device abacus is not a device"),
        ({"aa": "abacus"}, "--aa abacus: timm has no such policy"),
        ({"input_size": 30}, "--input_size: image_size 30 is not a multiple"),
        ({"eval_split": "test"}, "no images of split 'test'"),
        ({"dist_on_itp": True}, "OMPI_COMM_WORLD_RANK"),
    ],
)
def test_mistakes_in_data_and_device_are_told(images, options, message):
    with pytest.raises((UserError, MissingFile), match=message):
        main_finetune.main(words(images, **options))


def test_the_command_line_shows_no_traceback(images):
    done = command("main_finetune.py", *words(images, nb_classes=7))
    assert done.returncode == 1
    assert "main_finetune.py: Split 'train' has 3 classes" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_schedule_is_maes():
    group = {"params": [torch.nn.Parameter(torch.zeros(1))], "lr_scale": 0.5}
    optimizer = torch.optim.AdamW([group], lr=1e-3)
    options = main_finetune.parser().parse_args(["--epochs", "10", "--warmup_epochs", "2", "--min_lr", "1e-5"])
    settings = main_finetune.translated(options, LightningEnvironment())
    schedule = half_cosine(optimizer, settings.optim, steps_per_epoch=4)
    assert isinstance(schedule, CosineLRScheduler)
    rates = []
    for step in range(40):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates[0] == 0
    assert rates[4] == pytest.approx(0.5 * 0.5e-3)  # half of the warm-up
    assert rates[8] == pytest.approx(0.5e-3)
    assert rates[24] == pytest.approx(0.5 * (1e-5 + (1e-3 - 1e-5) / 2))  # half of the cosine: epoch 6 of 2 to 10
    assert rates[39] == pytest.approx(
        0.5 * (1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * 31 / 32))))
    )


def test_a_run_learns_logs_and_is_evaluated_again(images, tmp_path, caplog):
    """With everything on: mixing, erasing, accumulation, clipping, moving average."""
    options = {"epochs": 20, "blr": 0.03, "accum_iter": 2, "clip_grad": 3.0, "mixup": 0.2, "cutmix": 0.5, "ema": 0.9}
    metrics = main_finetune.main(words(images, tmp_path, **options, aa="none", reprob=0.1, layer_decay=0.9))
    lines = _lines(tmp_path)
    assert [line["epoch"] for line in lines] == list(range(20))
    expected = {"train_lr", "train_loss", "test_loss", "test_acc1", "test_acc5", "epoch", "n_parameters"}
    assert expected <= set(lines[0])
    assert lines[-1]["n_parameters"] == sum(value.numel() for value in _weights(tmp_path).values())
    assert lines[-1]["train_loss"] < lines[0]["train_loss"]
    assert metrics["test_acc1"] > 60
    assert metrics["test_ema_acc1"] > 60
    assert (tmp_path / "best.ckpt").is_file()
    assert list(tmp_path.glob("events.out.tfevents.*"))
    caplog.clear()
    again = main_finetune.main(words(images, eval=True, resume=tmp_path / "last.ckpt", ema=0.9))
    assert again == pytest.approx(metrics)
    assert f"* Acc@1 {metrics['test_acc1']:.3f}" in caplog.text


def test_the_learning_rate_follows_from_the_batch(images, tmp_path):
    main_finetune.main(words(images, tmp_path / "a", batch_size=8, accum_iter=2, blr=0.016, epochs=1, min_lr=0.001))
    main_finetune.main(words(images, tmp_path / "b", batch_size=8, accum_iter=2, lr=0.001, epochs=1, min_lr=0.001))
    assert _lines(tmp_path / "a")[0]["train_lr"] == pytest.approx(0.001)
    _assert_same_weights(tmp_path / "a", tmp_path / "b")


def test_the_loss_is_float32_in_bfloat16_too(images, tmp_path):
    """Of equal logits it is log 3, of which bfloat16 has two digits."""
    main_finetune.main(words(images, tmp_path, epochs=1, amp="bf16", lr=1e-12))
    assert _lines(tmp_path)[0]["train_loss"] == pytest.approx(math.log(3), abs=5e-4)


def test_finetune_loads_the_encoder_and_leaves_the_classifier_new(images, tmp_path, caplog):
    main_finetune.main(words(images, tmp_path, epochs=1))
    torch.save({"model": {"head.weight": torch.ones(9, 128), **_mae_state(tmp_path)}}, tmp_path / "mae.pth")
    main_finetune.main(
        words(images, tmp_path / "next", epochs=1, finetune=tmp_path / "mae.pth", lr=1e-12, input_size=48)
    )
    shown = caplog.text
    assert "layout mae" in shown
    assert "resized                1  encoder.pos_embed" in shown
    before, after = _weights(tmp_path), _weights(tmp_path / "next")
    name = "encoder.blocks.0.attn.qkv.weight"
    torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    assert after["objectives.classes.head.weight"].abs().max() < 1e-3


def _mae_state(out: Path) -> dict[str, torch.Tensor]:
    state = {
        name.removeprefix("encoder."): value for name, value in _weights(out).items() if name.startswith("encoder.")
    }
    return {**state, "norm.weight": torch.ones(128), "norm.bias": torch.zeros(128)}


def test_vlc_checkpoints_are_taken_directly(golden, images, monkeypatch, caplog):
    from tests.golden_models import SIZE
    from vlc.model.sizes import ENCODERS

    monkeypatch.setitem(ENCODERS, "golden_vit", SIZE)
    monkeypatch.setattr(main_finetune, "MODELS", [*main_finetune.MODELS, "golden_vit"])
    options = {"model": "golden_vit", "input_size": 32, "epochs": 1, "finetune": golden / "tiny/pretrain.ckpt"}
    main_finetune.main(words(images, **options))
    shown = caplog.text
    assert "layout vlc_release" in shown
    assert "encoder.blocks 36" in shown


def test_a_checkpoint_of_another_size_is_refused(images, tmp_path):
    main_finetune.main(words(images, tmp_path, epochs=1))
    with pytest.raises(UserError, match=r"lacks .* Check --model, --nb_classes"):
        main_finetune.main(words(images, finetune=tmp_path / "last.ckpt", model="vit_base_patch16"))
    with pytest.raises(UserError, match=r"lacks .*encoder\.norm 2.*--global_pool against --cls_token"):
        main_finetune.main(words(images, resume=tmp_path / "last.ckpt", eval=True, nb_classes=3, cls_token=True))
    torch.save({"model": _mae_state(tmp_path)}, tmp_path / "mae.pth")
    with pytest.raises(UserError, match=r"holds no state of a run.*start from them with --finetune"):
        main_finetune.main(words(images, resume=tmp_path / "mae.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="not a readable checkpoint"):
        main_finetune.main(words(images, finetune=tmp_path / "text.pth"))


def test_corrupt_images_are_named(images, tmp_path):
    root = write_folder(tmp_path, {"train": 16, "val": 1})
    (root / "train/green/3.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"cannot be decoded: row 0 of .*train/green/3\.png: "):
        main_finetune.main(words(root, epochs=1))
    (root / "train/red/4.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="more than the share"), pytest.warns(UserWarning, match="Left out"):
        main_finetune.main(words(root, epochs=1))
    (root / "train/red/4.png").unlink()
    (root / "val/red/0.png").write_bytes(b"no image")
    with (
        pytest.raises(UserError, match=r"row 0 of .*val/red/0\.png cannot be decoded"),
        pytest.warns(UserWarning, match="Left out"),
    ):
        main_finetune.main(words(root, epochs=1))


def test_a_resumed_run_ends_as_an_uninterrupted_one(images, tmp_path, monkeypatch):
    """Stopped in the middle of an epoch, with everything random on."""
    options = {"epochs": 3, "mixup": 0.8, "drop_path": 0.3, "reprob": 0.5, "ema": 0.9}
    main_finetune.main(words(images, tmp_path / "whole", **options))
    step = VLCModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 2:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, batch_idx)

    monkeypatch.setattr(VLCModule, "training_step", interrupted)
    with pytest.raises(SystemExit):
        main_finetune.main(words(images, tmp_path / "parts", **options))
    monkeypatch.setattr(VLCModule, "training_step", step)
    last = tmp_path / "parts/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 9, "six of the first epoch, three of the second"
    metrics = main_finetune.main(words(images, tmp_path / "parts", **options, resume=last))
    _assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    final = {name: value for name, value in _lines(tmp_path / "whole")[-1].items() if name != "train_loss"}
    assert {name: _lines(tmp_path / "parts")[-1][name] for name in final} == final
    assert metrics["test_loss"] == final["test_loss"]


def test_a_run_of_another_model_is_not_resumed(images, tmp_path, caplog):
    main_finetune.main(words(images, tmp_path, epochs=1))
    last = tmp_path / "last.ckpt"
    for options, message in (
        ({"model": "vit_base_patch16"}, "model vit_tiny_patch16, not vit_base_patch16"),
        ({"input_size": 48}, "input_size 32, not 48"),
        ({"cls_token": True}, "global_pool True, not False"),
    ):
        with pytest.raises(UserError, match=f"is of a run with {message}"):
            main_finetune.main(words(images, resume=last, **options))
    assert main_finetune.main(words(images, resume=last, epochs=1, model="mae_vit_tiny_patch16")) == {}
    assert "has all of --epochs 1 behind it" in caplog.text


def test_a_folder_that_cannot_be_made_is_named(images, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output_dir .*file cannot be written to \(File exists\)"):
        main_finetune.main(words(images, tmp_path / "file"))


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {"smoothing": 0}),
        ({}, {"clip_grad": 0.01}),
        ({"amp": "bf16"}, {"clip_grad": 0.01}),
        ({}, {"weight_decay": 5}),
        ({}, {"layer_decay": 0.1}),
        ({}, {"drop_path": 0.9}),
        ({}, {"accum_iter": 2}),
        ({}, {"warmup_epochs": 1}),
        ({}, {"min_lr": 0.01}),
        ({}, {"lr": 0.01}),
        ({}, {"blr": 0.1}),
        ({}, {"seed": 1}),
        ({}, {"cls_token": True}),
        ({}, {"mixup": 0.8}),
        ({}, {"cutmix": 1.0}),
        ({}, {"cutmix_minmax": [0.2, 0.8]}),
        ({"mixup": 0.8}, {"mixup_prob": 0}),
        ({"mixup": 0.8}, {"mixup_mode": "elem"}),
        ({"mixup": 0.8}, {"mixup_mode": "pair"}),
        ({"mixup": 0.8, "cutmix": 1.0}, {"mixup_switch_prob": 0}),
    ],
    ids=lambda options: "-".join(options),
)
def test_flags_of_the_training_change_what_is_learned(given, changed, learned):
    assert learned(given) != learned({**given, **changed})


@pytest.fixture(scope="module")
def learned(images, tmp_path_factory):
    """Options -> test loss of a short run with them; the same options run once."""
    found = {}

    def run(options: dict) -> float:
        key = str(options)
        if key not in found:
            common = {"epochs": 1, "blr": 0.03, "aa": "none", "reprob": 0}
            found[key] = main_finetune.main(words(images, **{**common, **options}))["test_loss"]
        return found[key]

    return run


def test_start_epoch_begins_there(images, tmp_path):
    main_finetune.main(words(images, tmp_path, epochs=3, start_epoch=2))
    assert [line["epoch"] for line in _lines(tmp_path)] == [2]


def test_workers_change_nothing(images, tmp_path):
    for workers in (0, 1):
        main_finetune.main(
            words(images, tmp_path / str(workers), epochs=1, num_workers=workers, mixup=0.8, drop_path=0.2)
        )
    _assert_same_weights(tmp_path / "0", tmp_path / "1")


# -- several processes


@pytest.fixture
def variables(monkeypatch):
    """The environment without a launcher's variables, and as it was afterwards."""
    monkeypatch.setattr(os, "environ", {name: value for name, value in os.environ.items() if "RANK" not in name})
    return os.environ


@pytest.mark.parametrize(
    ("told", "options"),
    [
        ({"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "h"}, {}),
        (
            {
                "SLURM_NTASKS": "4",
                "SLURM_PROCID": "3",
                "SLURM_LOCALID": "1",
                "SLURM_NNODES": "2",
                "SLURM_NTASKS_PER_NODE": "2",
            },
            {},
        ),
        (
            {
                f"OMPI_COMM_WORLD_{n}": v
                for n, v in zip(("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"), "3412", strict=True)
            },
            {"dist_on_itp": True},
        ),
    ],
    ids=["launch", "srun", "mpirun"],
)
def test_ranks_are_taken_from_the_launcher(images, variables, told, options):
    variables.update(told)
    environment = _environment(arguments(images, dist_url="tcp://first:1234", **options))
    found = (environment.global_rank(), environment.world_size(), environment.local_rank(), _local_size(environment))
    assert found == (3, 4, 1, 2)
    assert variables["MASTER_PORT"] == "1234"


def test_a_process_alone_needs_no_variables(images, variables):
    assert _environment(arguments(images)).world_size() == 1
    variables.update(RANK="0", WORLD_SIZE="2")
    with pytest.raises(UserError, match="but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT"):
        _environment(arguments(images))


_KILLED = """
import os, signal, sys
from pathlib import Path
import main_finetune
from vlc.training.module import VLCModule
marker, step = Path(sys.argv.pop(1)), VLCModule.training_step
def killed(self, batch, batch_idx):
    if self.current_epoch == 1 and batch_idx == 1 and self.global_rank == 1 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, batch_idx)
VLCModule.training_step = killed
main_finetune.main()
"""


def launched(flags: list[str], script: list[str], prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
    """`python -m launch` under way, with its output in a pipe."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1", **environment}
    started = [*prefix, sys.executable, "-m", "launch", *flags, *script]
    return subprocess.Popen(
        started, cwd=REPOSITORY, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def _launched_to_the_end(flags: list[str], script: list[str]) -> str:
    done = command("-m", "launch", *flags, *script)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _finish(process: subprocess.Popen) -> str:
    shown, _ = process.communicate(timeout=120)
    assert process.returncode == 0, shown
    return shown


@pytest.fixture(scope="module")
def single(images, tmp_path_factory) -> Path:
    """One process with twice the batch."""
    out = tmp_path_factory.mktemp("single")
    main_finetune.main(words(images, out, batch_size=8, blr=0.03))
    return out


def _assert_like_single(single: Path, out: Path) -> None:
    for expected, found in zip(_lines(single), _lines(out), strict=True):
        assert found["test_acc1"] == expected["test_acc1"]
        assert found["test_loss"] == pytest.approx(expected["test_loss"], rel=1e-4)
        assert found["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-4)
        assert found["train_lr"] == pytest.approx(expected["train_lr"])


def test_two_processes_are_as_one(images, single, tmp_path):
    """Each evaluates all images; with --dist_eval the test of two hosts has them share."""
    script = ["main_finetune.py", *words(images, tmp_path, batch_size=4, blr=0.03)]
    _launched_to_the_end(["--nproc_per_node=2", "--standalone"], script)
    _assert_like_single(single, tmp_path)


def test_a_killed_worker_restarts_from_the_last_checkpoint(images, single, tmp_path):
    (tmp_path / "killed.py").write_text(_KILLED)
    out = tmp_path / "out"
    script = [str(tmp_path / "killed.py"), str(tmp_path / "marker"), *words(images, out, batch_size=4, blr=0.03)]
    shown = _launched_to_the_end(["--nproc_per_node=2", "--max_restarts=1", "--standalone"], script)
    assert (tmp_path / "marker").exists()
    assert f"Restarted: continuing from {out / 'last.ckpt'}" in shown
    _assert_like_single(single, out)


def test_an_older_checkpoint_is_not_continued_by_itself(images, single, tmp_path):
    (tmp_path / "last.ckpt").write_bytes((single / "last.ckpt").read_bytes())
    script = ["main_finetune.py", *words(images, tmp_path, batch_size=8, epochs=1)]
    assert "continuing" not in _launched_to_the_end(["--nproc_per_node=1", "--standalone"], script)
    assert [line["epoch"] for line in _lines(tmp_path)] == [0]


@pytest.fixture
def hosts():
    """Two network namespaces with a cable between them: (names, devices, addresses)."""
    names, devices, addresses = ("vlc-test-a", "vlc-test-b"), ("vlcveth0", "vlcveth1"), ("10.231.7.1", "10.231.7.2")
    commands = [
        *(f"ip netns add {name}" for name in names),
        f"ip link add {devices[0]} netns {names[0]} type veth peer name {devices[1]} netns {names[1]}",
        *(f"ip -n {n} addr add {a}/24 dev {d}" for n, d, a in zip(names, devices, addresses, strict=True)),
        *(f"ip -n {name} link set {device} up" for name, device in zip(names, devices, strict=True)),
        *(f"ip -n {name} link set lo up" for name in names),
    ]
    try:
        for command in commands:
            done = subprocess.run(command.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"{command}: {done.stderr.strip()}")
        yield names, devices, addresses
    except FileNotFoundError:
        pytest.skip("the program ip is not installed")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def test_two_hosts_are_as_one(images, single, tmp_path, hosts):
    names, devices, addresses = hosts
    script = ["main_finetune.py", *words(images, tmp_path, batch_size=4, blr=0.03, dist_eval=True)]
    running = []
    for rank, (name, device) in enumerate(zip(names, devices, strict=True)):
        flags = ["--nnodes=2", f"--node_rank={rank}", "--nproc_per_node=1", f"--master_addr={addresses[0]}"]
        flags += ["--master_port=44875", "--use_env"]
        running.append(launched(flags, script, ("ip", "netns", "exec", name), GLOO_SOCKET_IFNAME=device))
    for process in running:
        _finish(process)
    _assert_like_single(single, tmp_path)


def test_checkpoints_name_their_run(single):
    assert read(single / "last.ckpt").extras["arguments"]["nb_classes"] == 3
    assert tiny.SMALL.patch_size == 16
