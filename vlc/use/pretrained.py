"""Opening a trained checkpoint for use: its model on a device, with the tokenizer and the image pipeline of its training.

Our checkpoints store all of this; for published checkpoints the configuration has to state it.
"""

import math
import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from vlc.checkpoint import weights
from vlc.common.errors import UserError
from vlc.configuration import own_tasks
from vlc.configuration.aliases import FLAT_NAMES
from vlc.configuration.groups import ModelSettings, keys
from vlc.configuration.settings import Settings, check_keys
from vlc.configuration.task_settings import HeadSettings, flat_head, make_options, task_names
from vlc.configuration.use_settings import without_use_keys
from vlc.configuration.values import check_types
from vlc.data.catalog import CATALOG
from vlc.data.pieces import require_same_pieces
from vlc.data.tokens import TextEncoder, load_tokenizer, stored_tokenizer
from vlc.data.transforms import PIXELS, TRANSFORMS
from vlc.data.vocabulary import Vocabulary, data_vocabulary, stored_vocabularies
from vlc.hardware.onednn import suits_onednn, use_onednn
from vlc.model.sizes import ENCODERS, EncoderConfig
from vlc.objectives.kinds import KINDS
from vlc.objectives.options import AnswersOptions, Options
from vlc.tasks import HEADS, TASKS
from vlc.training.module import module_of

# Keys that are taken from the checkpoint unless the user gives them. Which heads it has is read from its weights.
_OF_THE_MODEL = set(keys(ModelSettings)) - {"loss_names", "use_mae"}
_OF_THE_MODEL |= {"image_size", "max_text_len", "tokenizer"}
_OF_THE_MODEL |= {"mae_weight", "wpa_weight", "vqav2_label_size", "answers", "hard_negatives"}  # options of its heads
_BATCH = 32  # where per_gpu_batchsize is not given
_TYPES = "encoder.token_types.weight"


