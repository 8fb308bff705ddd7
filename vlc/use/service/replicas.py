"""The service on a Ray cluster: Ray Serve runs replicas of the application, and spreads requests over them.

`serve run deploy/ray_serve.yaml` starts it; the file holds checkpoint, replicas and autoscaling.
"""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from ray import serve

from vlc.configuration.config import resolve_use
from vlc.configuration.use_settings import UseSettings
from vlc.use.service.app import create_app
from vlc.use.service.serve import open_models


def service(arguments: Mapping[str, Any]) -> serve.Application:
    """Return the Ray Serve application, each of whose replicas opens the checkpoints for itself.

    arguments: config keys, as `run.py serve with` takes them; host and port are Ray Serve's own.
    Raises UserError for keys that do not exist.
    """
    config, given = resolve_use(**arguments)
    use = UseSettings.from_config(config)

    def opened() -> FastAPI:
        return create_app(open_models(config, given), use.service, use.index or "")

    @serve.deployment
    @serve.ingress(opened)
    class Service:
        """A replica."""

    return Service.bind()  # type: ignore[attr-defined]
