"""Checkpoints of this and other projects: read by recognising the file, loaded strictly with a report, exported.

Every parameter of a file is loaded, or is left out for a reason that the report names; anything else is an error.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from vlc.checkpoint import adapters, hub, timm_models
from vlc.checkpoint.families import fitting
from vlc.checkpoint.formats import LAYOUTS, WRITTEN, Layout
from vlc.checkpoint.hub import Numbers
from vlc.checkpoint.torch_file import StandIn
from vlc.checkpoint.weight_files import Weights, read_weights, save_safetensors
from vlc.common.errors import UnwritableFile, UserError
from vlc.common.files import write_atomically
from vlc.common.terminal import printable
from vlc.data.pieces import shared_pieces
from vlc.data.tokens import load_tokenizer, stored_tokenizer, tokenizer_to_store, vocabulary_size
from vlc.data.vocabulary import Vocabulary, stored_vocabularies
from vlc.model.embed import resize_positions
from vlc.model.encoder import Encoder
from vlc.objectives.base import Objective


@dataclass(frozen=True)
class Checkpoint:
    """A file's parameters under our names.

    dropped: keys that are left out on purpose.
    extras: the content that our own files have beside the parameters.
    heads, norm_eps, activation: of attention, of the layer norms and of the MLPs, as a config.json states them; None where
        there is none.
    """

    path: Path
    layout: Layout
    state: dict[str, Tensor]
    dropped: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    heads: int | None = None
    norm_eps: float | None = None
    activation: str | None = None


@dataclass
class LoadReport:
    """The names of all parameters by what was done with them; printed once.

    derived: parameters that start from another parameter of the file.
    misfits: new parameters that the file has in another shape.
    unused: parameters of heads and parts that this model does not have.
    """

    path: Path
    layout: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    derived: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    misfits: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows: list[tuple[str, list[str], str]] = [
            ("loaded", self.loaded, count_by_part(self.loaded)),
            ("resized", self.resized, ", ".join(self.resized)),
            ("started from others", self.derived, ", ".join(self.derived)),
            ("new", self.new, "; ".join([count_by_part(self.new), *self.misfits])),
            ("not in this model", self.unused, count_by_part(self.unused)),
            ("dropped on purpose", self.dropped, count_by_part(self.dropped)),
        ]
        rows = [row for row in rows if row[1] or row[0] not in ("started from others", "not in this model")]
        lines = [f"  {title:<20}{len(names):>4}  {text}".rstrip() for title, names, text in rows]
        return "\n".join(map(printable, [f"Checkpoint {self.path} (layout {self.layout})", *lines]))


def count_by_part(names: Iterable[str]) -> str:
    """Count names by their first two components: "encoder.blocks 144, objectives.mlm 5"."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    return ", ".join(f"{part} {count}" for part, count in counts.items())


def _weights(path: str | Path, part: str | None, base: Path | None) -> tuple[Weights, Numbers]:
    """Return the parameters at a path, or of a model of timm, and what is known of its heads, epsilon and activation."""
    if str(path).startswith(timm_models.PREFIX):
        return timm_models.weights(str(path))
    path = Path(path)
    if not part and (path / adapters.CONFIG).is_file():
        weights = _with_base(path, base or adapters.base_of(path))
    else:
        weights = read_weights(hub.find_weights(path) if path.is_dir() else path, part)
    return adapters.merged(weights), (None, None, None)


