"""Searching an index: the nearest are found by their embeddings, and ranked again by the full model where it can."""

import shlex
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from vlc.data.rows import Place, read_image
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable, write_text
from vlc.use.model import Model, open_pretrained
from vlc.use.search.stored import Stored, fingerprint, is_index, read_json, read_places, recover
from vlc.use.vectors import Vectors, load_faiss, unverified


def search(config: Mapping[str, Any], given: Collection[str]) -> list[dict[str, Any]]:
    """Images for a query, or texts for an image; prints and returns them, the best first.

    A result has score, source, dataset and row (None for an image file), and text. Where the checkpoint has a head that
    ranks, the rerank_k nearest are ranked by the full model; rerank_k=None leaves it at the similarities. Raises
    NonFiniteMetric where the embedding of what is asked, or a score, is NaN or infinite.
    """
    load_faiss()
    use = UseSettings.from_config(config)
    model = open_pretrained(config, given)
    rerank_k = model.settings.run.rerank_k
    if bool(use.query and use.query.strip()) == bool(use.image):
        raise UserError('search needs query="..." (finds images), or image=FILE (finds texts), and not both')
    kind, image = ("images", None) if use.query else ("texts", model.prepared(use.image))
    if use.out:
        require_writable("out", Path(use.out))
    vectors, place_of = _open_index(model, use.index, kind)
    reranks = model.ranking is not None and rerank_k is not None
    query = model.text_vectors([use.query]) if use.query else model.image_vectors([image])
    check_finite({"the embedding of what is asked": query})
    with _rebuilt_by(model, use.index):
        wanted = max(use.num_results, rerank_k) if reranks else use.num_results
        scores, numbers = (row[0].tolist() for row in vectors.nearest(query.float().cpu().numpy(), wanted))
        places = [place_of(number) for number in numbers if number >= 0]
    if reranks:
        scores = _reranked(model, use, image, places)
        check_finite({"the scores of a ranking": torch.tensor(scores)})
    order = sorted(range(len(places)), key=lambda number: -scores[number])[: use.num_results]
    results = [{"score": scores[number], **places[number][0]._asdict()} for number in order]
    if use.out:
        write_text(Path(use.out), to_json(results))
    _print(results)
    return results


def _open_index(model: Model, path: str | None, kind: str) -> tuple[Vectors, Callable[[int], Stored]]:
    """The vectors of a kind and the place of each, of an index that this very model made. Raises DamagedIndex."""
    folder = Path(path or "")
    if path:
        recover(folder)
    if not path or not is_index(folder):
        raise MissingFile(
            f"index={path} is no index: make one with python run.py index with load_path=... index=FOLDER"
        )
    with _rebuilt_by(model, path):
        made_by = read_json(folder / "index.json")
    if made_by["fingerprint"] != fingerprint(model):
        raise UserError(
            f"index={path} was made by {made_by['checkpoint']} at image_size={made_by['image_size']}, whose weights are "
            f"not those of load_path={model.path} at image_size={model.settings.data.image_size}: search with the "
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


@contextmanager
def _rebuilt_by(model: Model, path: str, source: str = "") -> Iterator[None]:
    """Adds to what is said of a damaged index the command that makes it anew."""
    try:
        yield
    except DamagedIndex as error:
        raise DamagedIndex(f"index={path}: {error}. Make it again: {_command(model, path, source)}") from error


def _command(model: Model, path: str, source: str = "") -> str:
    """The command that makes an index anew; source: of its data, looked up where it is not given."""
    source = source or _known_source(Path(path)) or "image_folder=FOLDER (or data_root=ARROWS datasets=[...])"
    command = shlex.join(["python", "run.py", "index", "with", f"load_path={model.path}", f"index={path}"])
    return f"{command} {source}"


def _known_source(folder: Path) -> str:
    try:
        return read_json(folder / "index.json").get("source", "")
    except DamagedIndex:
        return ""


def _reranked(model: Model, use: UseSettings, image: Tensor | None, found: list[Stored]) -> list[float]:
    """Scores of the full model for the candidates of the text, or of the image, that is asked for."""
    scores: list[float] = []
    with progress("ranking", len(found)) as advance:
        for chunk in model.chunks(found):
            if use.query:
                scores += model.match([use.query], [_candidate(model, use.index, *stored) for stored in chunk]).tolist()
            else:
                scores += model.match([place.text for place, _ in chunk], [image]).tolist()
            advance(len(chunk))
    return scores


def _candidate(model: Model, index: str, place: Place, identity: FileIdentity | None) -> Tensor:
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
        place = Place(**{name: result[name] for name in Place._fields})
        table.add_row(f"{result['score']:.4f}", cell(place), cell(place.text or ""))
    Console().print(table)
