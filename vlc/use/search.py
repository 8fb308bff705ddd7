"""`python run.py index` and `search`: a checkpoint's embeddings of images and texts, kept on disk and searched.

An index is a folder: index.json tells which model made it from what, {images,texts}.N.faiss hold the vectors, and
{images,texts}.arrow the place of each, of images with the identity of the file. One batch of images or texts is in
memory at a time. What a search reads is compared with checksums before: of index.json in itself, of vectors in
index.json, of each place beside it, and of these in index.json.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import torch
from pytorch_lightning.utilities import rank_zero_warn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from torch import Tensor
from torch.utils.data import DataLoader

from vlc.common.errors import ChangedFile, DamagedIndex, MissingFile, UserError
from vlc.common.files import to_json
from vlc.common.inputs import Text
from vlc.common.terminal import cell, printable
from vlc.configuration.settings import DataSettings
from vlc.data.arrow import ArrowSplit, find_tables
from vlc.data.catalog import CATALOG
from vlc.data.identity import FileIdentity
from vlc.data.rows import DecodedImages, FolderImages, Images, Place, RowImages, read_image, texts
from vlc.data.workers import worker_options
from vlc.evaluation.metrics import check_finite
from vlc.evaluation.predictions import require_writable, write_text
from vlc.evaluation.ranking import match_scores
from vlc.objectives.options import ranking_kind
from vlc.use.pretrained import Pretrained, open_image_file, open_pretrained
from vlc.use.vectors import VectorFile, Vectors, build, load_faiss, unverified

_PLACE = [("source", pa.string()), ("dataset", pa.string()), ("row", pa.int64()), ("text", pa.string())]
_IDENTITY = [("size", pa.int64()), ("changed", pa.int64()), ("file_checksum", pa.string())]  # of the source
_CHECKSUM = [("checksum", pa.uint32())]  # of the others, and of the place's number
_PLACES = pa.schema(_PLACE + _CHECKSUM)  # of texts, and of images in indexes from before their files' identity was kept
_SCHEMAS = {"images": pa.schema(_PLACE + _IDENTITY + _CHECKSUM), "texts": _PLACES}
Stored: TypeAlias = tuple[Place, FileIdentity | None]  # of the file; None: of a text, or not kept by an older index
_FILES = re.compile(r"index\.json|(images|texts)\.(arrow|\d+\.faiss)")


# -- building


def build_index(config: Mapping[str, Any], given: Collection[str]) -> dict[str, int]:
    """Embed and index all images and texts; returns how many, by kind. The folder appears whole or not at all.

    Images that cannot be decoded are named and left out, up to a share of max_corrupt_ratio. Raises NonFiniteMetric where
    an embedding is NaN or infinite.
    """
    load_faiss()  # tells at once where it is missing
    model = open_pretrained(config, given)
    settings, use = model.settings, model.settings.use
    folder = _index_folder(use.index)
    _contrast(model)
    if use.image_folder:
        images, rows = [FolderImages(use.image_folder)], []
    else:
        images = [RowImages(split) for split in open_rows(settings.data, read_texts=False)]
        rows = open_rows(settings.data, read_texts=True)
    counts, parts = {}, {}
    with _appearing_whole(folder) as partial:
        counts["images"], parts["images"] = _write(partial, "images", _embedded_images(model, images), model)
        if rows:
            counts["texts"], parts["texts"] = _write(partial, "texts", _embedded_texts(model, rows), model)
        if not any(counts.values()):
            raise UserError(
                f"There is nothing to index: no image could be embedded, and there is no text. Check {_source(config)}"
            )
        made_by = {"checkpoint": str(model.path.resolve()), "image_size": settings.data.image_size}
        made_by |= {"fingerprint": fingerprint(model), "source": _source(config)}
        written = made_by | counts | {"parts": parts}
        write_text(partial / "index.json", to_json(written | {"checksum": _checksum(written)}))
    told = f"{folder}: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
    Console().print(cell(told), soft_wrap=True)
    return counts


def open_rows(settings: DataSettings, *, read_texts: bool) -> list[ArrowSplit]:
    """The tables of the data sets, every row a sample, or every text: of all splits, or of those that `splits` names.

    Raises UserError where a data set has two images beside each other.
    """
    opened = []
    for name in settings.datasets:
        spec = CATALOG[name]
        if len(spec.images) != 1:
            kind = "pairs of images, of which none can be found alone" if spec.images else "no images"
            raise UserError(f"datasets: {name!r} has {kind}")
        stems = tuple(stem for split in settings.splits or spec.tables for stem in spec.tables.get(split, ()))
        paths = find_tables(settings.data_root, stems, name, spec.writer, settings.data_cache)
        columns, verify = {spec.text, *spec.images}, settings.verify is not False
        opened.append(ArrowSplit(paths, spec, name, columns, read_texts=read_texts, verify=verify))
    return opened


def fingerprint(model: Pretrained) -> str:
    """What tells models apart whose embeddings differ: a hash of the weights that make them."""
    digest = hashlib.sha256()
    for part in (model.module.encoder, _contrast(model)):
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy())
    return digest.hexdigest()


def _contrast(model: Pretrained):
    if "itc" not in model.module.objectives:
        heads = ", ".join(model.module.objectives)
        raise UserError(
            f"{model.path} has the heads {heads}, but none of objective itc, which makes embeddings: train with "
            "loss_names.itc=1"
        )
    return model.module.objectives["itc"]


def _source(config: Mapping[str, Any]) -> str:
    """What an index is made of, as words of a command line."""
    keys = ("image_folder",) if config["image_folder"] else ("data_root", "data_cache", "datasets", "splits")
    values = ((key, config[key]) for key in keys if config[key])
    told = ((key, value if isinstance(value, str) else f"[{','.join(value)}]") for key, value in values)
    return " ".join(shlex.quote(f"{key}={value}") for key, value in told)


def _checksum(value: Any) -> int:
    """CRC-32 of a plain value: it tells damage, not intent."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _index_folder(path: str | None) -> Path:
    if not path:
        raise UserError("index=FOLDER is missing")
    folder = Path(path)
    if folder.exists() and not _is_index(folder):
        raise UserError(f"index={path} exists and is no index: name another folder")
    require_writable("index", folder, folder=True)
    _recover(folder)
    return folder