def _renamed(path: Path, layout: Layout, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the parameters of a file under our names, and the keys that are left out on purpose. Raises UserError."""
    renamed: dict[str, Tensor] = {}
    dropped, unknown = [], []
    try:
        joined = layout.joined(state)
    except (RuntimeError, LookupError) as error:
        raise UserError(
            f"{path} (layout {layout.name}) has queries, keys and values that do not fit together"
        ) from error
    for key, value in joined.items():
        try:
            name = layout.ours(key)
        except KeyError:
            unknown.append(key)
            continue
        if name is None:
            dropped.append(key)
        elif name in renamed:
            raise UserError(f"{path} (layout {layout.name}) holds {name} twice, once as {key}")
        else:
            renamed[name] = layout.shaped(name, value)
    if unknown:
        raise UserError(f"{path} (layout {layout.name}) has parameters without a place here: {', '.join(unknown)}")
    return renamed, dropped


def read(path: str | Path, part: str | None = None, base: Path | None = None) -> Checkpoint:
    """Read a checkpoint and recognise its layout by the keys it has. Adapters are merged into the weights.

    part: the name in the file that the weights lie under, such as "ema" for the moving average; None: the usual ones.
    base: the checkpoint that a folder of adapters belongs to; None: as the folder says.

    Takes the files of `vlc.checkpoint.weight_files`, whatever their suffix, folders of the model hub, folders of adapters,
    and timm:NAME. Raises MissingFile, or UserError if the file is no checkpoint, is damaged, is of no known layout, or has
    unknown parameters.
    """
    weights, numbers = _weights(path, part, base)
    path = weights.path
    if part and not weights.state:
        raise UserError(f"{path} holds no {part}: it is of a run without a moving average")
    layout = next((layout for layout in LAYOUTS.values() if layout.recognises(weights.state)), None)
    if layout is None:
        markers = ", ".join(f"{layout.name} ({layout.marker})" for layout in LAYOUTS.values())
        raise UserError(
            f"{path} is not of a known layout. Known, by a key each has: {markers}. "
            f"The file has {', '.join(list(weights.state)[:5]) or 'no parameters'}, ..."
        )
    renamed, dropped = _renamed(path, layout, weights.state)
    for name, tensor in renamed.items():
        axes = _AXES.get(name) or next(
            (axes for end, axes in _AXES_OF_HEADS.items() if name.endswith(end)), tensor.ndim
        )
        if tensor.ndim != axes:
            raise UserError(f"{path}: {name} has {tensor.ndim} axes, not {axes}")
    beside = path.name in hub.WEIGHTS and layout.name == "vlc" and not weights.extras
    extras = hub.stored_extras(path.parent, renamed) if beside else weights.extras
    extras = _checked_extras(path, extras, renamed)
    config = hub.checked_config(path.parent, renamed) if layout.hub else None
    head = renamed.get(f"{layout.answers}.weight")
    if config and head is not None and (names := hub.answers(path.parent, config, len(head))):
        extras = {"answers": names, **extras}
    if config:
        numbers = config["num_attention_heads"], config["layer_norm_eps"], None
    elif layout.vision:
        numbers = hub.vision_numbers(path.parent)
    checkpoint = Checkpoint(path, layout, renamed, tuple(dropped), extras, *numbers)
    tokenized = layout.text_only and any((path.parent / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    return with_tokenizer(checkpoint, str(path.parent)) if tokenized else checkpoint


def _with_base(folder: Path, base: Path) -> Weights:
    """Return the weights of a folder of adapters and of their base."""
    if (base / adapters.CONFIG).is_file():
        raise UserError(
            f"{folder} names adapters as its base: merge them first by python -m vlc.checkpoint {base} OUT.ckpt, and pass "
            "--base OUT.ckpt"
        )
    return adapters.completed(folder, base, read(base).state)


ANSWER_LAYERS = ("classifier.3", "decoder")  # the last layers of heads that give answers; each head has one of them
TASK_TOKENS = "encoder.task_tokens.weight"
LANGUAGES = "encoder.languages.weight"
WORDS = "encoder.text_embeddings.word_embeddings.weight"
# Of the parameters whose sizes are read before they are compared with a model's.
_AXES = {
    "encoder.patch_embed.proj.weight": 4,
    WORDS: 2,
    "encoder.text_embeddings.position_embeddings.weight": 2,
    "encoder.token_types.weight": 2,
    TASK_TOKENS: 2,
    LANGUAGES: 2,
}
_AXES_OF_HEADS = {f".{layer}.{part}": axes for layer in ANSWER_LAYERS for part, axes in (("weight", 2), ("bias", 1))}
_AXES_OF_HEADS[".head.weight"] = 2


_TABLES = ("config", "arguments", "preprocessing", "tokenizer", "rows")  # which are dictionaries


def _checked_extras(path: Path, extras: Any, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the extras as a dictionary. Raises UserError where they are not of the types that we write.

    state: the parameters of the file. Raises UserError too where its task tokens or languages have not as many names.
    """
    extras = {} if extras is None else extras
    wrong = _first_not_plain(extras, "it") if isinstance(extras, dict) else "it"
    if wrong is None:
        answers = extras.get("answers", [])
        lists = [("answers", names) for names in (answers.values() if isinstance(answers, dict) else [answers])]
        lists += [(name, extras.get(name, [])) for name in ("task_tokens", "languages")]
        tables = [name for name in _TABLES if not isinstance(extras.get(name, {}), dict)]
        wrong = next(iter([*tables, *(name for name, names in lists if not _are_texts(names))]), None)
    if wrong is not None:
        raise UserError(
            f"{path} is damaged or not ours: its content beside the parameters ({wrong}) is of a wrong type"
        )
    count, tasks = len(state.get(TASK_TOKENS, ())), extras.get("task_tokens", [])
    if count and count != len(tasks):
        raise UserError(f"{path} is damaged: it has the tokens of {count} tasks, and the names of {len(tasks)}")
    count, languages = len(state.get(LANGUAGES, ())), extras.get("languages", [])
    if count and count != len(languages):
        raise UserError(f"{path} is damaged: it has embeddings of {count} languages, and the names of {len(languages)}")
    return dict(extras)


def _are_texts(names: Any) -> bool:
    return isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)


