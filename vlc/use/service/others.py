"""Beside the heads: which heads there are, embeddings, search in an index, and explanations."""

import io
from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import Annotated, Any, Literal

import torch
from fastapi import APIRouter, Path, Response
from pydantic import Field as Described
from starlette.requests import Request

from vlc.common.errors import ChangedFile, MissingFile
from vlc.data.images import open_image, to_pil
from vlc.data.rows import read_image
from vlc.evaluation.metrics import check_finite
from vlc.use import forms
from vlc.use.explain.explain import explain
from vlc.use.explain.explanation import Explanation, ImageMap
from vlc.use.explain.methods import DEFAULT, METHODS
from vlc.use.model import Model
from vlc.use.search.searching import Found, find
from vlc.use.service.answers import Embeddings, Explained, HeadDescribed, Heads, Hit, Hits, PictureMap
from vlc.use.service.bodies import IMAGES, Body, Received, pictures, receive, types
from vlc.use.service.clients import watched
from vlc.use.service.heads import sent, since
from vlc.use.service.problems import Problem, busy, described_errors
from vlc.use.service.service import Head, Service, naming_fields

_ERRORS = (400, 413, 415, 422, 500, 503, 504)
_METHODS = [DEFAULT, *(name for name in METHODS if name != DEFAULT)]
_MOST_RESULTS, _THUMBNAIL = 100, 320
_MOST_EXPLAINED = 4  # at once: each is computed alone, between batches of other requests


def router(service: Service) -> APIRouter:
    """The addresses beside the heads."""
    errors = described_errors(*_ERRORS, key=service.api_key)
    router = APIRouter(prefix="/v1")

    def post(path: str, endpoint: Callable, model: type, body: Body) -> None:
        extra = {"requestBody": body.described()} | service.secured
        options: dict[str, Any] = {"response_model": model, "operation_id": path.strip("/"), "responses": errors}
        router.add_api_route(path, endpoint, methods=["POST"], openapi_extra=extra, **options)

    router.add_api_route(
        "/heads",
        _heads(service),
        response_model=Heads,
        responses=described_errors(key=service.api_key),
        openapi_extra=service.secured,
    )
    if service.embedder is not None:
        body = _embedded(service)
        post("/embed", _embedding(service, body, *service.embedder), Embeddings, body)
    if service.opened:
        body = _searched(service)
        post("/search", _searching(service, body), Hits, body)
    if "images" in service.opened:
        shown: dict[int | str, Any] = {
            200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}
        }
        missing = described_errors(404, 422, 500, 503, 504, key=service.api_key)
        router.add_api_route(
            "/search/images/{number}",
            _showing(service),
            response_class=Response,
            responses={**shown, **missing},
            openapi_extra=service.secured,
        )
    if _explainable(service):
        body = _explained(service)
        post("/explain", _explaining(service, body), Explained, body)
    return router


def _heads(service: Service) -> Callable[[], Awaitable[Heads]]:
    def described(path: str, head: Head) -> dict[str, Any]:
        fields = {
            name: {"required": field.required, "about": field.about, "choices": field.choices, "count": field.count}
            for name, field in head.fields.items()
        }
        return {"path": f"/v1/{path}", "task": head.name, "model": head.checkpoint, "fields": fields}

    async def heads() -> Heads:
        """Say what each head takes."""
        return Heads(
            heads=[HeadDescribed(**described(path, head)) for path, head in service.heads.items()],
            embed=service.embedder is not None,
            search=list(service.opened),
            explain=_METHODS if _explainable(service) else [],
        )

    return heads


# -- embeddings


def _optional(kind: Any, about: str) -> tuple[Any, Any]:
    return kind, Described(None, description=about)


def _embedded(service: Service) -> Body:
    settings = service.settings
    fields = {
        IMAGES: _optional(pictures(1, settings.max_items), "pictures"),
        "text": _optional(types(settings)["text"], "texts"),
    }
    return Body.of_types("embed_request", fields, settings)


