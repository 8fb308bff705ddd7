"""Fine-tune an image classifier, as MAE does on ImageNet-1K: `main_finetune.py --finetune CHECKPOINT --data_path DATA`.

Flags and defaults are those of the published program. In several processes: `python -m launch --nproc_per_node N
main_finetune.py ...`.
"""

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlc.common.errors import UserError
from vlc.common.files import check_room
from vlc.common.terminal import printable
from vlc.data.workers import start_worker_server
from vlc.model.sizes import ENCODERS

if TYPE_CHECKING:
    from pytorch_lightning.plugins.environments import ClusterEnvironment

    from vlc.configuration.settings import Settings
    from vlc.data.augmentation import Augmentation

_SIZES = [name for name, size in ENCODERS.items() if size.learned_grid is None]
MODELS = [*_SIZES, *(name.removeprefix("mae_") for name in _SIZES)]
_UNREAD = "accepted for older commands; no effect"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser("main_finetune.py", description=__doc__.splitlines()[0])
    _add_training(made.add_argument_group("training"))
    _add_augmentation(made.add_argument_group("augmentation"))
    _add_data_and_checkpoints(made.add_argument_group("data, checkpoints, logs"))
    _add_machine(made.add_argument_group("device and processes"))
    return made


def _add_training(group) -> None:
    add = group.add_argument
    add("--batch_size", type=int, default=64, help="samples of one process at once (64)")
    add("--epochs", type=int, default=50, help="(50)")
    add("--accum_iter", type=int, default=1, help="batches whose gradients make one step (1)")
    add("--model", choices=MODELS, default="vit_large_patch16", metavar="NAME", help=f"{', '.join(MODELS)}")
    add("--input_size", type=int, default=224, help="pixels, square; positions are resized to it (224)")
    add("--drop_path", type=float, default=0.1, help="stochastic depth: rate of the last block (0.1)")
    add("--clip_grad", type=float, help="largest norm of the gradients (no clipping)")
    add("--weight_decay", type=float, default=0.05, help="(0.05)")
    add("--lr", type=float, help="peak learning rate (from --blr)")
    add("--blr", type=float, default=1e-3, help="learning rate for each 256 samples of a step (0.001)")
    add("--layer_decay", type=float, default=0.75, help="rate of a layer over that of the layer above (0.75)")
    add("--min_lr", type=float, default=1e-6, help="learning rate at the end (1e-6)")
    add("--warmup_epochs", type=int, default=5, help="epochs of linear warm-up, before half a cosine (5)")
    add("--smoothing", type=float, default=0.1, help="label smoothing (0.1)")
    add("--ema", type=float, nargs="?", const=0.9999, metavar="DECAY", help="also keep a moving average (0.9999)")
    add(
        "--lora_rank",
        type=int,
        default=0,
        help="train adapters of this rank in place of the encoder's weights, 0 = off (0)",
    )
    add("--seed", type=int, default=0)
    add("--start_epoch", type=int, default=0, help="first epoch, for the schedule; a resumed run knows its own (0)")


def _add_augmentation(group) -> None:
    add = group.add_argument
    add("--color_jitter", type=float, help="strength, where --aa is none")
    add(
        "--aa",
        default="rand-m9-mstd0.5-inc1",
        help="timm's name of an augmentation policy, or none (rand-m9-mstd0.5-inc1)",
    )
    add("--reprob", type=float, default=0.25, help="random erasing: probability (0.25)")
    add("--remode", choices=("pixel", "rand", "const"), default="pixel", help="random erasing: content (pixel)")
    add("--recount", type=int, default=1, help="random erasing: regions (1)")
    add("--resplit", action="store_true", help=_UNREAD)
    add("--mixup", type=float, default=0, help="alpha of mixup, 0 = off (0)")
    add("--cutmix", type=float, default=0, help="alpha of cutmix, 0 = off (0)")
    add("--cutmix_minmax", type=float, nargs=2, help="cutmix with this range of side lengths instead of alpha")
    add("--mixup_prob", type=float, default=1.0, help="probability of mixing a batch (1)")
    add("--mixup_switch_prob", type=float, default=0.5, help="probability of cutmix where both are on (0.5)")
    add("--mixup_mode", choices=("batch", "pair", "elem"), default="batch", help="what shares a mixing ratio (batch)")