def _first_not_plain(value: Any, name: str, depth: int = 0) -> str | None:
    """Return the name of the first value that JSON could not hold, or that lies more than ten levels deep."""
    if isinstance(value, str | int | float | None):
        return None
    if depth > 10 or type(value) is StandIn or not isinstance(value, dict | list | tuple):
        return name
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        path = f"{name}.{key}" if depth else f"{key}"
        if wrong := _first_not_plain(part, path, depth + 1) if isinstance(key, str | int) else name:
            return wrong
    return None


CHECK = "vit, max_text_len, vocab_size, vqav2_label_size, answers.pool and loss_names"


def load(module: nn.Module, checkpoint: Checkpoint, *, complete: bool = False, check: str = CHECK) -> LoadReport:
    """Copy a checkpoint's parameters into a module, in place.

    Position tables are resized to the module's grid or text length, the token types to its number of images. The tokens of
    tasks are found by name; a task that the file does not know starts as the mean of those that it knows. So do languages.
    Heads, box tokens, task tokens and languages that the file lacks stay new; heads and box tokens that the module lacks
    are left out. A file of texts alone sets their embeddings, and all else keeps its values. Raises
    UserError, and changes nothing, if another parameter of the encoder is missing or does not fit (files of the image half
    may lack the text half), if the file has a parameter too many in a part that the module has, or if it has task tokens
    or languages and the module has none.

    complete: also raise UserError if any other parameter is missing.
    check: the keys that an error names for the user to check.
    """
    _check_numbers(module, checkpoint, check)
    checkpoint, derived, left_out = _with_task_tokens(checkpoint, module, complete)
    checkpoint, of_languages, unknown = _with_languages(checkpoint, module, complete)
    derived, left_out = derived + of_languages, left_out + unknown
    dropped = list(checkpoint.dropped)
    report = LoadReport(checkpoint.path, checkpoint.layout.name, dropped=dropped, derived=derived)
    taken, missing, misfits = {}, [], []
    own, starts = module.state_dict(), _starts(module)
    for name, tensor in own.items():
        if name not in checkpoint.state:
            source = starts.get(name)
            if source in checkpoint.state:
                whole = checkpoint.state[source]
                taken[name] = whole if whole.shape == tensor.shape else whole[1:]
                report.derived.append(name)
            else:
                missing.append(name)
            continue
        value = _fit(checkpoint, name, tensor)
        if value is None:
            misfits.append(f"{name} {tuple(checkpoint.state[name].shape)}, wanted {tuple(tensor.shape)}")
            missing.append(name)
        else:
            (report.loaded if value is checkpoint.state[name] else report.resized).append(name)
            taken[name] = value
    _check_missing(checkpoint, missing, misfits, complete, check, _encoder(module).size.hides_class_token)
    report.unused = left_out + _unused(checkpoint, own, check)
    kept = [name for name in missing if checkpoint.layout.text_only and not name.startswith(_TEXT_EMBEDDINGS)]
    report.new, report.misfits = [name for name in missing if name not in kept], misfits
    module.load_state_dict(taken, strict=False)
    return report