def _embedding(service: Service, body: Body, name: str, model: Model) -> Callable[[Request], Awaitable[Response]]:
    def read(received: Received) -> tuple[list[torch.Tensor], list[str]]:
        given = body.read(received)
        texts = given.get("text", [])
        if not given:
            raise Problem(400, "text, or images, are missing: what should be embedded?", "text")
        with naming_fields(model, name, given):
            images = [model.prepared(image) for image in given.get(IMAGES, ())]
        return images, [texts] if isinstance(texts, str) else texts

    def vectors(compute: Callable[[Sequence[Any]], torch.Tensor]) -> Callable[[Sequence[Any]], list[list[float]]]:
        def computed(items: Sequence[Any]) -> list[list[float]]:
            made = compute(items)
            check_finite({"the embeddings": made})
            return made.tolist()

        return computed

    images_of, texts_of = vectors(model.image_vectors), vectors(model.text_vectors)

    async def embed(request: Request) -> Response:
        """Embed pictures and texts."""
        started, received = perf_counter(), await receive(request)
        with watched(request) as left:
            images, texts = await service.prepare(read, received, left=left)
            embedded = {
                "images": await service.compute((name, "embed", "images"), images_of, images, left),
                "texts": await service.compute((name, "embed", "texts"), texts_of, texts, left),
            }
        return sent(Embeddings(model=name, elapsed_ms=since(started), **embedded))

    return embed


# -- search


def _searched(service: Service) -> Body:
    settings = service.settings
    fields: dict[str, Any] = {}
    if "images" in service.opened:
        fields["text"] = _optional(types(settings)["one text"], "find pictures for this text")
    if "texts" in service.opened:
        fields[IMAGES] = _optional(pictures(1, 1), "find texts for this picture")
    number = Annotated[int, Described(ge=1, le=_MOST_RESULTS)]
    fields["num_results"] = number, Described(10, description="how many are found at most")
    return Body.of_types("search_request", fields, settings)


def _searching(service: Service, body: Body) -> Callable[[Request], Awaitable[Response]]:
    assert service.embedder is not None
    name, model = service.embedder

    def read(received: Received) -> tuple[str | torch.Tensor, str, int]:
        given = body.read(received)
        if ("text" in given) == (IMAGES in given):
            wanted = " or ".join(key for key in body.model.model_fields if key != "num_results")
            raise Problem(400 if "text" not in given else 422, f"Pass {wanted}", "text")
        kind, number = "images" if "text" in given else "texts", given.get("num_results", 10)
        with naming_fields(model, name, given):
            return given["text"] if "text" in given else model.prepared(given[IMAGES][0]), kind, number

    async def search(request: Request) -> Response:
        """Find pictures for a text, or texts for a picture."""
        started, received = perf_counter(), await receive(request)

        def found(queries: Sequence[str | torch.Tensor]) -> list[list[Found]]:
            opened = service.opened[kind]
            return [find(model, service.index, opened, query, number, quiet=True) for query in queries]

        with watched(request) as left:
            query, kind, number = await service.prepare(read, received, left=left)
            (hits,) = await service.compute((name, "search", object()), found, [query], left)
        results = [
            Hit(
                score=hit.score,
                number=hit.number,
                source=hit.place.source.rpartition("/")[2],
                dataset=hit.place.dataset,
                row=hit.place.row,
                text=hit.place.text,
            )
            for hit in hits
        ]
        return sent(Hits(model=name, elapsed_ms=since(started), kind=kind, results=results))

    return search