def _add_data_and_checkpoints(group) -> None:
    add = group.add_argument
    add(
        "--data_path",
        default="",
        help="folder with train/CLASS/* and val/CLASS/*, or with shards; FOLDER/NAME chooses some",
    )
    add("--nb_classes", type=int, default=1000, help="(1000)")
    add("--eval_split", default="val", help="split that is evaluated (val)")
    add(
        "--verify",
        action=argparse.BooleanOptionalAction,
        help="compare images with the checksums in our files (in evaluation)",
    )
    add("--finetune", default="", help="checkpoint of VLC, MAE, timm or ours to start from")
    pooling = group.add_mutually_exclusive_group()
    pooling.add_argument(
        "--global_pool", action="store_true", default=True, help="classify the mean patch token (default)"
    )
    pooling.add_argument("--cls_token", action="store_false", dest="global_pool", help="classify the class token")
    add("--output_dir", default="./output_dir", help="last.ckpt, best.ckpt and log.txt; empty for none (./output_dir)")
    add("--log_dir", default="./output_dir", help="TensorBoard; empty for none (./output_dir)")
    add(
        "--resume",
        default="",
        help="last.ckpt of a run to continue, auto for that of --output_dir if there is one, or with --eval any classifier",
    )
    add(
        "--checkpoint_every",
        type=int,
        metavar="STEPS",
        help="steps from one last.ckpt to the next (every 30 minutes and at the end of an epoch)",
    )
    add("--eval", action="store_true", help="only evaluate --resume or --finetune")
    add("--dist_eval", action="store_true", help="share the evaluation among the processes, each sample once")


def _add_machine(group) -> None:
    add = group.add_argument
    add("--device", default="cuda", help="cuda, cuda:N, mps or cpu; without a GPU the CPU is used (cuda)")
    add("--amp", choices=("auto", "bf16", "fp16", "off"), default="auto", help="auto: bfloat16 where the device has it")
    add("--compile", action="store_true", help="torch.compile the model")
    add("--num_workers", type=int, default=10, help="processes that read data, for each training process (10)")
    add("--pin_mem", action="store_true", default=True, help="copy batches to the GPU from pinned memory (default)")
    add("--no_pin_mem", action="store_false", dest="pin_mem")
    for name in ("--world_size", "--local_rank"):
        add(
            name, type=int, default={"--world_size": 1, "--local_rank": -1}[name], help=_UNREAD + ": the launcher tells"
        )
    add("--local-rank", type=int, dest="local_rank", default=-1, help=argparse.SUPPRESS)  # torch.distributed.launch's
    add("--dist_on_itp", action="store_true", help="take ranks from Open MPI's variables")
    add("--dist_url", default="env://", help="env://, or tcp://HOST:PORT of the first process (env://)")


def check(arguments: argparse.Namespace) -> None:
    """Raise UserError for values that cannot work, and set --aa none to None."""
    if arguments.aa in ("", "none", "None"):
        arguments.aa = None
    if not arguments.data_path:
        raise UserError("--data_path is needed: a folder with train/ and val/, or with shards")
    ranges = {
        "at least 1": (("batch_size", "epochs", "accum_iter", "input_size", "nb_classes", "recount"), lambda v: v >= 1),
        "at least 0": (("weight_decay", "min_lr", "warmup_epochs", "mixup", "cutmix", "num_workers", "start_epoch", "seed",
                        "lora_rank"), lambda v: v >= 0),
        "in [0, 1)": (("drop_path", "smoothing", "ema"), lambda v: 0 <= v < 1),
        "in [0, 1]": (("reprob", "mixup_prob", "mixup_switch_prob"), lambda v: 0 <= v <= 1),
        "in (0, 1]": (("layer_decay",), lambda v: 0 < v <= 1),
        "above 0": (("clip_grad", "lr", "blr", "checkpoint_every"), lambda v: v > 0),
    }  # fmt: skip
    for wanted, (names, fits) in ranges.items():
        for name in names:
            value = getattr(arguments, name)
            if value is not None and not fits(value):
                raise UserError(f"--{name} {value} must be {wanted}")
    mixing = arguments.mixup > 0 or arguments.cutmix > 0 or arguments.cutmix_minmax is not None
    if mixing and not arguments.eval and arguments.batch_size % 2:
        raise UserError(f"--batch_size {arguments.batch_size}: mixup and cutmix mix pairs and need an even number")
    if arguments.cutmix_minmax is not None:
        low, high = arguments.cutmix_minmax
        if not 0 <= low < high <= 1 or int(low * arguments.input_size) == int(high * arguments.input_size):
            raise UserError(f"--cutmix_minmax {low} {high}: expected two shares of the side, the smaller one first")
    if arguments.start_epoch >= arguments.epochs:
        raise UserError(f"--start_epoch {arguments.start_epoch} leaves nothing of --epochs {arguments.epochs}")
    if arguments.lora_rank and not (arguments.finetune or arguments.eval):
        raise UserError(
            f"--lora_rank {arguments.lora_rank} adapts the weights of a checkpoint: pass --finetune CHECKPOINT"
        )
    if arguments.input_size % (patch := ENCODERS[_vit(arguments)].patch_size):
        raise UserError(f"--input_size: image_size {arguments.input_size} is not a multiple of the patch size {patch}")
    if arguments.eval and not (arguments.resume or arguments.finetune):
        raise UserError("--eval needs --resume CHECKPOINT (or --finetune CHECKPOINT) with a classifier")
    for name in ("resume", "finetune"):
        if name == "resume" and arguments.resume == "auto" and not arguments.eval:
            continue
        if (path := getattr(arguments, name)) and not Path(path).is_file():
            raise UserError(f"--{name} {path} does not exist")
    if not re.fullmatch(r"env://.*|tcp://.+:\d+", arguments.dist_url):
        raise UserError(f"--dist_url {arguments.dist_url}: expected env:// or tcp://HOST:PORT")


