"""A trained checkpoint opened for use: its model on a device, with the tokenizer and the images as it wants them.

Our checkpoints tell all of this themselves; for published ones the configuration has to.
"""

import math
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from vlc.checkpoint import weights
from vlc.common.errors import MissingFile, UserError
from vlc.common.inputs import Images
from vlc.configuration.aliases import FLAT_NAMES
from vlc.configuration.settings import ModelSettings, Settings, check_keys
from vlc.configuration.task_settings import HeadSettings, flat_head, make_options, task_names
from vlc.configuration.values import check_types
from vlc.data.catalog import CATALOG
from vlc.data.images import UndecodableImage, open_image
from vlc.data.stacking import stack_images
from vlc.data.tokens import TextEncoder, load_tokenizer, vocabulary
from vlc.data.transforms import normalize, transform
from vlc.data.vocabulary import Vocabulary, data_vocabulary, stored_vocabularies
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.model.segments import Segment
from vlc.model.sizes import ENCODERS
from vlc.objectives.kinds import KINDS
from vlc.objectives.options import Options
from vlc.tasks import HEADS, TASKS
from vlc.training.module import VLCModule

# What a checkpoint's own configuration decides, unless the command line states it. Which heads there are, its content does.
_OF_THE_MODEL = {field.name for field in fields(ModelSettings)} - {"loss_names", "use_mae"}
_OF_THE_MODEL |= {"image_size", "max_text_len", "tokenizer"}
_OF_THE_MODEL |= {"mae_weight", "wpa_weight", "vqav2_label_size", "hard_negatives"}  # options of its heads
_BATCH = 32  # where per_gpu_batchsize is not given
_WORDS = "encoder.text_embeddings.word_embeddings.weight"
_TYPES = "encoder.token_types.weight"


@dataclass(frozen=True)
class Pretrained:
    """module: encoder and all heads of the file, in evaluation. text_encoder: None for a model of images alone."""

    settings: Settings
    module: VLCModule
    tokenizer: PreTrainedTokenizerFast | None
    text_encoder: TextEncoder | None
    device: torch.device

    @property
    def path(self) -> Path:
        return Path(self.settings.run.load_path)

    def image(self, data: pa.Buffer, name: str) -> Tensor:
        """An encoded image, whole, in the model's size: (3, H, W) uint8. Raises UserError, with its name."""
        try:
            return self.transform(open_image(data), np.random.default_rng(0))
        except UndecodableImage as error:
            raise UserError(f"Image {name} cannot be decoded ({error})") from error

    def stacked(self, rows: list[list[Tensor]]) -> Images:
        """Rows of K images (3, h, w) uint8, on the device and as the encoder takes them."""
        images = stack_images(rows).to(self.device)
        return replace(images, pixels=normalize(images.pixels, self.settings.model.size.pixels))

    def tokens(self, images: list[Tensor]) -> Segment:
        """Images embedded for the encoder, a row each."""
        pixels, sizes = self.stacked([[image] for image in images]).at(0)
        return self.module.encoder.embed_images(pixels, sizes=sizes)

    @property
    def transform(self):
        """Pictures -> (3, H, W) uint8, whole and not augmented, whatever training did."""
        pipeline = "mae_test" if self.settings.model.size.learned_grid is None else "pixelbert"
        return transform(pipeline, self.settings.data.image_size)

    def forward_context(self) -> AbstractContextManager:
        """Half precision on a GPU, as `precision` says."""
        precision = self.settings.run.precision
        if (self.device.type == "cpu" and precision != "bf16-mixed") or precision in (32, "32-true"):
            return nullcontext()
        half = torch.bfloat16 if self.device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16
        return torch.autocast(self.device.type, half)


def open_image_file(model: Pretrained, path: str) -> Tensor:
    """An image file, whole, in the model's size: (3, H, W) uint8. Raises MissingFile or UserError."""
    if not Path(path).is_file():
        raise MissingFile(f"Image {path} " + ("is a folder: name a file" if Path(path).is_dir() else "does not exist"))
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"Image {path} cannot be read: {error.strerror}") from error
    return model.image(pa.py_buffer(content), path)


def open_pretrained(config: Mapping[str, Any], given: Collection[str]) -> Pretrained:
    """The checkpoint load_path of a configuration; given: the keys that the user stated, which win over the checkpoint's.

    loss_names, where given, chooses among the heads. Raises UserError where the checkpoint cannot be used this way.
    """
    if not config["load_path"]:
        raise UserError("load_path=CHECKPOINT is missing: what should answer?")
    found = weights.read(config["load_path"])
    stored = found.extras.get("config") or {}
    own = {key: stored[key] for key in _OF_THE_MODEL & set(stored) - set(given)}
    _check_sizes(found, own)
    batch = {"per_gpu_batchsize": config["per_gpu_batchsize"] or _BATCH}
    settings = Settings.from_config({**config, **own, **batch})
    if {"loss_names", "tasks"} & set(given):
        heads = tuple({head.name: head for task in settings.tasks for head in task.heads}.values())
    else:
        heads = _heads(found, settings)
    settings = replace(settings, tasks=(replace(settings.tasks[0], name="", heads=heads),))
    for name in (_WORDS, _TYPES):
        if name not in found.state:
            raise UserError(f"{found.path} (layout {found.layout.name}) is of images alone: nothing here can use it")
    sizes = {name: len(found.state[name]) for name in (_WORDS, _TYPES)}
    tokenizer = None
    if sizes[_WORDS] > 1:  # 1: image_only=True
        tokenizer = load_tokenizer(settings.data.tokenizer, stored="tokenizer" in own)
    pad_token_id, vocab_size = vocabulary(tokenizer, sizes[_WORDS])
    module = VLCModule(
        settings.model,
        settings.tasks,
        image_size=settings.data.image_size,
        max_text_len=settings.data.max_text_len,
        vocab_size=vocab_size,
        pad_token_id=pad_token_id,
        num_images=sizes[_TYPES] - 1,
        vocabularies=_vocabularies(found, settings),
    )
    weights.load(module, found, complete=True)
    gpus = settings.run.num_gpus
    device = torch.device("cpu")
    if gpus and torch.cuda.is_available():
        device = torch.device("cuda", gpus[0] if isinstance(gpus, tuple) else 0)
    half = settings.run.precision == "bf16-mixed"
    if device.type == "cpu" and suits_onednn(settings.model.size.width, half=half):
        use_onednn(module)
    encoder = tokenizer and TextEncoder(tokenizer, settings.data.max_text_len)
    return Pretrained(settings, module.eval().to(device), tokenizer, encoder, device)


