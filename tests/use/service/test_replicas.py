"""Two replicas of the service on a Ray of this machine. Skipped without ray[serve]."""

import importlib.util
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from tests import tiny
from tests.use.service.asking import form
from vlc.use.forms import Request

ROOT = Path(__file__).parents[3]
PNG = tiny.image_bytes(kind="PNG")

pytestmark = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("ray", "grpc_reflection"))), reason="ray[serve] is not installed"
)


@pytest.fixture
def client(checkpoint, tmp_path, free_port, monkeypatch):
    """A client of two replicas, which the file of the documentation describes."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports its use otherwise
    config = yaml.safe_load((ROOT / "deploy" / "ray_serve.yaml").read_text())
    config["http_options"]["port"] = free_port
    (application,) = config["applications"]
    application["args"]["load_path"] = str(checkpoint)
    application["deployments"][0]["autoscaling_config"]["min_replicas"] = 2
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "ray.serve.scripts", "run", str(tmp_path / "serve.yaml")]
    with subprocess.Popen(command, cwd=ROOT) as serving, httpx.Client(timeout=60) as client:
        client.base_url = httpx.URL(f"http://127.0.0.1:{free_port}")
        try:
            _wait_for_replicas(client, serving)
            yield client
        finally:
            serving.send_signal(signal.SIGINT)


def _wait_for_replicas(client, serving, seconds=180):
    """Wait until two processes have answered."""
    starts, latest = set(), time.monotonic() + seconds
    while len(starts) < 2:
        assert serving.poll() is None
        assert time.monotonic() < latest, f"{len(starts)} replicas answer"
        try:
            starts |= {*re.findall(r"process_start_time_seconds [\d.e+]+", client.get("/metrics").text)}
        except httpx.TransportError:
            time.sleep(0.5)


def test_two_replicas_answer_as_the_model_does(model, client):
    texts = [f"is it {number}" for number in range(12)]
    with ThreadPoolExecutor(6) as threads:
        responses = list(threads.map(lambda text: client.post("/v1/vqa", **form(images=[PNG], text=text)), texts))
    for text, response in zip(texts, responses, strict=True):
        ((expected,),) = model.ask("vqa", [model.prepare("vqa", Request([PNG], text))])
        (result,) = response.json()["results"]
        assert result["text"] == text
        given = {one["answer"]: one["value"] for one in result["answers"][0]["choices"]}
        assert given == pytest.approx(dict(expected.choices), abs=1e-5)
    assert client.post("/v1/vqa", **form(images=[b"x"], text="a")).status_code == 415
    assert client.get("/health/ready").status_code == 200