def translated(arguments: argparse.Namespace, environment: "ClusterEnvironment") -> "Settings":
    """The settings of the run that checked arguments describe: MAE's recipe for the task of classifying images.

    Raises UserError for a device, a precision or an augmentation that is not there.
    """
    from vlc.configuration.config import RunError, resolve
    from vlc.configuration.settings import Settings

    given, processes = vars(arguments), environment.world_size()
    step = arguments.batch_size * arguments.accum_iter * processes
    rate = arguments.blr * step / 256 if arguments.lr is None else arguments.lr
    accelerator, devices = _device(arguments.device, _local_size(environment))
    names = ("smoothing", "global_pool", *(name for name in given if name.startswith(("mixup", "cutmix"))))
    config = dict(
        tasks=["image_classification"],
        image_classes={"num_classes": arguments.nb_classes, **{name: given[name] for name in names}},
        **{ours: given[flag] for flag, ours in _KEYS.items()},
        vit=_vit(arguments),
        lora={} if arguments.eval else {"rank": arguments.lora_rank},
        optim_type="adamw_torch",
        learning_rate=rate,
        gradient_clip=arguments.clip_grad or 0.0,
        batch_size=step,
        load_path=(arguments.eval and arguments.resume) or arguments.finetune,
        resume_from=None if arguments.eval else arguments.resume or None,
        num_nodes=processes // _local_size(environment),
    )
    try:
        settings = Settings.from_config(resolve(**config))
    except RunError as error:
        raise UserError(str(error)) from error
    optimization: dict[str, Any] = {"warmup_epochs": arguments.warmup_epochs, "start_epoch": arguments.start_epoch}
    optimization["optimizer"] = replace(settings.optimizer, ema=arguments.ema)
    machine: dict[str, Any] = {"accelerator": accelerator, "num_gpus": devices}
    machine["precision"] = _precision(arguments.amp, accelerator)
    data = {"shares_evaluation": arguments.dist_eval, "pin_memory": arguments.pin_mem, "whole_steps": True}
    return replace(
        settings,
        data=replace(settings.data, splits=(arguments.eval_split,), train_transform=augmentation(arguments), **data),
        model=replace(settings.model, drop_path=arguments.drop_path),
        optim=replace(settings.optim, **optimization),
        run=replace(settings.run, flags=given, output_dir=arguments.output_dir, **machine),
    )


# Keys of the configuration that say the same as a flag.
_KEYS = {
    "seed": "seed",
    "batch_size": "per_gpu_batchsize",
    "epochs": "max_epoch",
    "input_size": "image_size",
    "weight_decay": "weight_decay",
    "layer_decay": "layer_decay",
    "min_lr": "end_lr",
    "data_path": "data_root",
    "verify": "verify",
    "log_dir": "log_dir",
    "checkpoint_every": "checkpoint_every",
    "eval": "test_only",
    "compile": "compile",
    "num_workers": "num_workers",
}


def _vit(arguments: argparse.Namespace) -> str:
    return arguments.model if arguments.model in ENCODERS else f"mae_{arguments.model}"


def augmentation(arguments: argparse.Namespace) -> "Augmentation":
    """The image pipeline of training. Raises UserError for an --aa that timm does not know."""
    from vlc.data.augmentation import Augmentation

    options = (arguments.aa, arguments.color_jitter, arguments.reprob, arguments.remode, arguments.recount)
    try:
        return Augmentation(arguments.input_size, *options)
    except ValueError as error:
        raise UserError(f"--aa {arguments.aa}: timm has no such policy ({error})") from error


# -- processes and devices


