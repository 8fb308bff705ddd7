"""The heads of checkpoints: POST /v1/{head} for each, and POST / as the published service has it."""

from collections.abc import Awaitable, Callable
from time import perf_counter

from fastapi import APIRouter, Response
from pydantic import BaseModel
from starlette.requests import Request

from vlc.use.forms import Prepared
from vlc.use.service.answers import Answers, Judgement, result
from vlc.use.service.bodies import FORM, IMAGES, Received, receive
from vlc.use.service.clients import watched
from vlc.use.service.problems import Problem, described_errors
from vlc.use.service.service import Head, Service

_PUBLISHED = {"fileupload": IMAGES, "fileupload2": IMAGES, "text_input": "text"}
_ERRORS = (400, 413, 415, 422, 500, 503, 504)


def router(service: Service) -> APIRouter:
    """The addresses of the heads."""
    router = APIRouter(tags=["heads"], responses=described_errors(*_ERRORS, key=service.api_key))
    for path, head in service.heads.items():
        router.add_api_route(
            f"/v1/{path}",
            _asking(service, head),
            methods=["POST"],
            response_model=Answers,
            summary=f"Ask the head {head.name} of {head.checkpoint}",
            operation_id=f"ask_{path.replace('/', '_')}",
            openapi_extra={"requestBody": head.body.described()} | service.secured,
        )
    if service.default_head is not None:
        router.add_api_route(
            "/",
            _judging(service, service.default_head),
            methods=["POST"],
            response_model=Judgement,
            summary="Judge whether a picture entails a text, or ask the head that `task` names",
            operation_id="judge",
            openapi_extra={"requestBody": _described_form(service)} | service.secured,
        )
    return router


def _asking(service: Service, head: Head) -> Callable[[Request], Awaitable[Response]]:
    async def ask(request: Request) -> Response:
        started, received = perf_counter(), await receive(request)
        with watched(request) as left:
            prepared = await service.prepare(head.read, received, left=left)
            found = await service.answers(head, prepared, left)
        asked = [one.request.text for one in prepared]
        results = [result(text, own) for text, own in zip(asked, found, strict=True)]
        return sent(Answers(task=head.name, model=head.checkpoint, elapsed_ms=since(started), results=results))

    return ask


def _judging(service: Service, default: Head) -> Callable[[Request], Awaitable[Response]]:
    def read(received: Received) -> tuple[Head, list[Prepared]]:
        form = received.parts(service.settings)
        tasks = [value for key, value in form if key == "task"]
        head = service.heads.get(str(tasks[0]), None) if tasks else default
        if head is None or len(tasks) > 1:
            raise Problem(422, f"task: expected one of {', '.join(service.heads)}", "task")
        parts = sorted((part for part in form if part[0] != "task"), key=lambda part: part[0])
        prepared = head.read_parts([(_PUBLISHED.get(key, key), value) for key, value in parts])
        if len(prepared) > 1:
            raise Problem(422, "text is given more than once", "text")
        return head, prepared

    async def judge(request: Request) -> Response:
        started, received = perf_counter(), await receive(request, kinds=(FORM,))
        try:
            with watched(request) as left:
                head, prepared = await service.prepare(read, received, left=left)
                ((answer, *_),) = await service.answers(head, prepared, left)
        except Problem as problem:
            raise _renamed(problem) from problem
        return sent(
            Judgement(
                task=head.name,
                label=answer.choices[0][0],
                scores=dict(answer.choices),
                text=prepared[0].request.text,
                model=head.checkpoint,
                elapsed_ms=since(started),
            )
        )

    return judge


def _renamed(problem: Problem) -> Problem:
    """The problem with the field as the published form names it."""
    names = {own: key for key, own in reversed(_PUBLISHED.items())}
    field = names.get(problem.field or "", problem.field)
    detail = problem.detail
    if problem.field and field and detail.startswith(problem.field):
        detail = field + detail.removeprefix(problem.field)
    return Problem(problem.status, detail, field, problem.identity, problem.headers)


def _described_form(service: Service) -> dict:
    file = {"type": "string", "format": "binary", "description": "A picture."}
    text = {"type": "string", "minLength": 1, "maxLength": service.settings.max_text, "pattern": r"\S"}
    properties = {
        "fileupload": file,
        "fileupload2": {**file, "description": "The second picture of a statement about two."},
        "text_input": {**text, "description": "The text that is judged, or a question."},
        "task": {"type": "string", "enum": list(service.heads), "description": "The head to ask."},
    }
    form = {"type": "object", "properties": properties, "required": ["fileupload"], "additionalProperties": False}
    encoding = {name: {"contentType": "image/*"} for name in ("fileupload", "fileupload2")}
    return {"required": True, "content": {FORM: {"schema": form, "encoding": encoding}}}


def sent(content: BaseModel) -> Response:
    """An answer as JSON."""
    return Response(content.model_dump_json(), media_type="application/json")


def since(started: float) -> float:
    """Milliseconds, rounded to hundredths."""
    return round(1000 * (perf_counter() - started), 2)