def _showing(service: Service) -> Callable[..., Awaitable[Response]]:
    _, place_of = service.opened["images"]

    def thumbnail(number: int) -> bytes:
        if number >= service.counts["images"]:
            raise Problem(404, f"The index has no picture {number}", "number")
        place, identity = place_of(number)
        try:
            picture = to_pil(open_image(read_image(place, identity)))
        except (MissingFile, ChangedFile) as error:
            raise Problem(404, f"Picture {number} is no longer what was indexed", "number") from error
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        file = io.BytesIO()
        picture.save(file, "JPEG")
        return file.getvalue()

    async def show(request: Request, number: Annotated[int, Path(ge=0, le=2**31)]) -> Response:
        """Show a picture of the index, small."""
        await request.body()  # it is empty, and has to be received before the client can be watched
        with watched(request) as left:
            content = await service.prepare(thumbnail, number, left=left)
        return Response(content, media_type="image/jpeg")

    return show


# -- explanations


def _explainable(service: Service) -> list[str]:
    """The heads whose answers are explained: those that look at images and do not write."""
    return [
        path
        for path, head in service.heads.items()
        if IMAGES in head.fields and not isinstance(head.model.forms[head.name], forms.Writing)
    ]


def _explained(service: Service) -> Body:
    known, settings = types(service.settings), service.settings
    heads = _explainable(service)
    fields: dict[str, Any] = {
        "head": (Literal[tuple(heads)], Described(description="the head whose answer is explained")),
        "method": _optional(Literal[tuple(_METHODS)], "how; by default the first method of /v1/heads"),
        "choice": (Annotated[int, Described(ge=0, le=100)], Described(0, description="0 is the best answer")),
    }
    for head in (service.heads[path] for path in heads):
        for name, field in head.fields.items():
            kind = pictures(1, 2) if name == IMAGES else known.get("" if name == "text" else name, known["one text"])
            fields.setdefault(name, _optional(kind, field.about))
    return Body.of_types("explain_request", fields, settings)


def _explaining(service: Service, body: Body) -> Callable[[Request], Awaitable[Response]]:
    def read(received: Received) -> tuple[Head, forms.Request, dict[str, Any]]:
        given = body.read(received)
        head = service.heads[given.pop("head")]
        options: dict[str, Any] = {name: given.pop(name) for name in ("method", "choice") if name in given}
        images = given.get(IMAGES, [])
        given = head.body.checked(given | ({IMAGES: [""] * len(images)} if images else {}))
        (request,) = head.requests(given | {IMAGES: images})
        return head, request, options

    def explained(items: Sequence[tuple[Head, forms.Request, dict[str, Any]]]) -> list[Explanation]:
        found = []
        for head, request, options in items:
            with naming_fields(head.model, head.checkpoint, [*head.fields, *options]):
                found.append(explain(head.model, head.name, request, **options))
        return found

    under_way = 0

    async def explain_(request: Request) -> Response:
        """Say how much each word and patch matters for an answer."""
        nonlocal under_way
        started, received = perf_counter(), await receive(request)
        if under_way >= _MOST_EXPLAINED:
            raise busy(f"{under_way} explanations are under way")
        under_way += 1
        try:
            with watched(request) as left:
                asked = await service.prepare(read, received, left=left)
                name = asked[0].checkpoint
                (one,) = await service.compute((name, "explain", object()), explained, [asked], left)
        finally:
            under_way -= 1
        maps = [_map(own, one.patch_size) for own in one.maps]
        return sent(
            Explained(
                model=name,
                elapsed_ms=since(started),
                head=one.head,
                method=one.method,
                answer=one.answer,
                value=one.value,
                tokens=one.tokens,
                words=one.words.tolist(),
                grid=list(one.grid),
                image=maps[0].values,
                per_word=maps[0].per_word,
                maps=maps,
            )
        )

    return explain_


def _map(own: ImageMap, patch_size: int) -> PictureMap:
    (across, _, left), (_, down, top) = own.placement.matrix.tolist()  # from the picture to the image that is seen
    rows, columns = own.values.shape
    edges = (-left / across, -top / down, (columns * patch_size - left) / across, (rows * patch_size - top) / down)
    per_word = None if own.per_word is None else own.per_word.tolist()
    return PictureMap(place=list(edges), values=own.values.tolist(), per_word=per_word)
