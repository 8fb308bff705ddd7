"""From the arguments of `main_finetune.py` to a finished run: data, classifier, checkpoint, trainer, in this order."""

import os
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from vlc.checkpoint import weights
from vlc.checkpoint.weight_files import read_weights
from vlc.checkpoint.weights import LoadReport
from vlc.common.errors import UserError
from vlc.common.files import check_room, full_disk_told
from vlc.data.sampler import Position
from vlc.hardware.distributed import LAUNCHED, init_process_group_after_restart
from vlc.hardware.onednn import computes_bfloat16
from vlc.model.encoder import Encoder
from vlc.model.sizes import ENCODERS
from vlc.training import resume
from vlc.training.image_classifier import ImageClassifier, image_encoder
from vlc.training.image_data import ImageData
from vlc.training.progress import Progress
from vlc.training.saving import Saving
from vlc.training.trainer import common_callbacks, guards, make_trainer, suit_cpu

MAX_CORRUPT_RATIO = 0.01  # share of undecodable training images above which a run fails
_CHECK = "--model, --nb_classes, and --global_pool against --cls_token"


def run(arguments: Namespace) -> dict[str, float]:
    """Fine-tune, or with eval evaluate; returns the metrics of the last evaluation by name."""
    environment = _environment(arguments)
    for name in () if arguments.eval else ("output_dir", "log_dir"):
        if folder := getattr(arguments, name):
            check_room(f"--{name} ", folder)
    seed_everything(arguments.seed, verbose=False)
    accelerator, device = _device(arguments.device, environment)
    data = ImageData(arguments, environment.world_size())
    module = ImageClassifier(_encoder(arguments), arguments, _learning_rate(arguments, environment))
    precision = _precision(arguments.amp, accelerator)
    if accelerator == "cpu":
        suit_cpu(module, module.encoder.size.width, precision)
    rank_zero_info(f"Running on {accelerator} in {precision}, {environment.world_size()} processes")
    if arguments.compile:
        module.compile_parts()
    if environment.world_size() > 1:
        init_process_group_after_restart("nccl" if accelerator == "gpu" else "gloo")
    trainer = _trainer(arguments, environment, accelerator, device, precision)
    if arguments.eval:
        source = arguments.resume or arguments.finetune
        rank_zero_info(str(_load(module, source, complete=True)))
        trainer.validate(module, datamodule=data, verbose=False)
    else:
        path = _resume(arguments, data.facts(environment.world_size()))
        if arguments.finetune and not path:
            rank_zero_info(str(_load(module, arguments.finetune)))
        if arguments.output_dir:
            check_room("--output_dir ", arguments.output_dir, module.checkpoint_bytes())
        with full_disk_told("--output_dir ", arguments.output_dir):
            trainer.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
        if not module.test_metrics:
            rank_zero_info(f"{path} has all of --epochs {arguments.epochs} behind it: nothing was trained")
    return module.test_metrics


# -- processes and devices


