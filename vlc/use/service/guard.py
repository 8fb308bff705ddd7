"""What holds for every request: size, time and key, the headers of its answer, and errors that are not foreseen."""

import base64
import logging
import secrets
import traceback
from time import perf_counter
from typing import Any

import anyio
from fastapi import APIRouter
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlc.use.service.batching import ClientLeft
from vlc.use.service.problems import Problem, busy
from vlc.use.service.service import Service

logger = logging.getLogger("vlc.service")

_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_RAW = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]
_NO_STORE = (b"cache-control", b"no-store")
_BASIC = 'Basic realm="vlc: any name, and the key as the password"'  # browsers without scripts ask for it then
_CLIENT_LEFT = 499  # in the metrics; nothing is sent


class Guard:
    """The outermost ASGI middleware of the service.

    A request that computes has to show the key, if there is one, and takes one of `queue` places.
    """

    def __init__(self, app: ASGIApp, service: Service):
        self.app, self.settings, self.api_key, self.metrics = app, service.settings, service.api_key, service.metrics
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = perf_counter(), 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*_RAW, _NO_STORE] if scope["method"] == "POST" else _RAW
                given = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(pair for pair in own if pair[0] not in given)]
            await send(message)

        problem: Problem | None = None
        try:
            await self._guarded(scope, self._limited(receive), sending)
        except Problem as error:
            problem = error
        except (ClientLeft, ClientDisconnect):
            status = _CLIENT_LEFT
        except Exception as error:
            problem = unforeseen(error)
        try:
            if problem is not None and not status:
                await problem.response()(scope, receive, sending)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(perf_counter() - started)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        computes = scope["method"] not in ("GET", "HEAD") or scope["path"].startswith("/v1/")
        if computes or scope["path"] == "/metrics":
            self._check_key(headers, scope["path"])
        if not computes:
            await self.app(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15 or int(length) > self.settings.max_bytes:
            raise self._too_large()
        if self.under_way >= self.settings.queue:
            raise busy(f"{self.under_way} requests are under way")
        self.under_way += 1
        self.metrics.under_way.inc()
        try:
            with anyio.fail_after(self.settings.timeout_s):  # asyncio.wait_for would make a task
                await self.app(scope, receive, send)
        except TimeoutError as error:
            raise Problem(504, f"There was no answer within {self.settings.timeout_s:g} seconds") from error
        finally:
            self.under_way -= 1
            self.metrics.under_way.dec()

    def _check_key(self, headers: Headers, path: str) -> None:
        if not self.api_key:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            given = _password(given)
        known = scheme.lower() in ("bearer", "basic")
        if not known or not secrets.compare_digest(given.encode(), self.api_key.encode()):
            detail = "This service wants its key, in the header Authorization: Bearer KEY"
            raise Problem(401, detail, headers={"WWW-Authenticate": _BASIC if path.startswith("/page/") else "Bearer"})

    def _limited(self, receive: Receive) -> Receive:
        """`receive`, until the body is too large."""
        size = 0

        async def receiving() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.settings.max_bytes:
                raise self._too_large()
            return message

        return receiving

    def _too_large(self) -> Problem:
        return Problem(413, f"The body has more than {self.settings.max_bytes} bytes", headers={"Connection": "close"})


def _password(given: str) -> str:
    """The password of Basic credentials, after any name; empty where they are none."""
    try:
        return base64.b64decode(given, validate=True).decode().partition(":")[2]
    except ValueError:  # no base64, or no UTF-8
        return ""


class Direct:
    """An ASGI middleware that calls the endpoints of heads itself: FastAPI's layers take 0.2 ms of the event loop more.

    What they add, dependencies and checks of parameters, these endpoints do not use.
    """

    def __init__(self, app: ASGIApp, router: APIRouter):
        self.app = app
        self.routes = {route.path: route for route in router.routes if isinstance(route, APIRoute)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if route is None:
            await self.app(scope, receive, send)
            return
        scope["route"] = route
        response = await route.endpoint(Request(scope, receive))
        await response(scope, receive, send)


def unforeseen(error: BaseException) -> Problem:
    """Log an error that is a defect of the service, without its text, which may repeat what a user wrote."""
    identity = secrets.token_hex(8)
    frames: list[Any] = traceback.format_tb(error.__traceback__)
    logger.error("%s: %s\n%s", identity, type(error).__name__, "".join(frames).rstrip())
    return Problem(500, f"The service failed. Its log has details under the id {identity}", identity=identity)
