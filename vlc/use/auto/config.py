"""VLCConfig: config.json of our folders as transformers reads it. It is entered into AutoConfig without importing torch."""

from transformers import AutoConfig, PreTrainedConfig


class VLCConfig(PreTrainedConfig):
    """The sizes, the heads, and under `vlc` what a checkpoint stores beside its weights (`vlc.use.export.folder`)."""

    model_type = "vlc"


def register() -> None:
    AutoConfig.register(VLCConfig.model_type, VLCConfig, exist_ok=True)
