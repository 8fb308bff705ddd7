"""The one place that weighs, sums and logs; nothing here knows a task."""

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

from vlc.common.errors import UserError
from vlc.common.inputs import Images, mapped
from vlc.configuration.settings import DataSettings, ModelSettings, OptimSettings
from vlc.data.batch import Batch
from vlc.data.corpus import Corpus
from vlc.data.parts import Part, PatchNoise
from vlc.data.transforms import normalize
from vlc.evaluation.metrics import Ratio, check_finite
from vlc.evaluation.predictions import write_predictions
from vlc.evaluation.retrieval import Scorer, evaluate
from vlc.model.blocks import Block
from vlc.model.encoder import Encoder
from vlc.model.passes import encode_passes
from vlc.objectives import OBJECTIVES
from vlc.objectives.base import HeadOptions, Outcome
from vlc.training.optim import LAYERS, build_optimizer, build_schedule, layer_decay_groups, may_fuse, plain_groups


def objective_parts(settings: ModelSettings, options: DataSettings) -> frozenset[Part]:
    """What the active objectives want in a batch, together. Without dropped patches nobody draws noise for them."""
    parts = {part for name in settings.objectives for part in OBJECTIVES[name].parts(options)}
    return frozenset(part for part in parts if settings.dropped_ratio or not isinstance(part, PatchNoise))


def objective_images(settings: ModelSettings) -> int:
    """How many images of an example the active objectives read."""
    return max(OBJECTIVES[name].images for name in settings.objectives)


def need_images(settings: ModelSettings) -> bool:
    """Whether one of the active objectives can do nothing with texts alone."""
    return any(OBJECTIVES[name].needs_images for name in settings.objectives)


