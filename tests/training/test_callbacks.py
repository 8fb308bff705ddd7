import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from vlc.hardware.precision import precision_options
from vlc.training.callbacks import CastWeightsOnce


class _Casts(TorchDispatchMode):
    """Counts copies of a weight into another type."""

    def __init__(self, weight: nn.Parameter):
        super().__init__()
        self.shape, self.count = weight.shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default and args[0].shape == self.shape
        return func(*args, **(kwargs or {}))


class _Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3, bias=False)
        self.casts, self.found = [], []

    def training_step(self, batch, batch_idx):
        return self.layer(batch).square().mean()

    def validation_step(self, batch, batch_idx):
        with _Casts(self.layer.weight) as casts:
            self.found.append(self.layer(batch))
        self.casts.append(casts.count)

    def on_train_epoch_end(self):
        self.casts.append("trained")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_weights_are_cast_once_in_an_evaluation_and_again_after_training():
    module, loader = _Module(), DataLoader(torch.ones(6, 5), batch_size=2)
    trainer = Trainer(
        accelerator="cpu",
        **precision_options("bf16-mixed", "cpu"),
        max_epochs=2,
        callbacks=[CastWeightsOnce()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, loader, loader)
    assert module.casts == [1, 0, 0, "trained", 1, 0, 0, "trained"]
    first, second = module.found[0], module.found[3]
    assert first.dtype == torch.bfloat16
    assert not first.equal(second)
    assert not torch.is_autocast_enabled("cpu")
