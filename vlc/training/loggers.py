"""Where a run logs: TensorBoard, and trackers such as wandb and mlflow, whose failures do not end the run.

The first logger numbers the folders of runs, whether or not TensorBoard writes into them.
"""

import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from filelock import FileLock
from lightning_fabric.utilities.logger import _flatten_dict, _sanitize_params
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn
from torch.utils.tensorboard.summary import hparams

from vlc.common.errors import UserError, first_line
from vlc.common.terminal import printable
from vlc.configuration.groups import LoggingSettings


class RunFolder(CSVLogger):
    """Makes the folder of a run and numbers it as TensorBoardLogger does, and writes nothing into it."""

    @property
    def experiment(self) -> Any:
        self._make()
        return None

    @rank_zero_only
    def _make(self) -> None:
        os.makedirs(self.log_dir, exist_ok=True)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Do nothing, as do the following."""

    def log_hyperparams(self, params: Any = None) -> None: ...

    def save(self) -> None: ...

    def finalize(self, status: str) -> None: ...


class Tracker(Logger):
    """A logger of Lightning's that starts when training does, and whose failures do not end the run.

    After a failure the run goes on without it, and a warning says so.

    kind: its name in logging.to, of the package that it needs, and of the extra that installs the package.
    log_dir: the folder of all runs.
    identity: the tracker's name of the run, under which a resumed run goes on; None: it has not started.
    """

    kind: ClassVar[str]

    def __init__(self, settings: LoggingSettings, log_dir: str):
        super().__init__()
        self.settings, self.log_dir_of_all = settings, Path(log_dir).absolute()
        self.identity: str | None = None
        self.folder = Path()
        self.logger: Any = None

    @property
    def name(self) -> str:
        return self.kind

    @property
    def version(self) -> str:
        """The number of the run's folder; the progress bar shows the numbers of loggers that differ."""
        return self.folder.name.removeprefix("version_")

    @property
    def title(self) -> str:
        """The name of the run for a reader."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever a server, a disk or a foreign package fails with: training is worth more
            self.logger = None
            said = f"{type(error).__name__}: {first_line(error)}"
            rank_zero_warn(printable(f"{self.kind} has failed, and the run goes on without it ({said})"))

    @rank_zero_only
    def start(self, folder: str, identity: str | None, config: Mapping[str, Any]) -> None:
        """Begin a run, or go on with the one of an identity. config: its hyper-parameters."""
        self.folder, self.identity = Path(folder).absolute(), identity
        with self._surviving():
            self._start()
            if self.identity != identity:  # mlflow refuses other values than those that a run began with
                self.log_hyperparams(config)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if self.logger is not None:
            with self._surviving():
                self.logger.log_metrics(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        if self.logger is not None:
            with self._surviving():
                self.logger.log_hyperparams(params)

    @rank_zero_only
    def log_picture(self, name: str, picture: Image.Image, step: int) -> None:
        if self.logger is not None:
            with self._surviving():
                self._log_picture(name, picture, step)

    @rank_zero_only
    def close(self, *, succeeded: bool) -> None:
        """Give it the files of the run, and end its run."""
        if self.logger is not None:
            with self._surviving():
                for pattern in self.settings.files:
                    for path in sorted(filter(Path.is_file, self.folder.glob(pattern))):
                        self._log_file(path)
                self._end(succeeded=succeeded)
        self.logger = None

    # -- of each kind

    @abstractmethod
    def _start(self) -> None:
        """Set `logger` and `identity`."""

    @abstractmethod
    def _log_picture(self, name: str, picture: Image.Image, step: int) -> None: ...

    @abstractmethod
    def _log_file(self, path: Path) -> None: ...

    @abstractmethod
    def _end(self, *, succeeded: bool) -> None: ...


class Wandb(Tracker):
    """Weights & Biases. Offline it writes into the run's folder, from where `wandb sync` sends it."""

    kind = "wandb"

    def _start(self) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports to its makers
        logger = WandbLogger(
            name=self.title,
            project=self.settings.project,
            save_dir=self.folder,
            id=self.identity,
            tags=list(self.settings.tags),
            mode=os.environ.get("WANDB_MODE", "offline"),
        )
        self.identity, self.logger = logger.experiment.id, logger

    def _log_picture(self, name: str, picture: Image.Image, step: int) -> None:
        self.logger.log_image(name, [picture], step=step)

    def _log_file(self, path: Path) -> None:
        self.logger.experiment.save(path, base_path=self.folder, policy="now")

    def _end(self, *, succeeded: bool) -> None:
        self.logger.experiment.finish(exit_code=0 if succeeded else 1)


