"""VLCModel: a checkpoint as a model of transformers, which AutoModel returns for our folders."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from vlc.common.errors import UserError
from vlc.use.auto.config import VLCConfig

if TYPE_CHECKING:
    from vlc.use.model import Model

# Arguments that AutoModel hands on and that change nothing here: code of a folder is never run.
_WITHOUT_EFFECT = ("trust_remote_code", "adapter_kwargs", "use_safetensors", "low_cpu_mem_usage")


@dataclass
class VLCOutput(ModelOutput):
    """What a pass gives.

    last_hidden_state: the encoded tokens of text and image (B, L + 1 + P, D); the image begins with its class token.
    pooler_output: (B, D).
    logits: of each head that can say something of text and images alone, by the head's name.
    """

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    logits: dict[str, Tensor] | None = None


class VLCModel(PreTrainedModel):
    """The encoder and the heads of an opened checkpoint, under the names of parameters that our checkpoints have.

    opened: the checkpoint. Without it there is nothing to build the model from, and UserError is raised.
    """

    config_class = VLCConfig
    main_input_name = "pixel_values"

    def __init__(self, config: VLCConfig, opened: "Model | None" = None):
        super().__init__(config)
        if opened is None:
            raise UserError(
                "A vlc model is made from its weights: call AutoModel.from_pretrained(FOLDER), not from_config"
            )
        self.opened = opened
        self.encoder, self.objectives = opened.module.encoder, opened.module.objectives
        self.post_init()

    def init_weights(self) -> None:
        """Do nothing: the weights are the ones of the checkpoint."""

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing, likewise."""

    @classmethod
    def from_pretrained(  # type: ignore[override]  # fewer arguments than transformers has, and unknown ones are refused
        cls,
        pretrained_model_name_or_path: Any,
        *,
        config: VLCConfig | None = None,
        dtype: torch.dtype | Literal["auto"] = "auto",
        revision: str | None = None,
        **others: Any,
    ) -> "VLCModel":
        """Return the model of one of our folders, or of a name of the model hub, in evaluation mode.

        dtype: of the parameters; "auto": as in the file.
        revision: of a name of the model hub.
        Raises UserError for arguments that are not known here.
        """
        from vlc.checkpoint.hub import fetched
        from vlc.use.model import Model

        unknown = [name for name in others if not name.startswith("_") and name not in _WITHOUT_EFFECT]
        if unknown:
            raise UserError(f"AutoModel.from_pretrained of a vlc model does not know {', '.join(unknown)}")
        folder = fetched(str(pretrained_model_name_or_path), revision)
        model = cls(
            config or VLCConfig.from_pretrained(str(folder)), Model.from_checkpoint(folder, precision=32, num_gpus=0)
        )
        if isinstance(dtype, torch.dtype):
            model.to(dtype)  # type: ignore[arg-type]  # transformers' decorator hides what it takes
        return model.eval()

    def forward(
        self, input_ids: Tensor | None = None, attention_mask: Tensor | None = None, pixel_values: Tensor | None = None
    ) -> VLCOutput:
        """Compute text and images together.

        input_ids, attention_mask: (B, L) int64; None for a model of images alone.
        pixel_values: normalised images (B, 3, H, W), or (B, 2, 3, H, W) for heads that read two.
        The tokens that are returned belong to the text and the first image; beside them stands the token of the first task,
        where the model has tokens of tasks.
        """
        from vlc.common.inputs import Images, Text
        from vlc.data.batch import Batch
        from vlc.data.parts.masked_text import MaskedTokens

        assert pixel_values is not None
        pixels = pixel_values[:, None] if pixel_values.ndim == 4 else pixel_values
        index, text = torch.arange(len(pixels), device=pixels.device), None
        segments = []
        if input_ids is not None:
            mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
            text = Text(input_ids, mask, languages=self.opened.languages(len(input_ids)))
            segments.append(self.encoder.embed_text(text))
        batch = Batch(index=index, split="predict", images=Images(pixels), text=text)
        if text is not None:
            hidden = (text.ids.flatten() == self.opened.tokens.mask_id).nonzero()[:, 0]
            if len(hidden):
                batch = batch.with_parts(masked_text=MaskedTokens(text, hidden, torch.zeros_like(hidden)))
        segments.append(self.encoder.embed_images(pixels[:, 0], image_type=None if text is None else 1))
        names = {
            name: head
            for name, head in self.objectives.items()
            if head.num_images(head.options) == pixels.shape[1] and (text is not None or head.images_alone)
        }
        task = next(iter(self.opened.task_tokens.values()), "")
        encoded = self.encoder.encode(segments, task=task)
        outcomes = self.opened.outcomes(names, batch)
        logits = {name: outcome.logits for name, outcome in outcomes.items() if outcome.logits.numel()}
        tokens = torch.cat([segment.tokens for segment in encoded.segments], dim=1)
        pooled = tokens[:, 0] if text is None else encoded.pooled
        return VLCOutput(tokens, pooled, logits)


def register() -> None:
    AutoModel.register(VLCConfig, VLCModel, exist_ok=True)
