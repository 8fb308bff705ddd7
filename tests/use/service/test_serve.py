"""`run.py serve` and `python -m vlc.client` as programs."""

import io
import re
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from tests import tiny
from vlc.common.errors import UserError
from vlc.configuration.config import resolve_use
from vlc.use.service.serve import open_models, serve


def test_the_client_asks_the_service(checkpoint, tmp_path):
    (tmp_path / "image.png").write_bytes(tiny.image_bytes(kind="PNG"))
    words = ["serve", "with", f"load_path={checkpoint}", "num_gpus=0", "service.port=0", "service.api_key=key"]
    words.append("service.processes=2")
    with subprocess.Popen([sys.executable, "run.py", *words], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert isinstance(server.stdout, io.TextIOBase)
            line = next(line for line in server.stdout if line.startswith("Listening"))
            found = re.search(r"http://127\.0\.0\.1:\d+", line)
            assert found is not None
            given = ["--image", str(tmp_path / "image.png"), "--text", "a dog", "--url", found[0], "--key"]
            client = [sys.executable, "-m", "vlc.client"]
            asked = [
                subprocess.run([*client, *given, key], capture_output=True, text=True, timeout=60)
                for key in ("key", "another")
            ]
            metrics = httpx.get(f"{found[0]}/metrics", headers={"Authorization": "Bearer key"}).text
        finally:
            server.send_signal(signal.SIGTERM)
            rest = server.stdout.read()
        assert server.wait(30) == 0, rest
    answered, refused = asked
    assert 'vlc_requests_total{path="/",status="200"} 1.0' in metrics, "of whichever process answered"
    scores = dict(reversed(line.split(maxsplit=1)) for line in answered.stdout.splitlines())
    assert set(scores) == {"contradiction", "neutral", "entailment"}
    assert sum(map(float, scores.values())) == pytest.approx(1, abs=1e-3)
    assert refused.returncode == 1
    assert refused.stderr.startswith("vlc.client: 401: This service wants its key")


def test_the_client_needs_no_torch_and_says_what_is_wrong(tmp_path, free_port):
    code = "import sys, vlc.client; print({'torch', 'fastapi'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
    image = tmp_path / "image.png"
    client = [sys.executable, "-m", "vlc.client", "--image", str(image), "--url", f"http://127.0.0.1:{free_port}"]
    assert "No such file" in subprocess.run(client, capture_output=True, text=True).stderr
    image.write_bytes(b"x")
    assert "cannot be asked" in subprocess.run(client, capture_output=True, text=True).stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"service": {"prt": 1}}, "Unknown option of service 'prt'. Did you mean port"),
        ({"service": {"port": 70000}}, r"service\.port=70000 is not valid: expected 0 to 65535"),
        ({"service": {"port": "x"}}, r"service\.port='x' is not valid: expected a whole number"),
        ({"service": {"queue": 0}}, r"service\.queue=0 is not valid: expected 1 or more"),
        ({"service": {"checkpoints": {"a/b": "x"}}}, r"service\.checkpoints=.* expected paths by names"),
        ({"service": 3}, "service=3 is not valid: expected options by name"),
        ({"service": {"host": "nowhere.invalid"}}, r"service\.host=nowhere\.invalid .* cannot be listened at"),
        ({"service": {"port": 0}}, r"load_path=CHECKPOINT is missing \(or service\.checkpoints"),
        ({"service": {"port": 0}, "load_path": "none.ckpt"}, r"none\.ckpt does not exist"),
    ],
)
def test_settings_that_are_not_valid(values, message):
    with pytest.raises(UserError, match=message):
        serve(*resolve_use(**values, num_gpus=0))


def test_an_address_that_is_taken(free_port):
    with socket.socket() as other:
        other.bind(("127.0.0.1", free_port))
        other.listen()
        with pytest.raises(UserError, match=f"service.port={free_port} cannot be listened at"):
            serve(*resolve_use(load_path="x", service={"port": free_port}))


def test_several_checkpoints_have_names(checkpoint):
    config, given = resolve_use(
        num_gpus=0, load_path=str(checkpoint), service={"checkpoints": {"two": str(checkpoint)}}
    )
    assert list(open_models(config, given)) == ["all-heads", "two"]
    config, given = resolve_use(load_path=str(checkpoint), service={"checkpoints": {"all-heads": str(checkpoint)}})
    with pytest.raises(UserError, match="another checkpoint all-heads"):
        open_models(config, given)


def test_a_service_beyond_this_machine_warns(checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    monkeypatch.delenv("VLC_API_KEY", raising=False)
    for host, key, warned in [("0.0.0.0", None, True), ("0.0.0.0", "key", False), ("127.0.0.1", None, False)]:
        service = {"host": host, "port": 0, "api_key": key}
        serve(*resolve_use(num_gpus=0, load_path=str(checkpoint), service=service))
        assert ("WARNING: This service listens at 0.0.0.0 and asks for no key" in capsys.readouterr().out) == warned
