"""LoRA: adapters of low rank are trained in place of the encoder's weights (Hu et al. 2022). The layers are peft's."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import nn

from vlc.checkpoint import adapters
from vlc.checkpoint.weights import Checkpoint
from vlc.common.errors import UserError
from vlc.configuration.groups import LoRASettings
from vlc.configuration.values import check_known, plain
from vlc.training.module import VLCModule
from vlc.training.optim import matching


def add_adapters(module: VLCModule, settings: LoRASettings, checkpoints: Sequence[Checkpoint]) -> str:
    """Freeze the weights of the encoder that stem from checkpoints, and put adapters beside its linear layers, in place.

    What no checkpoint has in this form is trained in full: heads, new parts, and tables with new or resized rows.

    checkpoints: those that the module was loaded from, as they were read; the last one is the base of the adapters.

    Returns a sentence that says how much is trained. Raises UserError where peft is missing, or a name matches no layer.
    """
    encoder = module.encoder
    layers = [name.rpartition(".")[2] for name, part in encoder.blocks.named_modules() if isinstance(part, nn.Linear)]
    targets = settings.targets or tuple(dict.fromkeys(layers))
    check_known(targets, set(layers), "layer in lora.targets")
    settings = replace(settings, alpha=settings.alpha or 2.0 * settings.rank, targets=targets)
    in_full = {one for pattern in settings.trains for one in matching(module, pattern, f"lora.trains={[pattern]}")}
    own, names = dict(module.named_parameters()), [_unchanged(module, checkpoint) for checkpoint in checkpoints]
    frozen = {own[name] for one in names for name in one if name in own} - in_full
    trained = [parameter for parameter in own.values() if parameter.requires_grad and parameter not in frozen]
    state = module.state_dict()
    of_base = {name: state[name] for name in names[-1] if own.get(name) not in in_full}
    module.extras["lora"] = plain(adapters.facts(of_base, checkpoints[-1].path, asdict(settings)))
    _inject(encoder, module.extras["lora"])
    for parameter in trained:
        parameter.requires_grad_()
    sizes = [parameter.numel() for parameter in module.parameters() if parameter.requires_grad]
    whole = sum(parameter.numel() for parameter in module.parameters())
    return (
        f"LoRA of rank {settings.rank} at {', '.join(targets)} of {len(encoder.blocks)} blocks: {sum(sizes):,} of "
        f"{whole:,} parameters are trained ({100 * sum(sizes) / whole:.2f} %)"
    )


def _unchanged(module: VLCModule, checkpoint: Checkpoint) -> list[str]:
    """Return the names of the encoder's parameters and buffers that are as a file has them."""
    return [
        name
        for name, value in module.state_dict().items()
        if name.startswith("encoder.")
        and (stored := checkpoint.state.get(name)) is not None
        and stored.shape == value.shape
        and torch.equal(stored.to(value.dtype), value)
    ]


def _inject(encoder: nn.Module, lora: Mapping[str, Any]) -> None:
    """Put peft's layers in place of linear layers. They freeze all parameters but the adapters."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError(f'lora.rank={lora["rank"]} needs peft: pip install -e ".[lora]"') from error
    config = LoraConfig(
        r=lora["rank"],
        lora_alpha=lora["alpha"],
        lora_dropout=lora["dropout"],
        target_modules=adapters.target_pattern(lora["targets"]),
    )
    inject_adapter_in_model(config, encoder)