def _environment(arguments: Namespace) -> ClusterEnvironment:
    """What the launcher told about the other processes: in the usual variables, Open MPI's (--dist_on_itp) or srun's."""
    if arguments.dist_on_itp:
        names = {"RANK": "RANK", "WORLD_SIZE": "SIZE", "LOCAL_RANK": "LOCAL_RANK", "LOCAL_WORLD_SIZE": "LOCAL_SIZE"}
        missing = [
            f"OMPI_COMM_WORLD_{theirs}" for theirs in names.values() if f"OMPI_COMM_WORLD_{theirs}" not in os.environ
        ]
        if missing:
            raise UserError(
                f"--dist_on_itp reads Open MPI's variables, but {', '.join(missing)} are not set: use mpirun"
            )
        os.environ |= {ours: os.environ[f"OMPI_COMM_WORLD_{theirs}"] for ours, theirs in names.items()}
    if arguments.dist_url.startswith("tcp://"):
        host, _, port = arguments.dist_url.removeprefix("tcp://").rpartition(":")
        os.environ |= {"MASTER_ADDR": host, "MASTER_PORT": port}
    if not {"RANK", "WORLD_SIZE"} <= set(os.environ):
        if not SLURMEnvironment.detect():
            return LightningEnvironment()
        tasks, nodes = (int(os.environ.get(name, 1)) for name in ("SLURM_NTASKS", "SLURM_NNODES"))
        os.environ.setdefault("LOCAL_WORLD_SIZE", str(tasks // nodes))
        try:
            return SLURMEnvironment(auto_requeue=False)
        except RuntimeError as error:  # a SLURM option that Lightning does not take
            raise UserError(f"{error} Or start with python -m launch, as scripts/slurm.sbatch does") from error
    if absent := {"LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} - set(os.environ):
        raise UserError(
            f"RANK and WORLD_SIZE are set, but not {', '.join(sorted(absent))}: start with python -m launch"
        )
    os.environ.setdefault("LOCAL_WORLD_SIZE", "1")
    return TorchElasticEnvironment()


def _local_size(environment: ClusterEnvironment) -> int:
    return 1 if isinstance(environment, LightningEnvironment) else int(os.environ["LOCAL_WORLD_SIZE"])


def _device(name: str, environment: ClusterEnvironment) -> tuple[str, int | list[int]]:
    """Lightning's accelerator and devices; the CPU, and a line that says so, where there is no GPU."""
    processes = _local_size(environment)
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
        return "gpu", processes if device.index is None else [device.index]
    if device.type not in ("cpu", "mps"):
        raise UserError(f"--device {name} is not supported: expected cuda, cuda:N, mps or cpu")
    return device.type, processes


def _precision(amp: str, accelerator: str) -> str:
    """Lightning's name for a precision; auto is bfloat16 where the device computes in it, else float32."""
    if amp == "fp16" and accelerator != "gpu":
        raise UserError("--amp fp16 needs a GPU: use --amp bf16 or --amp off")
    if amp == "auto":
        amp = "bf16" if computes_bfloat16(accelerator) else "off"
    return {"bf16": "bf16-mixed", "fp16": "16-mixed", "off": "32-true"}[amp]


# -- model and checkpoints


def _learning_rate(arguments: Namespace, environment: ClusterEnvironment) -> float:
    """--lr, or --blr for every 256 samples of a step."""
    batch = arguments.batch_size * arguments.accum_iter * environment.world_size()
    rate = arguments.blr * batch / 256 if arguments.lr is None else arguments.lr
    if not arguments.eval:
        rank_zero_info(f"Learning rate {rate:.3g} for a step of {batch} samples ({rate * 256 / batch:.3g} for 256)")
    return rate


def _encoder(arguments: Namespace) -> Encoder:
    size = ENCODERS[arguments.model if arguments.model in ENCODERS else f"mae_{arguments.model}"]
    try:
        options = {"global_pool": arguments.global_pool, "drop_path": arguments.drop_path}
        return image_encoder(size, arguments.input_size, **options)
    except ValueError as error:
        raise UserError(f"--input_size: {error}") from error


def _load(module: ImageClassifier, path: str, complete: bool = False) -> LoadReport:
    """Load weights of any layout. To start training from, the classifier is left out and stays new, as published."""
    source = weights.read(path)
    if not complete:
        heads = [name for name in source.state if name.startswith("objectives.classes.")]
        kept = {name: value for name, value in source.state.items() if name not in heads}
        source = replace(source, state=kept, dropped=(*source.dropped, *heads))
    report = weights.load(module.parts(), source, complete=complete, check=_CHECK)
    if module.ema is not None:
        averaged = read_weights(source.path, part="ema").state if complete else None
        if complete and not averaged:
            raise UserError(
                f"{path} holds no moving average: leave --ema out, or pass a checkpoint of a run that had it"
            )
        module.ema.module.load_state_dict(averaged or module.parts().state_dict())
    return report


# Flags that do not change what is trained.
_WITHOUT_EFFECT = frozenset(
    "data_path eval_split finetune output_dir log_dir resume checkpoint_every eval dist_eval device compile num_workers "
    "pin_mem world_size local_rank dist_on_itp dist_url start_epoch resplit".split()
)


def _resume(arguments: Namespace, facts: Mapping[str, Any]) -> str | None:
    """The checkpoint to continue from: what this launch wrote before its workers were restarted, or --resume."""
    last = Path(arguments.output_dir or ".") / "last.ckpt"
    launched = float(os.environ.get(LAUNCHED, "inf"))
    if arguments.output_dir and last.is_file() and last.stat().st_mtime > launched:
        rank_zero_info(f"Restarted: continuing from {last}")
        return str(last)
    path = arguments.resume
    if path == resume.AUTO:
        path = str(last) if arguments.output_dir and last.is_file() else ""
        rank_zero_info(f"--resume auto: {f'continuing {path}' if path else f'there is no {last} to continue'}")
    if not path:
        return None
    option = f"--resume {path}"
    saved = resume.read(option, path, "start from them with --finetune, or evaluate them with --eval")
    before = saved["vlc"].get("arguments")
    if before is None:
        raise UserError(f"{option} is of a run of run.py: start from it with --finetune")
    _check_same_model(arguments, option, before)
    resume.check_facts(option, resume.facts(saved), facts)
    if changed := resume.differences(before, vars(arguments), {*_WITHOUT_EFFECT, "model"}):
        rank_zero_warn(f"{option} was saved with other options: {', '.join(changed)}")
    return path


def _check_same_model(arguments: Namespace, option: str, saved: Mapping[str, Any]) -> None:
    """Raise UserError where the run to resume had another model."""
    for name in ("model", "input_size", "nb_classes", "global_pool"):
        before, now = (str(value).removeprefix("mae_") for value in (saved[name], getattr(arguments, name)))
        if before != now:
            raise UserError(
                f"{option} is of a run with {name} {before}, not {now}: give the same options, or start from it with "
                "--finetune"
            )


# -- trainer


def _trainer(
    arguments: Namespace, environment: ClusterEnvironment, accelerator: str, devices: int | list[int], precision: str
) -> Trainer:
    world_size, local_size = environment.world_size(), _local_size(environment)
    logger: TensorBoardLogger | bool = False
    if arguments.log_dir and not arguments.eval:
        logger = TensorBoardLogger(arguments.log_dir, name="", version="")
    return make_trainer(
        accelerator,
        precision,
        plugins=(environment,),
        devices=devices,
        num_nodes=world_size // local_size,
        strategy="ddp" if world_size > 1 else "auto",
        max_epochs=arguments.epochs,
        accumulate_grad_batches=arguments.accum_iter,
        gradient_clip_val=arguments.clip_grad,
        logger=logger,
        callbacks=common_callbacks() if arguments.eval else _callbacks(arguments),
        num_sanity_val_steps=0,
        enable_checkpointing=bool(arguments.output_dir) and not arguments.eval,
    )


def _callbacks(arguments: Namespace) -> list:
    callbacks = [
        Progress(Position(arguments.start_epoch, 0)),  # a resumed run knows better
        *guards(MAX_CORRUPT_RATIO, advice="a lower --blr, --clip_grad 1.0, or --amp off"),
        *common_callbacks(),
    ]
    if arguments.output_dir:
        options = {"dirpath": arguments.output_dir, "save_on_train_epoch_end": True, "enable_version_counter": False}
        callbacks += [
            Saving("--resume ", arguments.checkpoint_every),
            ModelCheckpoint(filename="best", monitor="test_acc1", mode="max", **options),
            ModelCheckpoint(filename="last", **options),
        ]
    return callbacks
