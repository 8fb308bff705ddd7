"""The setup that all runs share: the trainer, its callbacks, and a CPU's memory and layers."""

import warnings
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import RichProgressBar, TQDMProgressBar
from rich.console import Console

from vlc.checkpoint.checkpoint_io import CheckpointIO
from vlc.hardware.allocator import keep_freed_memory
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.hardware.precision import precision_options
from vlc.training.callbacks import CastWeightsOnce, CorruptImages, NonFiniteLossGuard, Threads, Throughput
from vlc.training.saving import leave_signals_to_us

LOG_EVERY = 10  # batches

# Advice from Lightning that does not apply: metrics are summed over the processes before they are logged, the data module
# leaves batches to the module, few workers may be right, a checkpoint folder is used again on purpose, a moving average is
# never in training mode, and the sampler knows the position of a resumed run.
for _advice in (
    "It is recommended to use `self.log",
    "You have overridden `on_after_batch_transfer`",
    ".*does not have many workers",
    r"Found \d+ module\(s\) in eval mode",
    "Checkpoint directory .* exists and is not empty",
    ".*LeafSpec",
    "You're resuming from a checkpoint that ended before the epoch ended",
):
    warnings.filterwarnings("ignore", message=_advice)


def make_trainer(
    accelerator: str, precision: str, *, caches_casts: bool = True, plugins: tuple[Any, ...] = (), **options: Any
) -> Trainer:
    """Return a trainer whose checkpoints, samplers and signals are ours.

    precision: the precision by Lightning's name.
    caches_casts: keep the weights that autocast has cast for a whole step.
    plugins: further plug-ins of the trainer.
    options: further options of Lightning's `Trainer`.
    """
    made: dict[str, Any] = precision_options(precision, accelerator) if caches_casts else {"precision": precision}
    made["plugins"] = [*plugins, CheckpointIO(), *made.get("plugins", [])]
    trainer = Trainer(
        accelerator=accelerator,
        **made,
        **options,
        log_every_n_steps=LOG_EVERY,
        use_distributed_sampler=False,  # the samplers know the processes
        benchmark=True,
        enable_model_summary=False,
    )
    leave_signals_to_us(trainer)
    return trainer


def common_callbacks() -> list[Callback]:
    """The callbacks of every run, evaluations included."""
    terminal = Console().is_terminal
    bar = RichProgressBar(refresh_rate=LOG_EVERY) if terminal else TQDMProgressBar(refresh_rate=10 * LOG_EVERY)
    return [CastWeightsOnce(), Threads(), bar]


def guards(max_corrupt_ratio: float, **options: Any) -> list[Callback]:
    """The callbacks that watch over training. options: the options of `NonFiniteLossGuard`."""
    return [NonFiniteLossGuard(LOG_EVERY, **options), CorruptImages(max_corrupt_ratio), Throughput(LOG_EVERY)]


def suit_cpu(module: LightningModule, width: int, precision: str, *, sharded: bool = False) -> None:
    """Keep freed memory, and use oneDNN's layers where they are faster. They would pack a sharded model as a whole."""
    keep_freed_memory()
    if suits_onednn(width, half=precision == "bf16-mixed") and not sharded:
        use_onednn(module)