class VLCModule(LightningModule):
    """Encoder and active objectives. loss = sum of weight * objective loss.

    optim may be None for a module that is only evaluated. num_images: of an example. answers: the answer vocabulary by
    label; data_answers: that of the data, where it is another. image_only: no batch has texts.
    text_only: no batch has images. splits: names of the splits that are evaluated, for which metrics are kept.
    selecting: those of them that select the checkpoint, by default all.
    config: written into checkpoints.
    """

    def __init__(
        self,
        settings: ModelSettings,
        *,
        image_size: int,
        max_text_len: int,
        vocab_size: int,
        pad_token_id: int = 0,
        num_images: int = 1,
        answers: tuple[str, ...] = (),
        data_answers: tuple[str, ...] = (),
        image_only: bool = False,
        text_only: bool = False,
        optim: OptimSettings | None = None,
        splits: tuple[str, ...] = (),
        selecting: Collection[str] = (),
        get_recall_metric: bool = False,
        save_scores: bool = False,
        rerank_k: int | None = None,
        seed: int = 0,
        config: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.settings, self.optim_settings, self.seed = settings, optim, seed
        self.ranks_at_validation, self.save_scores = get_recall_metric, save_scores
        self.rerank_k = rerank_k
        self.ranks_at_test = get_recall_metric or bool({"irtr", "itc"} & set(settings.objectives))
        self.selecting = frozenset(selecting or splits)
        self.extras = {"config": dict(config or {}), "answers": list(answers)}
        self.encoder = Encoder(
            settings.size,
            image_size,
            vocab_size=vocab_size,
            max_text_len=max_text_len,
            text_dropout=settings.drop_rate,
            pad_token_id=pad_token_id,
            num_image_types=num_images,
            activation_checkpointing=settings.activation_checkpointing,
            max_patches=settings.max_image_len if settings.max_image_len > 0 else None,
        )
        options = HeadOptions(
            width=settings.size.width,
            vocab_size=vocab_size,
            num_patches=self.encoder.num_patches,
            size=settings.size,
            mae_weight=settings.mae_weight,
            wpa_weight=settings.wpa_weight,
            pad_token_id=pad_token_id,
            num_answers=settings.vqav2_label_size,
            answers=answers,
            data_answers=data_answers,
        )
        self.weights = settings.objectives
        self.objectives = nn.ModuleDict({name: OBJECTIVES[name](options) for name in self.weights})
        if not any(objective.reads_pooled for objective in self.objectives.values()):
            self.encoder.pooler.requires_grad_(False)  # no loss reaches it, which DDP would wait for
        if image_only:
            self.encoder.text_embeddings.requires_grad_(False)
            self.encoder.token_types.requires_grad_(False)
        if text_only:
            for part in (self.encoder.patch_embed, self.encoder.cls_token, self.encoder.pos_embed):
                part.requires_grad_(False)
        self.ratios = nn.ModuleDict({name: Ratio() for split in splits for name in self._metric_names(split)})
        self.records: dict[tuple[str, str], list[dict[str, Any]]] = {}

    def _metric_names(self, split: str) -> list[str]:
        return [f"{name}/{split}/{metric}" for name, head in self.objectives.items() for metric in head.metrics]

    def compile_parts(self, **options: Any) -> None:
        """Compile the encoder's blocks and what gains in the objectives, with options of torch.compile."""
        self.encoder.compile_blocks(**options)
        for objective in self.objectives.values():
            objective.compile_parts(**options)

    # -- steps

    def normalised(self, batch: Batch) -> Batch:
        """A batch of the loader with its images, those in its parts too, as the encoder takes them."""
        scale = self.encoder.size.pixels
        return mapped(batch, Images, lambda images: replace(images, pixels=normalize(images.pixels, scale)))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.normalised(batch)

    def outcomes(self, batch: Batch) -> dict[str, Outcome]:
        """Return every objective's outcome for a normalised batch; objectives share encoder passes."""
        ratio, known = self.settings.dropped_ratio, None
        if self.settings.hard_negatives and self.training:
            contrast = self.objectives["itc"]
            known = encode_passes(self.encoder, batch, contrast.passes(batch), ratio)
            batch = contrast.with_hard_negatives(known, batch)
        passes = [one for objective in self.objectives.values() for one in objective.passes(batch)]
        encoded = encode_passes(self.encoder, batch, passes, ratio, known)
        return {name: objective(encoded, batch) for name, objective in self.objectives.items()}

    def total_loss(self, outcomes: Mapping[str, Outcome]) -> Tensor:
        return sum(self.weights[name] * outcome.loss for name, outcome in outcomes.items())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        # Dropout draws from the global generator: seeding it here makes a resumed run continue with the same draws.
        place = (self.seed, self.current_epoch, batch_idx, self.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))
        outcomes = self.outcomes(batch)
        loss = self.total_loss(outcomes)
        values = {"train/loss": loss.detach()}
        for name, outcome in outcomes.items():
            for metric, (total, count) in outcome.metrics.items():
                values[f"{name}/train/{metric}"] = total / max(count, 1)
        self.log_dict(values, batch_size=len(batch))
        return loss

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer, optimizer_closure=None) -> None:
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        optimizer.zero_grad()  # Lightning's comes after the next forward pass, whose activations need the room

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self._evaluate(batch)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        for name, outcome in self._evaluate(batch).items():
            records = self.objectives[name].predict(outcome, batch)
            if records and outcome.logits.isnan().any():  # without labels no loss would tell
                check_finite({f"{name}/{batch.split}/logits": math.nan})
            self.records.setdefault((name, batch.split), []).extend(records)

    def _evaluate(self, batch: Batch) -> dict[str, Outcome]:
        """The batch's outcomes, with what they measured added up; none of a batch that counts elsewhere."""
        outcomes = self.outcomes(batch)
        if batch.again:
            return {}
        for name, outcome in outcomes.items():
            for metric, ratio in outcome.metrics.items():
                self.ratios[f"{name}/{batch.split}/{metric}"].update(*ratio)
        return outcomes

    # -- ends of epochs

    def on_validation_epoch_end(self) -> None:
        values = self._computed_ratios()
        if self.trainer.sanity_checking:  # a few batches, in which there may be nothing to count
            return
        if self.ranks_at_validation:
            with gathered(self):
                values |= self._recalls(None)
        self.log_dict(values)
        self.log("val/the_metric", self.the_metric(values), prog_bar=True)

    def on_test_epoch_end(self) -> None:
        values = self._computed_ratios()
        for (name, split), records in self.records.items():
            folder = self.trainer.log_dir if not self.trainer.fast_dev_run else None
            summary = write_predictions(self.objectives[name], f"{name}_{split}", records, folder)
            values |= {f"{name}/{split}/{metric}": value for metric, value in summary.items()}
        self.records.clear()
        if self.ranks_at_test:
            with gathered(self):
                values |= self._recalls(self.trainer.log_dir)
        self.log_dict({name: float(value) for name, value in values.items()})

    def _recalls(self, folder: str | None) -> dict[str, Tensor]:
        """Recalls of every evaluated split, by the ranking head, or else the matching head, or else embeddings."""
        heads = dict(self.objectives.items())
        name = next(name for name in ("irtr", "itm", "itc") if name in heads)
        itc, score = heads.get("itc"), None if name == "itc" else heads[name].score
        values = {}
        for split, dataset in self.trainer.datamodule.evaluation.items():
            scorer = Scorer(self.encoder, Corpus(dataset), self.device, score=score, itc=itc)
            out = folder and Path(folder) / f"{name}_{split}_ranking"
            with self.trainer.precision_plugin.forward_context():
                found = evaluate(scorer, out, rerank_k=self.rerank_k, save_scores=self.save_scores)
            values |= {f"{name}/{split}/{metric}": torch.tensor(value) for metric, value in found.items()}
        return values

    def _computed_ratios(self) -> dict[str, Tensor]:
        """Every ratio that counted something, and the ratios reset. Raises NonFiniteMetric."""
        values = {}
        for name, ratio in self.ratios.items():
            value = ratio.compute()
            ratio.reset()
            if value is not None:
                values[name] = value.float()
        check_finite(values)
        return values

    def the_metric(self, values: Mapping[str, Tensor]) -> Tensor:
        """What selects checkpoints: the sum of the objectives' headlines over the selecting splits, higher is better.

        Where no objective has one (reconstruction alone), the negative sum of the losses. Raises UserError where nothing
        was counted.
        """
        headlines, losses = [], []
        for key, value in values.items():
            name, split, metric = key.split("/", 2)
            if split not in self.selecting:
                continue
            headline = ("ir_r1", "tr_r1") if self.ranks_at_validation else (self.objectives[name].headline,)
            if metric in headline:
                headlines.append(value)
            elif metric == "loss":
                losses.append(-value)
        if not (headlines or losses):
            raise UserError(
                f"Nothing was counted in the splits that select the checkpoint ({', '.join(sorted(self.selecting))}): they "
                "are too small for loss_names.mlm to hide a token, raise mlm_prob"
            )
        return torch.stack(headlines or losses).sum()

    # -- optimiser and checkpoints

    def configure_optimizers(self) -> dict[str, Any]:
        optim = self.optim_settings
        fused = may_fuse(self.trainer.precision, clips=bool(optim.gradient_clip))
        optimizer = build_optimizer(self.parameter_groups(), optim, fused=fused)
        schedule = build_schedule(optimizer, optim, self.trainer.estimated_stepping_batches)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The groups of parameters that the optimiser is made of."""
        if self.optim_settings.layer_decay == 1:
            return plain_groups(self, self.optim_settings, self._task_head_parameters())
        return layer_decay_groups(self, self.optim_settings)

    def checkpoint_bytes(self) -> int:
        """The least room a checkpoint takes: float32 weights, and what the optimiser keeps of those it trains."""
        kept = 1 if self.optim_settings.optim_type == "sgd" else 2
        return sum(4 * value.numel() * (1 + kept * value.requires_grad) for value in self.parameters())

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """The layers, for timm's parameter groups."""
        return LAYERS

    def configure_model(self) -> None:
        """Shards the model where the trainer's strategy is to; Lightning calls it once the processes have met."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not isinstance(self, FSDPModule):
            shard(self, self.device_mesh["data_parallel"])

    def _task_head_parameters(self) -> set[str]:
        heads = [name for name, objective in self.objectives.items() if objective.task_head]
        return {f"objectives.{head}.{name}" for head in heads for name, _ in self.objectives[head].named_parameters()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["vlc"] = self.extras

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Gives the temperature of contrast its dimension, which older checkpoints lack, in the optimiser's state too."""
        name = "objectives.itc.log_scale"
        state = checkpoint.get("state_dict", {})  # sharded training reads the weights by itself
        if name in state and not state[name].ndim:
            state[name] = state[name].reshape(1)
            for optimizer in checkpoint.get("optimizer_states", ()):
                for moments in optimizer["state"].values():
                    scalars = [key for key, value in moments.items() if key != "step" and not value.ndim]
                    moments |= {key: moments[key].reshape(1) for key in scalars}


def shard(module: VLCModule, mesh: DeviceMesh) -> None:
    """Share a module out over a mesh in place (FSDP2): each block gathers its weights while it runs, the rest at once."""
    for block in [part for part in module.modules() if isinstance(part, Block)]:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "forward_first_token")
    fully_shard(module, mesh=mesh)
    for entry in ("training_step", "validation_step", "test_step", "_recalls"):
        register_fsdp_forward_method(module, entry)


@contextmanager
def gathered(module: nn.Module) -> Iterator[None]:
    """All weights of a sharded module on every process for a while, so that each makes as many passes as it likes."""
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    inner = [part for part in parts if part is not module]
    for part in inner:
        part.set_reshard_after_forward(False, recurse=False)
    for part in parts:
        part.unshard()
    try:
        yield
    finally:
        for part in inner:
            part.set_reshard_after_forward(True, recurse=False)
        for part in parts:
            part.reshard()
