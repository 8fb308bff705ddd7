"""The groups of settings, plain and frozen; `vlc.configuration.settings` fills and checks them.

A field without a default is a key of the configuration. The flags of main_finetune.py alone set fields with a default. The
fields of a group in NESTED are keys of a dictionary.
"""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from vlc.common.errors import UserError
from vlc.configuration.task_settings import TaskSettings
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.objectives.options import Options


def keys(group: Any) -> tuple[str, ...]:
    """Return the fields of a group that are keys of the configuration."""
    return tuple(one.name for one in fields(group) if one.default is MISSING and one.default_factory is MISSING)


@dataclass(frozen=True)
class DataSettings:
    """The samples and how they are prepared.

    train_transform: the image pipeline of training, instead of train_transform_keys.
    whole_steps: an epoch consists of whole optimiser steps (see `vlc.data.sampler.TrainSampler`).
    shares_evaluation: the processes share the evaluated samples; otherwise each evaluates all of them.
    pin_memory: batches for a GPU are copied from pinned memory.
    """

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
    num_workers: int | str
    max_corrupt_ratio: float
    train_transform: Callable[..., Any] | None = None
    whole_steps: bool = False
    shares_evaluation: bool = True
    pin_memory: bool = True

    @property
    def stated_workers(self) -> int:
        """num_workers, for commands that measure nothing. Raises UserError where it is auto."""
        if isinstance(self.num_workers, str):
            raise UserError(f"num_workers={self.num_workers} measures in training and tests alone: pass a number here")
        return self.num_workers


