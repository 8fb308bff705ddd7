"""Searching an index: candidates are found by their embeddings, and re-ranked by the full model where it can rank."""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor

from vlc.common.errors import ChangedFile, DamagedIndex, MissingFile, UserError
from vlc.common.files import to_json
from vlc.common.terminal import cell, progress
from vlc.configuration.use_settings import UseSettings
from vlc.data.identity import FileIdentity
from vlc.data.rows import Location, read_image
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable, write_text
from vlc.use.model import Model, open_pretrained
from vlc.use.search.stored import Stored, fingerprint, is_index, read_json, read_places, recover
from vlc.use.vectors import Vectors, load_faiss, unverified

Opened: TypeAlias = tuple[Vectors, Callable[[int], Stored]]  # the vectors of a kind, and the place of each


def search(config: Mapping[str, Any], given: Collection[str]) -> list[dict[str, Any]]:
    """Find images for a query, or texts for an image; prints and returns them, the best first.

    A result has score, source, dataset and row (None for an image file), and text. Where the checkpoint has a head that
    ranks, the full model ranks the rerank_k nearest candidates; with rerank_k=None the similarities rank them. Raises
    NonFiniteMetric where the embedding of the query, or a score, is NaN or infinite.
    """
    load_faiss()
    use = UseSettings.from_config(config)
    model = open_pretrained(config, given)
    if bool(use.query and use.query.strip()) == bool(use.image):
        raise UserError('search needs query="..." (finds images), or image=FILE (finds texts), and not both')
    query = use.query if use.query else model.prepared(use.image or "")
    if use.out:
        require_writable("out", Path(use.out))
    index = use.index or ""
    opened = open_index(model, index, "images" if use.query else "texts")
    found = find(model, index, opened, query, use.num_results)
    results = [{"score": one.score, **one.place._asdict()} for one in found]
    if use.out:
        write_text(Path(use.out), to_json(results))
    _print(results)
    return results


class Found(NamedTuple):
    """A result: its score, its number in the index, its place, and of an image the identity of its file."""

    score: float
    number: int
    place: Location
    identity: FileIdentity | None


def find(
    model: Model, index: str, opened: Opened, query: str | Tensor, num_results: int, *, quiet: bool = False
) -> list[Found]:
    """Return what fits a text, or a prepared image, the best first; errors as in `search`.

    opened: what `open_index` returned.
    quiet: show no progress.
    """
    vectors, place_of = opened
    embedded = model.text_vectors([query]) if isinstance(query, str) else model.image_vectors([query])
    check_finite({"the embedding of the query": embedded})
    rerank_k = 0 if model.ranking is None else model.settings.run.rerank_k or 0
    wanted = max(num_results, rerank_k)
    with _rebuilt_by(model, index):
        scores, numbers = (row[0].tolist() for row in vectors.nearest(embedded.float().cpu().numpy(), wanted))
        numbers = [number for number in numbers if number >= 0]
        places = [place_of(number) for number in numbers]
    if rerank_k:
        scores = _reranked(model, query, places, index, quiet=quiet)
        check_finite({"the scores of a ranking": torch.tensor(scores)})
    order = sorted(range(len(places)), key=lambda number: -scores[number])[:num_results]
    return [Found(scores[one], numbers[one], *places[one]) for one in order]


def counts(path: str) -> dict[str, int]:
    """How many images, and texts, an index has, where it has any. Raises MissingFile, DamagedIndex."""
    made_by = read_json(_existing(path) / "index.json")
    return {kind: made_by[kind] for kind in ("images", "texts") if made_by.get(kind)}


def open_index(model: Model, path: str, kind: str) -> Opened:
    """Open the vectors of a kind, and the place of each, in an index of this very model. Raises DamagedIndex."""
    folder = _existing(path)
    with _rebuilt_by(model, path):
        made_by = read_json(folder / "index.json")
    if made_by["fingerprint"] != fingerprint(model):
        raise UserError(
            f"index={path} was made by {made_by['checkpoint']} at image_size={made_by['image_size']}, whose weights are "
            f"not the weights of load_path={model.path} at image_size={model.settings.data.image_size}: search with the "
            "former, or make the index again"
        )
    if not made_by.get(kind):
        raise UserError(f"index={path} holds no {kind}: make it from datasets=[...] that have them")
    if "parts" not in made_by:
        rank_zero_warn(
            f"index={path} was made before indexes had checksums: damage to it, and data that changed since, are not "
            f"noticed. Make it again: {_command(model, path)}"
        )
    with _rebuilt_by(model, path, made_by.get("source", "")):
        part: dict[str, Any]
        part = made_by["parts"][kind] if "parts" in made_by else {"places": None, "files": unverified(folder, kind)}
        places = read_places(folder / f"{kind}.arrow", made_by[kind], part["places"])
        return Vectors(folder, part["files"]), places


def _existing(path: str) -> Path:
    folder = Path(path)
    if path:
        recover(folder)
    if not path or not is_index(folder):
        raise MissingFile(
            f"index={path or None} is no index: make one with python run.py index with load_path=... index=FOLDER"
        )
    return folder


@contextmanager
def _rebuilt_by(model: Model, path: str, source: str = "") -> Iterator[None]:
    """Add to the error of a damaged index the command that makes it again."""
    try:
        yield
    except DamagedIndex as error:
        raise DamagedIndex(f"index={path}: {error}. Make it again: {_command(model, path, source)}") from error


def _command(model: Model, path: str, source: str = "") -> str:
    """Return the command that makes an index again; source: the keys of its data, by default those in index.json."""
    if not source:
        with suppress(DamagedIndex):
            source = read_json(Path(path) / "index.json").get("source", "")
    source = source or "image_folder=FOLDER (or data_root=ARROWS datasets=[...])"
    command = shlex.join(["python", "run.py", "index", "with", f"load_path={model.path}", f"index={path}"])
    return f"{command} {source}"


def _reranked(model: Model, query: str | Tensor, candidates: list[Stored], index: str, *, quiet: bool) -> list[float]:
    """Return the scores of the full model for the candidates of a text, or of a prepared image."""
    scores: list[float] = []
    with progress("ranking", len(candidates), shown=not quiet) as advance:
        for chunk in model.chunks(candidates):
            if isinstance(query, str):
                scores += model.match([query], [_candidate(model, index, *stored) for stored in chunk]).tolist()
            else:
                scores += model.match([place.text for place, _ in chunk], [query]).tolist()
            advance(len(chunk))
    return scores


def _candidate(model: Model, index: str, place: Location, identity: FileIdentity | None) -> Tensor:
    try:
        return model.prepared(read_image(place, identity), str(place))
    except ChangedFile as error:
        raise ChangedFile(
            f"{error}; make the index again with {_command(model, index)}, or search with "
            "rerank_k=None, which does not look at the images"
        ) from error
    except MissingFile as error:
        raise MissingFile(f"{error}. rerank_k=None searches without looking at the images again") from error


def _print(results: list[dict[str, Any]]) -> None:
    table = Table("score", Column("where", overflow="fold"), "text", box=None)
    for result in results:
        place = Location(**{name: result[name] for name in Location._fields})
        table.add_row(f"{result['score']:.4f}", cell(place), cell(place.text or ""))
    Console().print(table)
