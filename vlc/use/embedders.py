"""The embeddings of a contrastive head in the forms that other projects' evaluations ask for: CLIP_benchmark and mteb.

Neither package is imported before it is needed, and neither has to be installed for the other one.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from vlc.common.errors import UserError
from vlc.common.inputs import Text
from vlc.use.model import Model

_SQUARE = ("mae_test", "central_crop", "keep_shape")  # pipelines whose images all have one shape
Loaded = tuple["ClipModel", Callable[[Image.Image], Tensor], Callable[[list[str]], Tensor]]


class ClipModel(nn.Module):
    """A model as CLIP_benchmark (LAION) and open_clip see one: images and tokenised texts -> unit vectors (N, D) float32.

    Raises UserError where the checkpoint has no contrastive head, and where its images have several shapes.
    """

    def __init__(self, model: Model):
        super().__init__()
        _ = model.contrast, model.tokens  # or their errors
        if model.pipeline not in _SQUARE:
            raise UserError(
                f"{model.path} prepares images by {model.pipeline}, in several shapes, which CLIP_benchmark cannot stack"
            )
        self.model = model

    def prepared(self, image: Image.Image) -> Tensor:
        """Prepare a picture as the checkpoint's evaluation did: (3, H, W) uint8."""
        return self.model.prepared(image)

    def tokenized(self, texts: list[str]) -> Tensor:
        """Token ids (N, L) int64; padding has the tokenizer's id for it."""
        return self.model.text(texts).ids

    @torch.inference_mode()
    def encode_image(self, images: Tensor) -> Tensor:
        """Prepared images (N, 3, H, W) uint8 -> unit vectors (N, D)."""
        return self.model.image_vectors(list(images.to(self.model.device)))

    @torch.inference_mode()
    def encode_text(self, ids: Tensor) -> Tensor:
        """Token ids (N, L) -> unit vectors (N, D)."""
        model, ids = self.model, ids.to(self.model.device)
        text = Text(ids, (ids != model.tokens.pad_id).long(), languages=model.languages(len(ids)))
        return model.tokenized_text_vectors(text)


def load_clip(model_name: str = "", pretrained: str = "", cache_dir: str | None = None, device: Any = "cpu") -> Loaded:
    """Return model, transform and tokenizer of a checkpoint, as CLIP_benchmark's `load_clip` does.

    model_name: has no effect; CLIP_benchmark's tables name the model by it.
    pretrained: the checkpoint, or a folder of `save_pretrained`.
    """
    on_cpu: dict[str, Any] = {"num_gpus": 0} if torch.device(device).type == "cpu" else {}
    model = ClipModel(Model.from_pretrained(pretrained, **on_cpu))
    return model, model.prepared, model.tokenized


def register_clip_benchmark() -> None:
    """Enter `load_clip` into CLIP_benchmark as --model_type vlc. Raises UserError where the package is missing."""
    try:
        from clip_benchmark import models
    except ImportError as error:
        raise UserError('CLIP_benchmark is missing: pip install "clip-benchmark"') from error
    models.TYPE2FUNC["vlc"] = load_clip
    if "vlc" not in models.MODEL_TYPES:
        models.MODEL_TYPES.append("vlc")


class MTEBEncoder:
    """A model as mteb 2 sees an encoder (Muennighoff et al. 2023; of images Xiao et al. 2025, MIEB).

    name: of the model in mteb's results, ORGANISATION/NAME; empty: local/ and the name of the checkpoint.
    Raises UserError where the checkpoint has no contrastive head.
    """

    def __init__(self, model: Model, name: str = ""):
        _ = model.contrast  # or its error
        self.model = model
        self.name = name or f"local/{model.path.stem}"

    @property
    def mteb_model_meta(self) -> Any:
        """mteb's description of the model. Raises UserError where the package is missing."""
        try:
            from mteb.models import ModelMeta
        except ImportError as error:
            raise UserError('mteb is missing: pip install "mteb[image]"') from error
        size, data = self.model.settings.model.size, self.model.settings.data
        known = {"name": self.name, "revision": "local", "embed_dim": size.width, "max_tokens": data.max_text_len}
        known |= {"modalities": ["image", "text"], "open_weights": False, "framework": ["PyTorch"]}
        return ModelMeta.create_empty(overwrites=known)

    def get_text_embeddings(self, texts: Iterable[Mapping[str, Any]], **options: Any) -> np.ndarray:
        """Batches with texts -> unit vectors (N, D) float32."""
        return np.concatenate([self.model.embed(texts=list(batch["text"])) for batch in texts])

    def get_image_embeddings(self, images: Iterable[Mapping[str, Any]], **options: Any) -> np.ndarray:
        """Batches with pictures -> unit vectors (N, D) float32."""
        return np.concatenate([self.model.embed(images=list(batch["image"])) for batch in images])

    def get_fused_embeddings(self, inputs: Iterable[Mapping[str, Any]], **options: Any) -> np.ndarray:
        """Batches with texts, pictures or both -> vectors (N, D) float32: of both the sum, at unit length."""
        batches = list(inputs)
        if "image" not in batches[0]:
            return self.get_text_embeddings(batches)
        if "text" not in batches[0]:
            return self.get_image_embeddings(batches)
        both = self.get_text_embeddings(batches) + self.get_image_embeddings(batches)
        return both / np.linalg.norm(both, axis=1, keepdims=True)

    def encode(self, inputs: Iterable[Mapping[str, Any]], **options: Any) -> np.ndarray:
        """Embed batches by what they hold; options say of which task they are, and have no effect."""
        return self.get_fused_embeddings(inputs)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines of all pairs of unit vectors, (N, M)."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosines of unit vectors with the same number, (N,)."""
        return torch.linalg.vecdot(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2))