def _encoder(module: nn.Module) -> Encoder:
    assert isinstance(module.encoder, Encoder)
    return module.encoder


def _check_numbers(module: nn.Module, checkpoint: Checkpoint, check: str) -> None:
    """Raise UserError where the file states another number of heads, or another epsilon, than the module has."""
    encoder = _encoder(module)
    heads = encoder.size.heads
    if checkpoint.heads not in (None, heads):
        raise UserError(
            f"{checkpoint.path} has {checkpoint.heads} attention heads, this model {heads}."
            f"{_fitting_rows(checkpoint)} Check {check}."
        )
    if checkpoint.activation not in (None, encoder.size.mlp):
        raise UserError(
            f"{checkpoint.path} has the activation {checkpoint.activation} (config.json), this model {encoder.size.mlp}: "
            f"results would differ.{_fitting_rows(checkpoint)} Check {check}."
        )
    norms = [encoder.norm] if checkpoint.layout.image_only else encoder.modules()
    own = {part.eps for part in norms if isinstance(part, nn.LayerNorm)}
    if checkpoint.norm_eps is not None and own and own != {checkpoint.norm_eps}:
        raise UserError(
            f"{checkpoint.path} computes its layer norms with layer_norm_eps={checkpoint.norm_eps} (config.json), this "
            f"model with {' and '.join(map(str, sorted(own)))}: results would differ. Check {check}."
        )


_BOXES = "encoder.regions."  # new where a checkpoint lacks it, as the task tokens are
# Parts of the encoder that some models lack: those of images alone, without boxes, or that pool before their norm.
_TEXT_EMBEDDINGS = "encoder.text_embeddings."
_TEXT_HALF = (_TEXT_EMBEDDINGS, "encoder.token_types.", "encoder.pooler.")
_OPTIONAL = (*_TEXT_HALF, "encoder.norm.", _BOXES, TASK_TOKENS, LANGUAGES)


def _unused(checkpoint: Checkpoint, own: Mapping[str, Tensor], check: str) -> list[str]:
    """Return the parameters of heads and parts that the module lacks. Raises UserError for others that it lacks."""
    unused: list[str] = []
    homeless: list[str] = []
    for name in checkpoint.state:
        if name in own:
            continue
        part = next((part for part in _OPTIONAL if name.startswith(part)), None)
        if name.startswith("objectives."):
            part = ".".join(name.split(".")[:2]) + "."
        absent = part is not None and not any(key.startswith(part) for key in own)
        (unused if absent else homeless).append(name)
    if homeless:
        shown = ", ".join(homeless[:5]) + ", ..." * (len(homeless) > 5)
        raise UserError(
            f"{checkpoint.path} (layout {checkpoint.layout.name}) has {len(homeless)} parameters that this model has no "
            f"place for, so that it would compute something else: {shown}.{_fitting_rows(checkpoint)} Check {check}."
        )
    return unused


def with_vocabularies(
    checkpoint: Checkpoint, module: nn.Module, tokenizer: PreTrainedTokenizerFast | None = None
) -> tuple[Checkpoint, list[str]]:
    """Return the checkpoint with the rows of answers and of pieces in the order of the module's vocabularies, and messages.

    Answers that the checkpoint does not know keep the module's rows, and pieces that its tokenizer does not know start as
    the mean of its rows. A checkpoint without stored answers, or with the same answers, stays as it is; so does one with
    the same pieces, or for a model without a tokenizer. Raises UserError where the checkpoint has another number of pieces
    and stores no tokenizer.

    tokenizer: the module's.
    """
    checkpoint, of_answers = _with_answers(checkpoint, module)
    if tokenizer is None or WORDS not in checkpoint.state or WORDS not in module.state_dict():
        return checkpoint, of_answers
    checkpoint, of_pieces = _with_pieces(checkpoint, module, tokenizer)
    return checkpoint, of_answers + of_pieces