def opened(config: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """Return the fields of the `Model` of a configuration's load_path.

    loss_names or tasks, where given, choose among the heads. Raises UserError where the checkpoint cannot be used this way.

    given: the keys that the user stated; their values win over the checkpoint's.
    """
    if not config["load_path"]:
        raise UserError("load_path=CHECKPOINT is missing: what should answer?")
    found = weights.read(config["load_path"])
    own_tasks.enter_stored(found.path, found.extras.get("rows", {}))
    stored = found.extras.get("config") or {}
    if not stored and (flags := found.extras.get("arguments")):  # of an older run of main_finetune.py
        from vlc.configuration.config import resolve  # here, as Sacred is not needed otherwise

        vit = f"mae_{str(flags.get('model')).removeprefix('mae_')}"
        stored = {**resolve(vit=vit), "image_size": flags.get("input_size")}
    own = {key: stored[key] for key in _OF_THE_MODEL & set(stored) - set(given)}
    _check_sizes(found, own)
    batch = {"per_gpu_batchsize": config["per_gpu_batchsize"] or _BATCH}
    of_tasks = {name: {**config[name], **batch} for name in task_names(config["tasks"])}
    own["multitask"] = {}  # which is for training; the checkpoint shows whether it has task tokens
    settings = Settings.from_config({**without_use_keys(config), **own, **batch, **of_tasks})
    if {"loss_names", "tasks"} & set(given):
        heads = tuple({head.name: head for task in settings.tasks for head in task.heads}.values())
    else:
        heads = _heads(found, settings)
    task_tokens = _task_tokens(found, config, given, heads)
    settings = replace(settings, tasks=(replace(settings.tasks[0], name="", heads=heads),))
    reads_texts = not all(KINDS[head.kind].images_alone for head in heads)
    languages = found.extras["languages"] if reads_texts and weights.LANGUAGES in found.state else ()
    if (said := settings.languages.of_texts) and said not in languages:
        known = ", ".join(languages) or "none"
        raise UserError(f"languages.of_texts={said}, but {found.path} has embeddings of these languages: {known}")
    if reads_texts and not {weights.WORDS, _TYPES} <= found.state.keys():
        raise UserError(f"{found.path} (layout {found.layout.name}) is of images alone: nothing here can use it")
    sizes = {
        name: len(found.state[name]) if reads_texts else least for name, least in ((weights.WORDS, 1), (_TYPES, 2))
    }
    tokenizer = None
    if sizes[weights.WORDS] > 1:  # 1: image_only=True
        tokenizer = _tokenizer(found, settings, given="tokenizer" in given, named="tokenizer" in own)
    vocabularies = _vocabularies(found, settings)
    module = module_of(
        settings,
        tokenizer,
        sizes[weights.WORDS],
        num_images=sizes[_TYPES] - 1,
        vocabularies=vocabularies,
        task_tokens=found.extras.get("task_tokens", ()) if task_tokens else (),
        languages=languages,
    )
    weights.load(module, found, complete=True)
    device = _device(settings)
    if device.type == "cpu" and suits_onednn(settings.model.size.width, half=settings.run.precision == "bf16-mixed"):
        use_onednn(module)
    encoder = None if tokenizer is None else TextEncoder(tokenizer, settings.data.max_text_len)
    images = _image_preprocessing(found, settings.model.size, reads_texts)
    fields = {"settings": settings, "module": module.eval().to(device), "device": device}
    return fields | {"text_encoder": encoder, "task_tokens": task_tokens, "tokenizer": tokenizer} | images


def _task_tokens(
    found: weights.Checkpoint, config: Mapping[str, Any], given: Collection[str], heads: Collection[HeadSettings]
) -> dict[str, str]:
    """Return the task whose token each head gets; empty where the checkpoint has no task tokens.

    It is the first of the given tasks that has the head, or else the first task of the training. Raises UserError where
    the user says that there are no tokens, or names a task that has none.
    """
    known = found.extras.get("task_tokens", ()) if weights.TASK_TOKENS in found.state else ()
    listed = ", ".join(known)
    if "multitask" in given and config["multitask"]["task_tokens"] != bool(known):
        has = f"was trained with tokens of its tasks ({listed})" if known else "has no task tokens"
        raise UserError(f"{found.path} {has}: pass multitask.task_tokens={bool(known)}, or leave it out")
    if not known:
        return {}
    chosen = task_names(config["tasks"]) if "tasks" in given else known
    if new := [name for name in chosen if name not in known]:
        raise UserError(f"{found.path} has no token of task {new[0]}: name tasks whose tokens it has ({listed})")
    tokens: dict[str, str] = {}
    for name, row in ((name, TASKS[name]) for name in chosen if name in TASKS):
        for kind in row.objectives:
            tokens.setdefault(row.head(kind), name)
    if homeless := [head.name for head in heads if head.name not in tokens]:
        raise UserError(
            f"{found.path} has a token for each of {listed}, and the head {homeless[0]} belongs to none of "
            f"{', '.join(chosen)}: pass tasks=[...]"
        )
    return {head.name: tokens[head.name] for head in heads}


def _device(settings: Settings) -> torch.device:
    gpus = settings.run.num_gpus
    if gpus and torch.cuda.is_available():
        own = gpus if isinstance(gpus, tuple) else range(torch.cuda.device_count())
        return torch.device("cuda", own[int(os.environ.get("LOCAL_RANK", 0)) % len(own)])  # one for each process
    return torch.device("cpu")


def _tokenizer(found: weights.Checkpoint, settings: Settings, *, given: bool, named: bool) -> PreTrainedTokenizerFast:
    """Return the tokenizer that the user names (given), or the checkpoint stores, or an older checkpoint names."""
    if "tokenizer" in found.extras and not given:
        return stored_tokenizer(found.extras["tokenizer"], str(found.path))
    tokenizer = load_tokenizer(settings.data.tokenizer, stored=named)
    require_same_pieces(found.extras.get("tokenizer"), tokenizer, str(found.path))
    return tokenizer


def _image_preprocessing(found: weights.Checkpoint, size: EncoderConfig, reads_texts: bool) -> dict[str, str]:
    """Return image pipeline and normalisation: the checkpoint's, or in older ones the encoder's."""
    images = size.preprocessing if reads_texts else size.preprocessing | {"pipeline": "central_crop"}
    images = images | found.extras.get("preprocessing", {})
    for name, known in (("pipeline", TRANSFORMS), ("pixels", PIXELS)):
        if images[name] not in known:
            raise UserError(f"{found.path} is damaged: its {name} is {images[name]!r}, not one of {', '.join(known)}")
    return {name: images[name] for name in size.preprocessing}


def _check_sizes(found: weights.Checkpoint, own: Mapping[str, Any]) -> None:
    """Raise UserError where the sizes in the checkpoint's configuration differ from its tables.

    Otherwise a table of a damaged size would be allocated before it is compared.
    """
    positions = "encoder.text_embeddings.position_embeddings.weight"
    sizes = {"max_text_len": len(found.state[positions])} if positions in found.state else {}
    stored = _stored_options(found)
    for head, size in _answer_heads(found).items():
        if head not in stored and (key := FLAT_NAMES.get((HEADS[head].kind, "num_answers"))):
            sizes[key] = size
    vit, table = ENCODERS.get(str(own.get("vit"))), found.state.get("encoder.pos_embed")
    if vit is not None and vit.learned_grid is None and table is not None and table.ndim == 3:
        sizes["image_size"] = math.isqrt(max(table.shape[1] - 1, 0)) * vit.patch_size
    for key in sizes.keys() & own.keys():
        if own[key] != sizes[key]:
            raise UserError(
                f"{found.path} is damaged: its configuration says {key}={own[key]!r}, its weights {sizes[key]}. "
                f"Pass {key}=... if you know the right one."
            )


def _names(found: weights.Checkpoint) -> list[str]:
    """Return the names of the checkpoint's heads."""
    return list(dict.fromkeys(key.split(".")[1] for key in found.state if key.startswith("objectives.")))


def _heads(found: weights.Checkpoint, settings: Settings) -> tuple[HeadSettings, ...]:
    """Return the known heads of the checkpoint, with the options of their training."""
    names = sorted(set(_names(found)) & set(HEADS), key=lambda name: (list(KINDS).index(HEADS[name].kind), name))
    if not names:
        raise UserError(f"{found.path} has no head for any of {', '.join(HEADS)}: it can answer nothing")
    heads, stored = [flat_head(name, 1.0, settings.options) for name in names], _stored_options(found)
    return tuple(replace(head, options=_options(found, head, stored.get(head.name, head.options))) for head in heads)


def _options(found: weights.Checkpoint, head: HeadSettings, options: Options) -> Options:
    """Return the options of a head; what its stored parameters show of them counts more."""
    prefix = f"objectives.{head.name}."
    state = {name.removeprefix(prefix): value for name, value in found.state.items() if name.startswith(prefix)}
    return KINDS[head.kind].options_of(options, state)


def _answer_heads(found: weights.Checkpoint) -> dict[str, int]:
    """Return the number of answers of each head of the checkpoint that has a vocabulary."""
    return {
        name: len(found.state[layer])
        for name in _names(found)
        if name in HEADS and KINDS[HEADS[name].kind].answers_from_vocabulary
        for layer in (f"objectives.{name}.{last}.weight" for last in weights.ANSWER_LAYERS)
        if layer in found.state
    }


def _stored_options(found: weights.Checkpoint) -> dict[str, Options]:
    """Return the options of the heads of named tasks, by head, from the checkpoint's configuration.

    Raises UserError where it is damaged: otherwise a head of a damaged size would be allocated before it is compared.
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
        known = options.get(head)
        if isinstance(known, AnswersOptions) and known.num_answers != size:
            raise UserError(
                f"{found.path} is damaged: its configuration says that {head} has {known.num_answers} answers, its "
                f"weights {size}"
            )
    return options


def _vocabularies(found: weights.Checkpoint, settings: Settings) -> dict[str, Vocabulary]:
    """Return the vocabulary of each head that has one: the checkpoint's, or else the data's."""
    task = settings.tasks[0]
    heads = [head.name for head in task.heads if KINDS[head.kind].answers_from_vocabulary]
    vocabularies = stored_vocabularies(found.extras, heads)  # with the names of image classes
    for head in heads:
        if not vocabularies.get(head, Vocabulary()).answers:
            if not settings.data.data_root:
                having = (name for name, spec in CATALOG.items() if "answer_labels" in spec.fields)
                raise UserError(
                    f"{found.path} does not hold the answers of its labels: pass data_root=FOLDER and "
                    f"datasets=[{next(having)}], the arrow files that do"
                )
            vocabularies[head] = data_vocabulary(task.datasets, settings.data.data_root, settings.data.data_cache)
    return vocabularies