def _check_sizes(found: weights.Checkpoint, own: Mapping[str, Any]) -> None:
    """Raise UserError where the checkpoint's configuration asks for tables of other sizes than it has.

    A damaged number would otherwise be allocated before it is compared.
    """
    positions = "encoder.text_embeddings.position_embeddings.weight"
    sizes = {"max_text_len": len(found.state[positions])} if positions in found.state else {}
    stored = _stored_options(found)
    for head, size in _answer_heads(found).items():
        if head not in stored:
            sizes[FLAT_NAMES[HEADS[head].kind, "num_answers"]] = size
    size, positions = ENCODERS.get(str(own.get("vit"))), found.state.get("encoder.pos_embed")
    if size is not None and size.learned_grid is None and positions is not None and positions.ndim == 3:
        sizes["image_size"] = math.isqrt(max(positions.shape[1] - 1, 0)) * size.patch_size
    for key in sizes.keys() & own.keys():
        if own[key] != sizes[key]:
            raise UserError(
                f"{found.path} is damaged: its configuration says {key}={own[key]!r}, its weights {sizes[key]}. "
                f"Pass {key}=... if you know the right one."
            )


def _names(found: weights.Checkpoint) -> list[str]:
    """The names of the heads that the checkpoint has."""
    return list(dict.fromkeys(key.split(".")[1] for key in found.state if key.startswith("objectives.")))


def _heads(found: weights.Checkpoint, settings: Settings) -> tuple[HeadSettings, ...]:
    """The heads of the checkpoint that are known, with the options that it was trained with."""
    names = sorted(set(_names(found)) & set(HEADS), key=lambda name: (list(KINDS).index(HEADS[name].kind), name))
    if not names:
        raise UserError(f"{found.path} has no head for any of {', '.join(HEADS)}: it can answer nothing")
    heads, stored = [flat_head(name, 1.0, settings.options) for name in names], _stored_options(found)
    return tuple(replace(head, options=stored.get(head.name, head.options)) for head in heads)


def _answer_heads(found: weights.Checkpoint) -> dict[str, int]:
    """The heads of the checkpoint that give answers, and how many each gives."""
    layers = {
        name: found.state.get(f"objectives.{name}.classifier.3.weight") for name in _names(found) if name in HEADS
    }
    return {
        name: len(layer)
        for name, layer in layers.items()
        if layer is not None and KINDS[HEADS[name].kind].answers_from_vocabulary
    }


def _stored_options(found: weights.Checkpoint) -> dict[str, Options]:
    """The options of the heads that named tasks trained, by head, as the checkpoint's configuration tells them.

    Raises UserError where it is damaged: a damaged number would otherwise be allocated before it is compared.
    """
    config = found.extras.get("config") or {}
    try:
        check_keys({key: config[key] for key in ("tasks", *TASKS) if key in config})
        options: dict[str, Options] = {}
        for task in task_names(config.get("tasks", ())):
            for kind, values in ((kind, config.get(task, {}).get(kind, {})) for kind in TASKS[task].objectives):
                own = options[TASKS[task].head(kind)] = make_options(kind, values)
                check_types(own, f"{task}.{kind}")
    except UserError as error:
        raise UserError(f"{found.path} is damaged: in its configuration {error}") from error
    for head, size in _answer_heads(found).items():
        if head in options and options[head].num_answers != size:
            raise UserError(
                f"{found.path} is damaged: its configuration says that {head} has {options[head].num_answers} answers, its "
                f"weights {size}"
            )
    return options


def _vocabularies(found: weights.Checkpoint, settings: Settings) -> dict[str, Vocabulary]:
    """The vocabulary of each head that gives answers: the checkpoint's, or else that of the data."""
    task = settings.tasks[0]
    heads = [head.name for head in task.heads if KINDS[head.kind].answers_from_vocabulary]
    vocabularies = stored_vocabularies(found.extras, heads)
    for head in heads:
        if not vocabularies.get(head, Vocabulary()).answers:
            if not settings.data.data_root:
                having = (name for name, spec in CATALOG.items() if "answer_labels" in spec.fields)
                raise UserError(
                    f"{found.path} does not tell the answers that its labels stand for: pass data_root=FOLDER and "
                    f"datasets=[{next(having)}], the arrow files that do"
                )
            vocabularies[head] = data_vocabulary(task.datasets, settings.data.data_root, settings.data.data_cache)
    return vocabularies
