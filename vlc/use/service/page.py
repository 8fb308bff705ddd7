"""The page: a tab for each head, for people with a browser."""

from fastapi import APIRouter, Response

from vlc.use.service.service import Service


def router(service: Service) -> APIRouter:
    """The addresses of the page."""
    router = APIRouter()

    @router.get("/")
    async def start() -> Response:
        return Response("The page is not there yet.", media_type="text/plain")

    return router
