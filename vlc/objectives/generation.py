"""Generation: texts are written token by token, as translations of a text with its image, or as captions of an image.

One pass encodes the text that is read and the image as a prefix, whose tokens see each other. Behind it stands the text to
write, whose tokens see the prefix and the tokens before them. UniLM (Dong et al. 2019) and T5 (Raffel et al. 2020, "prefix
LM") have this attention.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vlc.data.batch import Batch
from vlc.data.parts import Part, SourceAndTarget
from vlc.data.tokens import TextEncoder
from vlc.model.decoding import BeamSearch, Continuation, Hypothesis
from vlc.model.embed import init_bert_weights
from vlc.model.encoder import Encoder
from vlc.model.passes import Pass
from vlc.model.segments import Encoded
from vlc.objectives.base import ModelContext, Objective, Outcome, accuracy, mean_ratio, mlm_transform
from vlc.objectives.options import GenerationOptions

_PARAMETERS = ("dense.weight", "dense.bias", "LayerNorm.weight", "LayerNorm.bias")


class Generation(Objective[GenerationOptions]):
    """Cross entropy of each next token, with smoothed labels in training; logits (N, vocabulary) are of real tokens alone.

    The head has the layers of masked language modelling, and starts as them where a checkpoint has them.
    """

    metrics = ("loss", "accuracy")
    headline = "accuracy"
    reads_pooled = False
    needs_images = False
    starts_from: Mapping[str, str] = {
        **{f"transform.{name}": f"mlm.transform.{name}" for name in _PARAMETERS},
        "decoder.weight": "mlm.decoder.weight",
        "decoder.bias": "mlm.decoder.bias",
    }

    @classmethod
    def parts(cls, options: GenerationOptions) -> tuple[Part, ...]:
        return (SourceAndTarget(options.target, options.languages, options.max_target_len),)

    def __init__(self, options: GenerationOptions, context: ModelContext):
        super().__init__(options, context)
        self.transform = mlm_transform(context.width)
        self.decoder = nn.Linear(context.width, context.vocab_size)
        self.apply(init_bert_weights)

    def passes(self, batch: Batch) -> tuple[Pass, ...]:
        """None for a batch without texts to learn from."""
        part = batch.parts.get("source_and_target")
        return () if part is None or part.target is None else (self._pass(batch),)

    @staticmethod
    def _pass(batch: Batch) -> Pass:
        return Pass(("source", "target") if batch.images is None else ("source", "image", "target"))

    def forward(self, encoded: Mapping[Pass, Encoded], batch: Batch) -> Outcome:
        if not self.passes(batch):
            return Outcome(None)
        part = batch.parts["source_and_target"]
        logits = self.logits(encoded[self._pass(batch)]["target"].flatten(0, 1)[part.positions])
        smoothing = self.options.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits.float(), part.labels, label_smoothing=smoothing)
        count = len(part.labels)
        return Outcome(loss, {"loss": mean_ratio(loss, count), "accuracy": accuracy(logits, part.labels)}, logits)

    def logits(self, states: Tensor) -> Tensor:
        """States of tokens (N, D) -> logits of the tokens that follow them (N, vocabulary)."""
        return self.decoder(self.transform(states))

    @torch.inference_mode()
    def written(self, encoder: Encoder, batch: Batch, tokens: TextEncoder) -> list[Hypothesis]:
        """Return the text that the search finds for each example of a normalised batch; the batch needs no targets."""
        source = batch.parts["source_and_target"].source
        prefix = [encoder.embed_text(source, "source")]
        if batch.images is not None:
            pixels, sizes = batch.images_at(0)
            prefix.append(encoder.embed_images(pixels, sizes=sizes))
        options = self.options
        behind = Continuation(encoder, prefix, source.mask.sum(1), beams=options.beams, task=batch.task)
        never = torch.tensor([tokens.pad_id, tokens.cls_id, tokens.mask_id], device=source.ids.device)

        def log_probs(ids: Tensor, continued: Tensor) -> Tensor:
            logits = self.logits(behind.step(ids, continued)).float()
            return logits.index_fill(1, never, float("-inf")).log_softmax(1)

        search = BeamSearch(tokens.cls_id, tokens.sep_id, options.beams, options.length_penalty, options.max_target_len)
        return search(log_probs, len(batch), source.ids.device)