@dataclass(frozen=True)
class ModelSettings:
    """The network.

    drop_path: the rate of stochastic depth in the last block.
    """

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
    drop_path: float = 0.0

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
class OptimizerSettings:
    """The optimiser beyond optim_type, and which parameters it trains at which rates.

    options: further arguments of the optimiser, as in optimizer.options.betas=[0.9,0.95].
    rates: factors of the learning rate, by a part of the parameters' names or a regular expression; blocks<6 stands for the
        first six blocks. Where several match, the factors multiply.
    frozen: parameters that are not trained, in the notation of `rates`.
    ema: the decay of a moving average of the weights, which is evaluated and saved beside them, such as 0.9999; None: there
        is no average.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    ema: float | None = None


SCHEDULES = ("polynomial", "linear", "cosine", "cosine_restart", "step", "constant", "plateau")
WARMUPS = ("linear", "constant")


@dataclass(frozen=True)
class ScheduleSettings:
    """How the learning rate changes behind the warm-up of warmup_steps.

    kind: polynomial (of decay_power), linear and cosine fall to end_lr; cosine_restart falls to 0 in each cycle; step falls
        at the milestones; constant stays; plateau falls where val/the_metric no longer grows; None: as decay_power says.
    milestones: the steps at which the rate of `step` is multiplied by `factor`; a number below 1 is a share of all steps.
    factor: by which `step` and `plateau` multiply the rate.
    cycles: the number of cycles of cosine_restart.
    warmup: of constant, step and plateau; linear rises from warmup_start times the rate, constant stays there.
    warmup_start: the share of the rate at which that warm-up begins.
    patience: plateau multiplies the rate after more validations than this in a row that do not improve.
    threshold: the gain over the best val/the_metric that counts as an improvement.
    cooldown: the validations after a change of the rate that do not count.
    """

    kind: str | None = None
    milestones: tuple[float, ...] = ()
    factor: float = 0.1
    cycles: int = 1
    warmup: str = "linear"
    warmup_start: float = 0.0
    patience: int = 1
    threshold: float = 1e-4
    cooldown: int = 0


@dataclass(frozen=True)
class OptimSettings:
    """Optimiser, schedule and length of training.

    warmup_epochs: the epochs of warm-up where a callback sets the rates (`vlc.training.finetune.HalfCosine`).
    start_epoch: the first epoch of a run that resumes no checkpoint.
    """

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
    batch_size: int | None
    warmup_epochs: int | None = None
    start_epoch: int = 0
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)


@dataclass(frozen=True)
class RunSettings:
    """Where and how the run happens.

    flags: the flags of main_finetune.py, which its checkpoints store and compare; empty: the run is one of run.py.
    output_dir: the folder for checkpoints and log.txt of main_finetune.py; empty: nothing is written.
    accelerator: Lightning's name for the kind of device, num_gpus being their number; None: GPUs, or else the CPU.
    """

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
    flags: Mapping[str, Any] = field(default_factory=dict)
    output_dir: str = ""
    accelerator: str | None = None


MIXING = ("round_robin", "stop_and_go", "size_proportional", "temperature", "weighted")
STEPS = ("per_task", "accumulate")


@dataclass(frozen=True)
class MultitaskSettings:
    """How several tasks train together. A round is one visit of every task that runs.

    mixing: round_robin visits every task in each round; stop_and_go too, but leaves out tasks that no longer improve
        (Lu et al. 2020, 12-in-1); size_proportional, temperature and weighted draw the tasks of a round at random.
    temperature: the mixing `temperature` draws a task with n samples in proportion to n ** (1 / temperature).
    weights: the mixing `weighted` draws tasks in proportion to these weights, by name.
    steps: per_task: an optimiser step for every visit of a task; accumulate: one step for the sum of the losses of a round.
    rounds_per_epoch: the number of rounds of an epoch; None: as many as the largest task has steps.
    own_rhythm: whether a task is validated each time all its samples were seen, and not with the others at
        val_check_interval; None: where the mixing is stop_and_go.
    gap: a stopped task still takes part in rounds whose number is a multiple of it; 0 or less: in none.
    patience: a task stops after more validations than this in a row that do not improve.
    threshold: the gain over the best score that counts as an improvement, as a share of it.
    continue_threshold: the loss from the best score at which a stopped task runs again, as a share of it.
    absolute: whether both thresholds are differences of scores, and not shares of the best score.
    cooldown: the validations after a change during which no validation counts against a task.
    resets: epochs, counted from 1, after which all tasks run and their best scores are forgotten.
    task_tokens: whether a token that names the task stands behind [CLS].
    best_of_each: whether the best checkpoint of every task is kept, beside the best of all.
    """

    mixing: str = "round_robin"
    temperature: float = 2.0
    weights: Mapping[str, float] = field(default_factory=dict)
    steps: str = "per_task"
    rounds_per_epoch: int | None = None
    own_rhythm: bool | None = None
    gap: int = 4
    patience: int = 1
    threshold: float = 0.001
    continue_threshold: float = 0.005
    absolute: bool = False
    cooldown: int = 1
    resets: tuple[int, ...] = ()
    task_tokens: bool = False
    best_of_each: bool = False


EXCLUDED = ("none", "test", "val_test")


@dataclass(frozen=True)
class CleanSettings:
    """Which images training leaves out because they are evaluated, by this or another task (Lu et al. 2020, 12-in-1).

    exclude: none; test: images of test splits; val_test: those of validation splits too.
    lists: the list of these images that `python -m write_arrow clean ARROWS` writes; None: clean.json in data_root.
    """

    exclude: str = "none"
    lists: str | None = None


@dataclass(frozen=True)
class LanguageSettings:
    """What the model knows of the languages of texts, where a data set says them.

    embeddings: languages, as the data set names them, for which the model learns a vector that is added to the tokens of
        their texts; empty: none. Other languages have none.
    of_texts: the language of the texts that vlc.Model and the commands beside training are given; empty: it is not said.
    """

    embeddings: tuple[str, ...] = ()
    of_texts: str = ""


@dataclass(frozen=True)
class LoRASettings:
    """Adapters of low rank, which are trained in place of the encoder's weights (LoRA, Hu et al. 2022).

    rank: of the adapters; 0: there are none, and all weights are trained.
    alpha: the adapters' outputs are multiplied by alpha / rank; None: twice the rank.
    dropout: rate of dropout on the inputs of the adapters.
    targets: the linear layers of each block that have an adapter, as in [qkv,proj]; None: all of them.
    trains: weights that are trained in full beside the adapters, in the notation of optimizer.rates, as in [norm,bias].
    """

    rank: int = 0
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    trains: tuple[str, ...] = ()


LOGGERS = ("tensorboard", "wandb", "mlflow")


@dataclass(frozen=True)
class LoggingSettings:
    """Where a run logs its metrics, its configuration, pictures and files, beside its folder.

    to: the loggers: tensorboard, wandb, mlflow; empty: none.
    project: wandb's project and mlflow's experiment.
    tags: words by which wandb and mlflow find the run.
    pictures: how many examples of each split a validation shows with their answers, or with their reconstruction; 0: none.
    files: the files of the run's folder that wandb and mlflow get at its end, as names or patterns, such as
        checkpoints/*.ckpt.
    """

    to: tuple[str, ...] = ("tensorboard",)
    project: str = "vlc"
    tags: tuple[str, ...] = ()
    pictures: int = 8
    files: tuple[str, ...] = ("run.json", "metrics.json", "report.html")


# Groups whose fields are keys in a dictionary of the configuration, as in multitask.mixing=stop_and_go. All have defaults.
NESTED: dict[str, type] = {
    "multitask": MultitaskSettings,
    "clean": CleanSettings,
    "languages": LanguageSettings,
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "lora": LoRASettings,
    "logging": LoggingSettings,
}


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
    multitask: MultitaskSettings
    clean: CleanSettings
    languages: LanguageSettings
    lora: LoRASettings
    logging: LoggingSettings
    options: Mapping[str, Options]
    tasks: tuple[TaskSettings, ...]

    @property
    def optimizer(self) -> OptimizerSettings:
        return self.optim.optimizer

    @property
    def schedule(self) -> ScheduleSettings:
        return self.optim.schedule
