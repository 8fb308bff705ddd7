"""One vision-language transformer, pre-trained from images and captions alone, fine-tuned on every task."""

from typing import Any

from vlc.common.after_import import after_import
from vlc.hardware import threads, torchvision_ops

__version__ = "0.1.0"

threads.sleep_soon()
torchvision_ops.install()


def _register_config() -> None:
    from vlc.use.auto import config

    config.register()


def _register_model() -> None:
    from vlc.use.auto import model

    model.register()


# AutoConfig and AutoModel learn of our folders when a program asks transformers for them.
after_import("transformers.models.auto.configuration_auto", _register_config)
after_import("transformers.models.auto.modeling_auto", _register_model)


def __getattr__(name: str) -> Any:
    """Model, imported when it is asked for: the package itself stays free of torch."""
    if name == "Model":
        from vlc.use.model import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