class MLflow(Tracker):
    """MLflow. Without MLFLOW_TRACKING_URI it writes into mlflow.db and mlflow_files in the folder of all runs."""

    kind = "mlflow"

    def _start(self) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        given = os.environ.get("MLFLOW_TRACKING_URI")
        files = None if given else (self.log_dir_of_all / "mlflow_files").as_uri()
        with FileLock(self.log_dir_of_all / ".mlflow.lock"):  # runs side by side would both make the tables
            logger = MLFlowLogger(
                experiment_name=self.settings.project,
                run_name=self.title,
                tracking_uri=given or f"sqlite:///{self.log_dir_of_all / 'mlflow.db'}",
                tags=dict.fromkeys(self.settings.tags, "true"),
                artifact_location=files,
                run_id=self.identity,
            )
            if self.identity is not None:
                logger.experiment.update_run(self.identity, status="RUNNING")
            self.identity, self.logger = logger.run_id, logger

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        super().log_hyperparams({re.sub(r"[^\w./ -]", "_", key): value for key, value in _flatten_dict(params).items()})

    def _log_picture(self, name: str, picture: Image.Image, step: int) -> None:
        self.logger.experiment.log_image(self.identity, picture, key=name, step=step)

    def _log_file(self, path: Path) -> None:
        inside = path.parent.relative_to(self.folder)
        self.logger.experiment.log_artifact(self.identity, path, None if inside == Path() else inside.as_posix())

    def _end(self, *, succeeded: bool) -> None:
        self.logger.finalize("success" if succeeded else "failed")


TRACKERS: dict[str, type[Tracker]] = {tracker.kind: tracker for tracker in (Wandb, MLflow)}


def check_installed(settings: LoggingSettings) -> None:
    """Raise UserError where a logger's package is missing."""
    for kind in settings.to:
        if kind in TRACKERS and find_spec(kind) is None:
            raise UserError(
                f"logging.to={list(settings.to)} needs the package {kind}: pip install -e '.[{kind}]', or leave it out"
            )


def make_loggers(settings: LoggingSettings, log_dir: str, name: str) -> list[Logger]:
    """Return the loggers of a run whose folder is LOG_DIR/NAME/version_N; the first one numbers it."""
    writes = "tensorboard" in settings.to
    first = TensorBoardLogger(log_dir, name=name, default_hp_metric=False) if writes else RunFolder(log_dir, name=name)
    return [first, *(TRACKERS[kind](settings, log_dir) for kind in settings.to if kind in TRACKERS)]


def log_picture(trainer: Trainer, name: str, picture: Image.Image) -> None:
    """Give a picture of the present step to all loggers that take pictures."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(name, np.asarray(picture), trainer.global_step, dataformats="HWC")
        elif isinstance(logger, Tracker):
            logger.log_picture(name, picture, trainer.global_step)


@contextmanager
def closed(trainer: Trainer) -> Iterator[None]:
    """End the trackers' runs when the block does, so that they get the files that it writes."""
    succeeded = False
    try:
        yield
        succeeded = True
    finally:
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.close(succeeded=succeeded)


class Tracking(Callback):
    """Tells the loggers the configuration, starts the trackers, and keeps the identities of their runs in checkpoints."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self.identities: dict[str, str] = {}  # by kind

    def state_dict(self) -> dict[str, Any]:
        return self.identities

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.identities = dict(state_dict)

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(dict(self.config))
                for summary in hparams(_sanitize_params(_flatten_dict(dict(self.config))), {"val/the_metric": 0.0}):
                    logger.experiment._get_file_writer().add_summary(summary)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer)

    def on_test_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start(trainer)

    def _start(self, trainer: Trainer) -> None:
        folder = trainer.log_dir  # asks the other processes
        for logger in trainer.loggers:
            if isinstance(logger, Tracker):
                logger.start(str(folder), self.identities.get(logger.kind), self.config)
                if logger.identity is not None:
                    self.identities[logger.kind] = logger.identity
