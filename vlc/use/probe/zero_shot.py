"""Zero-shot classification: images are matched with texts that name the classes (CLIP: Radford et al. 2021, 3.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from vlc.use.model import Model


def prompts(names: Sequence[str], templates: Sequence[str]) -> list[list[str]]:
    """The texts of each class: its name in each template, in the place of {}."""
    return [[template.replace("{}", name) for template in templates] for name in names]


class ZeroShot:
    """Scores images against classes by a head that compares images with texts.

    A contrastive head compares an image with the mean of the embeddings of a class's texts, at unit length. Another ranking
    head scores an image with every text, and a class has the mean of the scores of its texts.
    """

    def __init__(self, model: Model, texts: Sequence[Sequence[str]]):
        self.model, self.texts = model, texts
        self.by_embeddings = "itc" in model.settings.tasks[0].kinds
        if self.by_embeddings:
            made = [F.normalize(torch.from_numpy(model.embed(texts=own)).mean(dim=0), dim=0) for own in texts]
            self._classes = torch.stack(made).to(model.device)

    @torch.inference_mode()
    def scores(self, images: Sequence[Tensor]) -> Tensor:
        """Prepared images -> (N, C) float32, on the CPU."""
        if self.by_embeddings:
            return (self.model.image_vectors(images) @ self._classes.T).cpu()
        flat = [text for own in self.texts for text in own]
        rows = [torch.cat([self.model.match(chunk, [one]) for chunk in self.model.chunks(flat)]) for one in images]
        return torch.stack(rows).unflatten(1, (len(self.texts), -1)).mean(dim=2).cpu()


def can_compare(model: Model) -> bool:
    """Whether the checkpoint has a head that compares images with texts."""
    return "itc" in model.settings.tasks[0].kinds or model.ranking is not None