def _environment(arguments: argparse.Namespace) -> "ClusterEnvironment":
    """How the processes find each other: by the usual variables, Open MPI's (--dist_on_itp) or srun's."""
    from pytorch_lightning.plugins import environments

    if arguments.dist_on_itp:
        names = {"RANK": "RANK", "WORLD_SIZE": "SIZE", "LOCAL_RANK": "LOCAL_RANK", "LOCAL_WORLD_SIZE": "LOCAL_SIZE"}
        theirs = {ours: f"OMPI_COMM_WORLD_{name}" for ours, name in names.items()}
        if missing := [name for name in theirs.values() if name not in os.environ]:
            raise UserError(
                f"--dist_on_itp reads Open MPI's variables, but {', '.join(missing)} are not set: use mpirun"
            )
        os.environ |= {ours: os.environ[name] for ours, name in theirs.items()}
    if arguments.dist_url.startswith("tcp://"):
        host, _, port = arguments.dist_url.removeprefix("tcp://").rpartition(":")
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    if not {"RANK", "WORLD_SIZE"} <= set(os.environ):
        if not environments.SLURMEnvironment.detect():
            return environments.LightningEnvironment()
        tasks, nodes = (int(os.environ.get(name, 1)) for name in ("SLURM_NTASKS", "SLURM_NNODES"))
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(tasks // nodes))
        try:
            return environments.SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:  # a SLURM option that Lightning does not take
            raise UserError(f"{error} Or start with python -m launch, as scripts/slurm.sbatch does") from error
    if absent := {"LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ):
        raise UserError(
            f"RANK and WORLD_SIZE are set, but not {', '.join(sorted(absent))}: start with python -m launch"
        )
    os.environ.setdefault("LOCAL_WORLD_SIZE", "1")
    return environments.TorchElasticEnvironment()


def _local_size(environment: "ClusterEnvironment") -> int:
    """The processes of this host."""
    return 1 if environment.world_size() == 1 else int(os.environ["LOCAL_WORLD_SIZE"])


def _device(name: str, processes: int) -> tuple[str, int | tuple[int, ...]]:
    """Lightning's accelerator and devices; the CPU, and a line that says so, where there is no GPU."""
    import torch
    from pytorch_lightning.utilities import rank_zero_warn

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} is not a device: expected cuda, cuda:N, mps or cpu") from error
    if device.type == "cuda":
        found = torch.cuda.device_count()
        if not torch.cuda.is_available():
            rank_zero_warn(f"--device {name}, but no GPU was found: running on the CPU")
            return "cpu", processes
        if max(processes, (device.index or 0) + 1) > found:
            raise UserError(f"--device {name} with {processes} processes on this host, which has {found} GPUs")
        return "gpu", processes if device.index is None else (device.index,)
    if device.type not in ("cpu", "mps"):
        raise UserError(f"--device {name} is not supported: expected cuda, cuda:N, mps or cpu")
    return device.type, processes


def _precision(amp: str, accelerator: str) -> str:
    """Lightning's name for a precision; auto is bfloat16 where the device computes in it, else float32."""
    from vlc.hardware.onednn import computes_bfloat16

    if amp == "fp16" and accelerator != "gpu":
        raise UserError("--amp fp16 needs a GPU: use --amp bf16 or --amp off")
    if amp == "auto":
        amp = "bf16" if computes_bfloat16(accelerator) else "off"
    return {"bf16": "bf16-mixed", "fp16": "16-mixed", "off": "32-true"}[amp]


def main(words: list[str] | None = None) -> dict[str, float]:
    """words: the command line, by default that of the process. Returns the last metrics."""
    arguments = parser().parse_args(words)
    check(arguments)  # before the heavy imports: mistakes are told at once
    if arguments.num_workers:
        start_worker_server("vlc.data.augmentation")
    from vlc.hardware.distributed import destroy_process_group
    from vlc.hardware.rendezvous import bind_stores
    from vlc.training.run import run
    from vlc.training.saving import Interrupted

    environment = _environment(arguments)
    settings = translated(arguments, environment)
    _announce(arguments, settings, environment)
    bind_stores()
    try:
        metrics = run(settings, environment)
    except Interrupted as stop:
        if stop.together:
            destroy_process_group()
        raise
    destroy_process_group()
    return metrics


def _announce(arguments: argparse.Namespace, settings: "Settings", environment: "ClusterEnvironment") -> None:
    """Say what the run does, and make sure of its folders."""
    from pytorch_lightning.utilities import rank_zero_info

    for name in () if arguments.eval else ("output_dir", "log_dir"):
        if folder := getattr(arguments, name):
            check_room(f"--{name} ", folder)
    rate, step = settings.optim.learning_rate, settings.optim.batch_size
    if not arguments.eval:
        rank_zero_info(f"Learning rate {rate:.3g} for a step of {step} samples ({rate * 256 / step:.3g} for 256)")
    processes = environment.world_size()
    rank_zero_info(f"Running on {settings.run.accelerator} in {settings.run.precision}, {processes} processes")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"main_finetune.py: {printable(error)}")
