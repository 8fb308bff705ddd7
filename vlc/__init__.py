"""One vision-language transformer, pre-trained from images and captions alone, fine-tuned on every task."""

from typing import Any

from vlc.hardware import torchvision_ops

__version__ = "0.1.0"

torchvision_ops.install()


def __getattr__(name: str) -> Any:
    """Model, imported when it is asked for: the package itself stays free of torch."""
    if name == "Model":
        from vlc.use.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