def _with_answers(checkpoint: Checkpoint, module: nn.Module) -> tuple[Checkpoint, list[str]]:
    heads = {name: head for name, head in _objectives(module).items() if head.answers_from_vocabulary}
    stored, state, said = stored_vocabularies(checkpoint.extras, list(heads)), dict(checkpoint.state), []
    own = module.state_dict()
    for head, objective in heads.items():
        here, theirs = objective.context.vocabulary, stored.get(head, Vocabulary())
        parts = (f"objectives.{head}.{layer}.{part}" for layer in ANSWER_LAYERS for part in ("weight", "bias"))
        names = [name for name in parts if name in own and name in state]
        as_large = all(own[name].shape == state[name].shape for name in names)
        if not theirs.answers or not names or (theirs.answers == here.answers and as_large):
            continue
        pairs = here.shared_labels(theirs)
        for name in names:
            state[name] = _carried_over(state[name], own[name], pairs)
        if theirs.answers != here.answers:
            said.append(f"{len(pairs)} of {len(here)} answers start from the checkpoint's answers ({len(theirs)})")
    return replace(checkpoint, state=state), said


def _with_pieces(
    checkpoint: Checkpoint, module: nn.Module, tokenizer: PreTrainedTokenizerFast
) -> tuple[Checkpoint, list[str]]:
    state, own, starts = dict(checkpoint.state), module.state_dict(), _starts(module)
    tables = [f"objectives.{head}.{name}" for head, one in _objectives(module).items() for name in one.rows_of_pieces]
    own_tables = {name: own[name] for name in (WORDS, *tables)}
    tables_of_file = own_tables | {starts[name]: own[name] for name in tables if name in starts}
    rows = {name: (state[name], table) for name, table in tables_of_file.items() if name in state}
    if any(stored.shape[1:] != table.shape[1:] for stored, table in rows.values()):
        return checkpoint, []  # of another width, which `load` reports
    as_large = all(len(stored) == len(table) for stored, table in rows.values())
    if "tokenizer" not in checkpoint.extras:
        if not as_large:
            raise UserError(
                f"{checkpoint.path} has rows for {len(state[WORDS]):,} pieces of words, this model for "
                f"{len(own[WORDS]):,}, and the file stores no tokenizer that says which pieces are the same. Check "
                "tokenizer and vocab_size, or store its tokenizer in it: python -m vlc.checkpoint "
                f"{checkpoint.path} OUT.ckpt --tokenizer NAME"
            )
        return checkpoint, []
    theirs = stored_tokenizer(checkpoint.extras["tokenizer"], str(checkpoint.path))
    if theirs.get_vocab() == tokenizer.get_vocab() and as_large:
        return checkpoint, []
    _require_rows(checkpoint, theirs, [stored for stored, _ in rows.values()])
    pairs = shared_pieces(tokenizer, theirs)
    for name, (stored, table) in rows.items():
        state[name] = _carried_over(stored, _mean_rows(stored, table), pairs)
    num_new = len(tokenizer.get_vocab()) - len(pairs)
    message = (
        f"{len(pairs):,} pieces of words start from the checkpoint's pieces ({len(theirs.get_vocab()):,}); {num_new:,} are "
        "new, and start as the mean of its rows"
    )
    return replace(checkpoint, state=state), [message]