def _is_index(folder: Path) -> bool:
    """Whether a folder holds files of an index, perhaps not all, and nothing else: it may be replaced."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return bool(names) and all(_FILES.fullmatch(name) for name in names)


def _recover(folder: Path) -> None:
    """Bring an index back whose replacement was killed between its two renames."""
    old = folder.with_name(f".{folder.name}.old")
    if old.is_dir() and not folder.exists():
        os.rename(old, folder)


@contextmanager
def _appearing_whole(folder: Path) -> Iterator[Path]:
    """A folder that takes its name, from an older one if need be, once its content is there."""
    partial, old = (folder.with_name(f".{folder.name}.{state}") for state in ("partial", "old"))
    for left in (partial, old):
        shutil.rmtree(left, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            os.rename(folder, old)
        os.rename(partial, folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(
    folder: Path, kind: str, batches: Iterable[tuple[list[tuple], Tensor]], model: Pretrained
) -> tuple[int, dict[str, Any]]:
    """Index batches of places and vectors (B, D) under a name; returns how many there were, and the checksums.

    Places of images are followed by the identity of their file.
    """
    count, checksum, schema = 0, 0, _SCHEMAS[kind]
    vectors = VectorFile(folder / f".{kind}.vectors", model.module.encoder.size.width)
    with pa.OSFile(str(folder / f"{kind}.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for places, embedded in batches:
            check_finite({f"the embeddings of {kind}": embedded})
            vectors.append(embedded.float().cpu().numpy())
            rows = [
                dict(zip(schema.names, (*place, _checksum([number, *place])), strict=True))
                for number, place in enumerate(places, start=count)
            ]
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema))
            checksum = zlib.crc32(np.array([row["checksum"] for row in rows], dtype=np.uint32), checksum)
            count += len(places)
    files = build(vectors.close(), folder, kind)
    vectors.path.unlink()
    return count, {"files": files, "places": checksum}


@torch.inference_mode()
def _embedded_images(model: Pretrained, sources: list[Images]) -> Iterator[tuple[list[tuple], Tensor]]:
    size, data = model.settings.data.per_gpu_batchsize, model.settings.data
    seen, bad = 0, []
    with _progress("images", sum(map(len, sources))) as advance:
        for images in sources:
            batches = [range(first, min(first + size, len(images))) for first in range(0, len(images), size)]
            decoded, workers = DecodedImages(images, model.transform), worker_options(data.num_workers)
            for numbers, pixels, failed in DataLoader(decoded, None, sampler=batches, **workers):
                seen += len(numbers) + len(failed)
                bad += failed
                for place, reason in failed:
                    rank_zero_warn(printable(f"Left out an image that cannot be decoded: {place}: {reason}"))
                if len(bad) > max(1, data.max_corrupt_ratio * seen):
                    raise UserError(
                        f"{len(bad)} of {seen} images cannot be decoded, more than the share max_corrupt_ratio="
                        f"{data.max_corrupt_ratio} allows; the last one is {bad[-1][0]}"
                    )
                if numbers:
                    with model.forward_context():
                        embedded = _image_vectors(model, pixels)
                        yield [images.place(number) + images.identity(number) for number in numbers], embedded
                advance(len(numbers) + len(failed))


@torch.inference_mode()
def _embedded_texts(model: Pretrained, sources: list[ArrowSplit]) -> Iterator[tuple[list[Place], Tensor]]:
    with _progress("texts", sum(map(len, sources))) as advance:
        for rows in sources:
            places = texts(rows)
            while batch := list(islice(places, model.settings.data.per_gpu_batchsize)):
                with model.forward_context():
                    yield batch, _text_vectors(model, _text(model, [place.text for place in batch]))
                advance(len(batch))


def _text(model: Pretrained, rows: list[str]) -> Text:
    return model.text_encoder.pad([model.text_encoder(row).ids for row in rows]).to(model.device)


def _text_vectors(model: Pretrained, text: Text) -> Tensor:
    encoder = model.module.encoder
    return _contrast(model).text_vectors(encoder.encode([encoder.embed_text(text)], pooled_only=True).pooled)


def _image_vectors(model: Pretrained, images: list[Tensor]) -> Tensor:
    pooled = model.module.encoder.encode([model.tokens(images)], pooled_only=True).pooled
    return _contrast(model).image_vectors(pooled)


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


# -- searching


def search(config: Mapping[str, Any], given: Collection[str]) -> list[dict[str, Any]]:
    """Images for a query, or texts for an image; prints and returns them, the best first.

    A result has score, source, dataset and row (None for an image file), and text. Where the checkpoint has a head that
    ranks, the rerank_k nearest are ranked by the full model; rerank_k=None leaves it at the similarities. Raises
    NonFiniteMetric where the embedding of what is asked, or a score, is NaN or infinite.
    """
    load_faiss()
    model = open_pretrained(config, given)
    use, rerank_k = model.settings.use, model.settings.run.rerank_k
    if bool(use.query and use.query.strip()) == bool(use.image):
        raise UserError('search needs query="..." (finds images), or image=FILE (finds texts), and not both')
    kind, asked = ("images", _text(model, [use.query])) if use.query else ("texts", open_image_file(model, use.image))
    if use.out:
        require_writable("out", Path(use.out))
    vectors, place_of = _open_index(model, use.index, kind)
    kinds = model.settings.tasks[0].kinds
    ranking = ranking_kind(kinds)
    head = None if ranking == "itc" else model.module.objectives[kinds[ranking].name]
    wanted = use.num_results if head is None or rerank_k is None else max(use.num_results, rerank_k)
    with torch.inference_mode(), model.forward_context():
        query = _text_vectors(model, asked) if kind == "images" else _image_vectors(model, [asked])
        check_finite({"the embedding of what is asked": query})
        with _rebuilt_by(model, use.index):
            scores, numbers = (row[0].tolist() for row in vectors.nearest(query.float().cpu().numpy(), wanted))
            places = [place_of(number) for number in numbers if number >= 0]
        if head is not None and rerank_k is not None:
            scores = _reranked(model, head.score, asked, places, kind)
            check_finite({"the scores of a ranking": torch.tensor(scores)})
    order = sorted(range(len(places)), key=lambda number: -scores[number])[: use.num_results]
    results = [{"score": scores[number], **places[number][0]._asdict()} for number in order]
    if use.out:
        write_text(Path(use.out), to_json(results))
    _print(results)
    return results


def _open_index(model: Pretrained, path: str | None, kind: str) -> tuple[Vectors, Callable[[int], Stored]]:
    """The vectors of a kind and the place of each, of an index that this very model made. Raises DamagedIndex."""
    folder = Path(path or "")
    if path:
        _recover(folder)
    if not path or not _is_index(folder):
        raise MissingFile(
            f"index={path} is no index: make one with python run.py index with load_path=... index=FOLDER"
        )
    with _rebuilt_by(model, path):
        made_by = _read_json(folder / "index.json")
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
        part = made_by["parts"][kind] if "parts" in made_by else {"places": None, "files": unverified(folder, kind)}
        places = _read_places(folder / f"{kind}.arrow", made_by[kind], part["places"])
        return Vectors(folder, part["files"]), places


@contextmanager
def _rebuilt_by(model: Pretrained, path: str, source: str = "") -> Iterator[None]:
    """Adds to what is said of a damaged index the command that makes it anew."""
    try:
        yield
    except DamagedIndex as error:
        raise DamagedIndex(f"index={path}: {error}. Make it again: {_command(model, path, source)}") from error


def _command(model: Pretrained, path: str, source: str = "") -> str:
    """The command that makes an index anew; source: of its data, looked up where it is not given."""
    source = source or _known_source(Path(path)) or "image_folder=FOLDER (or data_root=ARROWS datasets=[...])"
    command = shlex.join(["python", "run.py", "index", "with", f"load_path={model.path}", f"index={path}"])
    return f"{command} {source}"


def _known_source(folder: Path) -> str:
    try:
        return _read_json(folder / "index.json").get("source", "")
    except DamagedIndex:
        return ""


_OLDER = {"checkpoint", "image_size", "fingerprint"}  # what index.json tells, besides counts, where it has no checksums


def _read_json(path: Path) -> dict[str, Any]:
    try:
        made_by = json.loads(path.read_bytes())
        if not isinstance(made_by, dict):
            raise ValueError("it holds no keys")
        if set(made_by) - {"images", "texts"} == _OLDER:
            return made_by
        if made_by.pop("checksum", None) != _checksum(made_by):
            raise ValueError("its checksum is another")
    except (OSError, RecursionError) as error:
        raise DamagedIndex(f"{path} cannot be read ({error})") from error
    except ValueError as error:
        raise DamagedIndex(f"{path} is damaged: {error}") from error
    return made_by


def _read_places(path: Path, count: int, checksum: int | None) -> Callable[[int], Stored]:
    """A function from numbers to places, which raises DamagedIndex for a place that is not what was written.

    The places' own checksums are compared all together, with `checksum`, and each with its place when this is asked for;
    with None there are none.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        fits = table.schema in _SCHEMAS.values() if checksum is not None else table.schema.names == list(Place._fields)
        if not fits or len(table) != count:
            raise ValueError(f"it holds {len(table)} places, and {count} were written")
        if checksum is not None and zlib.crc32(table["checksum"].to_numpy()) != checksum:
            raise ValueError("its checksum is another")
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DamagedIndex(f"{path} is damaged or missing: {error}") from error

    def place(number: int) -> Stored:
        row = table.slice(number, 1)
        try:
            row.validate(full=True)  # before it is read: lengths may point anywhere
            (values,) = row.to_pylist()
            if checksum is not None and values.pop("checksum") != _checksum([number, *values.values()]):
                raise ValueError("its checksum is another")
        except (pa.ArrowException, ValueError) as error:
            raise DamagedIndex(f"{path} is damaged: place {number}: {error}") from error
        told = list(values.values())
        place, identity = told[: len(_PLACE)], told[len(_PLACE) :]
        return Place(*place), FileIdentity(*identity) if identity else None

    return place


def _reranked(
    model: Pretrained, score: Callable[[Tensor], Tensor], asked: Tensor | Text, found: list[Stored], kind: str
) -> list[float]:
    """Scores of the full model for the candidates of a text (images) or of an image (texts)."""
    encoder, size = model.module.encoder, model.settings.data.per_gpu_batchsize
    scores: list[float] = []
    with _progress("ranking", len(found)) as advance:
        for first in range(0, len(found), size):
            batch = found[first : first + size]
            if kind == "images":
                images = model.tokens([_candidate(model, *stored) for stored in batch])
                text = asked
            else:
                images, text = model.tokens([asked]), _text(model, [place.text for place, _ in batch])
            scores += match_scores(encoder, score, text, images).float().tolist()
            advance(len(batch))
    return scores


def _candidate(model: Pretrained, place: Place, identity: FileIdentity | None) -> Tensor:
    try:
        return model.image(read_image(place, identity), str(place))
    except ChangedFile as error:
        raise ChangedFile(
            f"{error}; make the index again with {_command(model, model.settings.use.index)}, or search with "
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
