"""The application: the addresses of the service, and its description by OpenAPI."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

import vlc
from vlc.configuration.command_settings import ServiceSettings
from vlc.use.model import Model
from vlc.use.service import answers, heads, others, page
from vlc.use.service.guard import Direct, Guard
from vlc.use.service.problems import Problem, ProblemDetails, busy, described_errors
from vlc.use.service.service import Service


def create_app(models: Mapping[str, Model], settings: ServiceSettings, index: str = "") -> FastAPI:
    """Return the ASGI application that asks models.

    models: by the names of their checkpoints.
    index: the folder of an index to search; empty: none.
    Raises UserError for an index that none of the models made.
    """
    service = Service(models, settings, index)

    @asynccontextmanager
    async def closing(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(title="vlc", version=vlc.__version__, docs_url=None, redoc_url=None, lifespan=closing)
    app.state.service = service
    asked = heads.router(service)
    app.add_middleware(Direct, router=asked)
    app.add_middleware(Guard, service=service)
    app.add_exception_handler(Problem, _sent)
    app.add_exception_handler(HTTPException, _sent)
    app.add_exception_handler(RequestValidationError, _sent)
    app.include_router(_watching(service))
    app.include_router(others.router(service))
    app.include_router(asked)
    app.include_router(page.router(service), include_in_schema=False)
    app.openapi = lambda: _described(app, service)  # type: ignore[method-assign]
    return app


async def _sent(_: Request, error: Exception) -> Response:
    """The answer for a Problem, or for an address or a method that does not exist."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        error = Problem(422, f"{first['loc'][-1]}: {first['msg']}", str(first["loc"][-1]))
    if isinstance(error, HTTPException):
        error = Problem(error.status_code, error.detail, headers=error.headers)
    assert isinstance(error, Problem)
    return error.response()


def _watching(service: Service) -> APIRouter:
    """What watches over the service: health and metrics."""
    router = APIRouter(tags=["health"])

    @router.get("/health/live", response_model=answers.Health)
    async def live() -> Response:
        """Say that the process answers."""
        return JSONResponse({"status": "live"})

    @router.get("/health/ready", response_model=answers.Health, responses=described_errors(503))
    async def ready() -> Response:
        """Say whether requests are taken."""
        if service.stopping:
            raise busy("The service stops")
        return JSONResponse({"status": "ready"})

    counted: dict[int | str, Any] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}
    errors = described_errors(key=service.api_key)

    @router.get("/metrics", response_class=Response, responses={**counted, **errors})
    async def metrics() -> Response:
        """Count requests, batches and seconds for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


def _described(app: FastAPI, service: Service) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes, description=heads.__doc__)
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = ProblemDetails.model_json_schema()
        shown = {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}}
        schema["paths"].setdefault("/", {})["get"] = {"summary": "Show the page", "responses": {"200": shown}}
        if service.api_key:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        app.openapi_schema = schema
    return app.openapi_schema
