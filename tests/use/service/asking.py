"""Requests to an application in this process."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import httpx

from vlc.configuration.command_settings import ServiceSettings
from vlc.use.model import Model
from vlc.use.service.app import create_app
from vlc.use.service.service import Service

AS_JSON = ("boxes", "history", "named_boxes")  # in forms


def served(
    models: Model | Mapping[str, Model],
    work: Callable[[httpx.AsyncClient, Service], Awaitable[Any]],
    index: str = "",
    **settings: Any,
) -> Any:
    """Return what a function makes of a client and the service; then stop the service."""
    named = {"all-heads": models} if isinstance(models, Model) else models

    async def run() -> Any:
        app = create_app(named, ServiceSettings(**settings), index)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            try:
                return await work(client, app.state.service)
            finally:
                await app.state.service.close()

    return asyncio.run(run())


def asked(
    models: Any, path: str, method: str = "POST", settings: Mapping[str, Any] | None = None, **request: Any
) -> Any:
    """Return the response to a single request."""
    return served(models, lambda client, _: client.request(method, path, **request), **(settings or {}))


def form(**fields: Any) -> dict[str, Any]:
    """The arguments of a request with a form: files are bytes, and lists stand for fields that are repeated."""
    parts = []
    for name, value in fields.items():
        if name in AS_JSON:
            value = json.dumps(value)
        for one in value if isinstance(value, list | tuple) else [value]:
            parts.append((name, ("name.png", one) if isinstance(one, bytes) else (None, str(one))))
    return {"files": parts}


def body(**fields: Any) -> dict[str, Any]:
    """The arguments of a request with JSON."""
    if "images" in fields:
        fields["images"] = [base64.b64encode(image).decode() for image in fields["images"]]
    return {"json": fields}


def problem(response: httpx.Response, status: int, field: str | None = None) -> str:
    """Return what is wrong, after a check of the form of the error."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert content["status"] == status
    assert content["title"]
    assert content.get("field") == field, content
    return content["detail"]