def with_tokenizer(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Return a checkpoint that stores a tokenizer. Raises UserError where it has more pieces than the file has rows."""
    if WORDS not in checkpoint.state:
        raise UserError(f"{checkpoint.path} is of images alone and has no use for a tokenizer: leave --tokenizer out")
    tokenizer = load_tokenizer(name)
    _require_rows(checkpoint, tokenizer, [checkpoint.state[WORDS]])
    return replace(checkpoint, extras={**checkpoint.extras, "tokenizer": tokenizer_to_store(tokenizer)})


def _require_rows(checkpoint: Checkpoint, tokenizer: PreTrainedTokenizerFast, tables: list[Tensor]) -> None:
    size, fewest = vocabulary_size(tokenizer), min(map(len, tables))
    if fewest < size:
        raise UserError(
            f"{checkpoint.path} has rows for {fewest:,} pieces of words, and the tokenizer {size:,}: its own is another one"
        )


def _carried_over(stored: Tensor, start: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """Return a copy of the rows `start` in which rows come from the stored ones.

    pairs: the numbers of each such row in `start` and in `stored`.
    """
    rows, stored_rows = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return start.index_put((rows,), stored[stored_rows].to(start.dtype))


def _mean_rows(stored: Tensor, table: Tensor) -> Tensor:
    """Return rows in the number and type of a table's, each of them the mean of the stored rows."""
    return stored.mean(dim=0).to(table.dtype).repeat(len(table), *(1 for _ in stored.shape[1:]))


def _with_task_tokens(
    checkpoint: Checkpoint, module: nn.Module, complete: bool
) -> tuple[Checkpoint, list[str], list[str]]:
    """Return the checkpoint with a row of task tokens for each task of the module.

    Returns beside it, for the report, the tokens that it lacks, which start as the mean of its rows, and the tokens that
    the module does not have. A checkpoint without task tokens stays as it is, and so does one for a model of images alone.
    Raises UserError where the checkpoint has task tokens and the module has none, and with `complete` also where the
    checkpoint lacks the token of a task.
    """
    encoder, path, table = _encoder(module), checkpoint.path, checkpoint.state.get(TASK_TOKENS)
    own = Vocabulary(() if encoder.task_tokens is None else encoder.task_tokens.names)
    stored = Vocabulary(tuple(checkpoint.extras.get("task_tokens", ())))
    if table is None and own and complete:
        raise UserError(f"{path} has no task tokens: leave multitask.task_tokens out")
    if table is None or not hasattr(encoder, "text_embeddings"):
        return checkpoint, [], []
    known = ", ".join(stored.answers)
    if not own:
        raise UserError(f"{path} was trained with tokens of its tasks ({known}): pass multitask.task_tokens=True")
    new = [name for name in own.answers if name not in stored.answers]
    if new and complete:
        raise UserError(f"{path} has no token of task {new[0]}: test the tasks whose tokens it has ({known})")
    return _with_named_rows(checkpoint, TASK_TOKENS, "task", own, stored)


def _with_languages(
    checkpoint: Checkpoint, module: nn.Module, complete: bool
) -> tuple[Checkpoint, list[str], list[str]]:
    """Return what `_with_task_tokens` returns, of the embeddings of languages. Raises UserError as it does."""
    encoder, path, table = _encoder(module), checkpoint.path, checkpoint.state.get(LANGUAGES)
    own = Vocabulary(() if encoder.languages is None else encoder.languages.names)
    stored = Vocabulary(tuple(checkpoint.extras.get("languages", ())))
    known, new = ",".join(stored.answers), [name for name in own.answers if name not in stored.answers]
    if new and complete:
        has = f"embeddings of the languages {known}, not of {new[0]}" if stored else "no embeddings of languages"
        cure = f"pass languages.embeddings=[{known}]" if stored else "leave languages.embeddings out"
        raise UserError(f"{path} has {has}: {cure}")
    if table is None or not hasattr(encoder, "text_embeddings"):
        return checkpoint, [], []
    if not own:
        raise UserError(f"{path} was trained with embeddings of languages: pass languages.embeddings=[{known}]")
    return _with_named_rows(checkpoint, LANGUAGES, "language", own, stored)


def _with_named_rows(
    checkpoint: Checkpoint, name: str, kind: str, own: Vocabulary, stored: Vocabulary
) -> tuple[Checkpoint, list[str], list[str]]:
    """Return the checkpoint with a row of a table for each of the module's names, as `_with_task_tokens` does."""
    table = checkpoint.state[name]
    table = _carried_over(table, _mean_rows(table, table[:1].expand(len(own), -1)), own.shared_labels(stored))
    new = [one for one in own.answers if one not in stored.answers]
    unused = [one for one in stored.answers if one not in own.answers]
    derived, left_out = ([f"{name} of {kind} {one}" for one in names] for names in (new, unused))
    return replace(checkpoint, state={**checkpoint.state, name: table}), derived, left_out


def _objectives(module: nn.Module) -> dict[str, Objective]:
    """Return the heads of a module by name; a classifier of images alone has none."""
    heads = getattr(module, "objectives", nn.ModuleDict()).items()
    return {name: head for name, head in heads if isinstance(head, Objective)}


def _starts(module: nn.Module) -> dict[str, str]:
    """Return, by name, the parameters that may start from another parameter of a checkpoint."""
    return {
        f"objectives.{head}.{name}": f"objectives.{source}"
        for head, objective in _objectives(module).items()
        for name, source in objective.starts_from.items()
    }


def _fit(checkpoint: Checkpoint, name: str, tensor: Tensor) -> Tensor | None:
    """Return the file's value in the module's shape; None where it does not fit. Raises UserError for oblong grids."""
    value = checkpoint.state[name]
    if value.shape == tensor.shape:
        return value
    if value.numel() == tensor.numel() == 1:  # a number was once stored without a dimension
        return value.reshape(tensor.shape)
    if value.ndim != tensor.ndim or value.shape[-1] != tensor.shape[-1]:
        return None
    if name.endswith("pos_embed"):
        try:
            return resize_positions(value, tensor.shape[1] - 1)
        except ValueError as error:
            raise UserError(
                f"{checkpoint.path}: {name} {tuple(value.shape)} is not a row for the class token and one for each patch "
                "of a square grid. Models without a class token (class_token=False), without a row for it "
                "(no_embed_class=True), or of oblong images are not read with this layout."
            ) from error
    if name == "encoder.token_types.weight":  # further images start as the first (row 1) does
        return torch.cat([value, value[1:2].expand(max(len(tensor) - len(value), 0), -1)])[: len(tensor)]
    if name == "encoder.text_embeddings.position_embeddings.weight":  # rows that the file lacks stay new
        return torch.cat([value[: len(tensor)], tensor[len(value) :]])
    return None


def _check_missing(
    checkpoint: Checkpoint, missing: list[str], misfits: list[str], complete: bool, check: str, no_class_token: bool
) -> None:
    """Raise UserError where a file lacks a parameter of the encoder.

    no_class_token: whether files of the encoder's family have no class token, so that it is new.
    """
    allowed: tuple[str, ...] = ()
    if not complete:
        allowed = ("objectives.", _BOXES, TASK_TOKENS, LANGUAGES, *(_TEXT_HALF if checkpoint.layout.image_only else ()))
        allowed += ("encoder.cls_token",) if no_class_token else ()
    of_texts = checkpoint.layout.text_only and not complete
    missing = [name for name in missing if not of_texts or name.startswith(_TEXT_EMBEDDINGS)]
    bad = [name for name in missing if not name.startswith(allowed)]
    if bad:
        shapes = f" Of another shape: {'; '.join(misfits[:5])}." if misfits else ""
        hint = " Evaluation needs every weight." if complete else ""
        raise UserError(
            f"{checkpoint.path} (layout {checkpoint.layout.name}) lacks {len(bad)} parameters of this model: "
            f"{count_by_part(bad)}.{shapes}{_fitting_rows(checkpoint)}{hint} Check {check}."
        )


def _fitting_rows(checkpoint: Checkpoint) -> str:
    """Name the values of vit that a file fits."""
    names = fitting(checkpoint.state, checkpoint.heads, checkpoint.activation)
    return f" The file fits vit={' or '.join(names)}." if names else ""


def export(checkpoint: Checkpoint, path: str | Path, layout: str) -> list[str]:
    """Write a checkpoint in another layout; returns our names of the parameters that the layout has no place for.

    A path that ends in .safetensors gives a file of this format, any other suffix a torch file.
    """
    if layout not in WRITTEN:
        raise UserError(f"Layout {layout!r} is not written: expected one of {', '.join(WRITTEN)}")
    target, left_out, state = LAYOUTS[layout], [], {}
    for name, tensor in checkpoint.state.items():
        try:
            state[target.theirs(name)] = tensor.contiguous()
        except KeyError:
            left_out.append(name)
    state = target.split(state)
    path, extras = Path(path), dict(checkpoint.extras)
    with write_atomically(path) as partial:
        try:
            if path.suffix == ".safetensors":
                save_safetensors(state, extras, partial)
            else:
                torch.save({target.unwrap: state, "vlc": extras}, partial)
        except (RuntimeError, SafetensorError) as error:  # these libraries hide the system's errors
            reason = str(error).splitlines()[0]
            raise UnwritableFile(
                f"{path} cannot be written ({reason}): make room there, or choose another place"
            ) from error
    return left_out
