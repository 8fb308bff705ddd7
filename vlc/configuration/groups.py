"""The groups of settings, plain and frozen; `vlc.configuration.settings` fills and checks them."""

from collections.abc import Mapping
from dataclasses import dataclass

from vlc.configuration.task_settings import TaskSettings
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.objectives.options import Options


@dataclass(frozen=True)
class DataSettings:
    """The samples and how they are prepared."""

    data_root: str
    data_cache: str | None
    datasets: tuple[str, ...]
    dataset_weights: tuple[float, ...] | None
    published_splits: bool
    verify: bool | None
    splits: tuple[str, ...] | None
    train_transform_keys: tuple[str, ...]
    val_transform_keys: tuple[str, ...]
    image_size: int
    image_only: bool
    max_text_len: int
    tokenizer: str
    per_gpu_batchsize: int
    num_workers: int
    max_corrupt_ratio: float


@dataclass(frozen=True)
class ModelSettings:
    """The network."""

    vit: str
    patch_size: int
    hidden_size: int
    num_heads: int
    num_layers: int
    mlp_ratio: float
    vocab_size: int | None
    drop_rate: float
    compile: bool
    activation_checkpointing: bool
    loss_names: Mapping[str, float]
    mask_ratio: float
    is_pretrain: bool
    use_mae: bool
    max_image_len: int

    @property
    def size(self) -> EncoderConfig:
        return ENCODERS[self.vit]

    @property
    def dropped_ratio(self) -> float:
        """The share of patches that the encoder does not see."""
        return self.mask_ratio if self.is_pretrain else 0.0

    @property
    def objectives(self) -> dict[str, float]:
        """Active objectives by their published names, and their weights."""
        return {name: weight for name, weight in self.loss_names.items() if weight > 0}


@dataclass(frozen=True)
class OptimSettings:
    """Optimiser, schedule and length of training."""

    optim_type: str
    learning_rate: float
    weight_decay: float
    layer_decay: float
    lr_mult: float
    decay_power: float | str
    end_lr: float
    warmup_steps: int | float
    max_epoch: int
    max_steps: int | None
    gradient_clip: float
    batch_size: int


@dataclass(frozen=True)
class RunSettings:
    """Where and how the run happens."""

    exp_name: str
    seed: int
    log_dir: str
    resume_from: str | None
    checkpoint_every: int | None
    load_path: str
    pretrain_path: str
    test_only: bool
    fast_dev_run: bool | int
    val_check_interval: int | float
    get_recall_metric: bool
    save_scores: bool
    rerank_k: int | None
    num_gpus: int | tuple[int, ...]
    num_nodes: int
    fsdp: bool
    precision: int | str


@dataclass(frozen=True)
class Groups:
    """All settings of a run.

    options: the options of every objective, active or not, by kind.
    tasks: the named tasks, or one task without a name, which the flat keys describe.
    """

    data: DataSettings
    model: ModelSettings
    optim: OptimSettings
    run: RunSettings
    options: Mapping[str, Options]
    tasks: tuple[TaskSettings, ...]
