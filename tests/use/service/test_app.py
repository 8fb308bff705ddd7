"""What holds for every address: limits, keys, errors that are not foreseen, health, and the description."""

import asyncio
import io
import logging
import struct
import threading
import zlib

import pytest
from PIL import Image

from tests import tiny
from tests.use.service.asking import asked, body, form, problem, served
from vlc.common.errors import NonFiniteMetric
from vlc.use.forms import Request
from vlc.use.service.batching import ClientLeft

PNG, OTHER = (tiny.image_bytes(number, kind="PNG") for number in (0, 1))
ASKED = {"images": [PNG], "text": "what"}


def bomb(width: int, height: int) -> bytes:
    """A PNG that says it is this large, of a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_requests_that_come_together_are_one_batch_and_are_not_mixed_up(model):
    """Of heads and images in turn, with a bad one among them."""
    texts = ["what", "is it a dog", "where is the cat", "a [MASK]"]

    async def work(client, service):
        sent = []
        for number in range(16):
            fields = {"images": [(PNG, OTHER)[number % 2]], "text": texts[number % 4]}
            sent.append(client.post(("/v1/vqa", "/v1/snli_ve")[number // 8], **form(**fields)))
        sent.append(client.post("/v1/vqa", **form(images=[PNG[:-60]], text="what")))
        return await asyncio.gather(*sent), service.metrics.registry

    (*answers, bad), registry = served(model, work, wait_ms=200)
    problem(bad, 400, "images")
    for number, response in enumerate(answers):
        head = ("vqa", "snli_ve")[number // 8]
        ((expected,),) = model.ask(head, [model.prepare(head, Request([(PNG, OTHER)[number % 2]], texts[number % 4]))])
        (choices,) = [one["choices"] for one in response.json()["results"][0]["answers"]]
        assert [one["answer"] for one in choices] == [name for name, _ in expected.choices]
        assert [one["value"] for one in choices] == pytest.approx([value for _, value in expected.choices], abs=1e-5)
    assert registry.get_sample_value("vlc_batch_size_sum", {"head": "vqa"}) == 8
    assert registry.get_sample_value("vlc_batch_size_count", {"head": "vqa"}) == 1
    assert registry.get_sample_value("vlc_requests_total", {"path": "/v1/vqa", "status": "200"}) == 8


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large(model, chunked):
    content = b"x" * 5000

    async def pieces():
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    response = asked(
        model,
        "/v1/vqa",
        settings={"max_bytes": 4000},
        content=pieces() if chunked else content,
        headers={"content-type": "application/json"},
    )
    assert problem(response, 413) == "The body has more than 4000 bytes"


@pytest.mark.parametrize("sent", [form, body])
def test_too_many_pixels_are_not_decoded(model, sent, monkeypatch):
    monkeypatch.setattr(type(model), "prepare", lambda *_: pytest.fail("decoded"))
    for image in (bomb(10_000, 10_000), bomb(2**31 - 1, 2**31 - 1), bomb(7072, 7072)):
        detail = problem(asked(model, "/v1/vqa", **sent(images=[image], text="what")), 413, "images")
        assert detail == "A picture has more than 50,000,000 pixels: make it smaller"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_kinds_of_pictures_are_known_by_their_content(model, kind):
    file = io.BytesIO()
    Image.open(io.BytesIO(PNG)).save(file, kind)
    assert asked(model, "/v1/vqa", **form(images=[file.getvalue()], text="what")).status_code == 200


@pytest.mark.parametrize("content", [b"", b"x", b"<svg/>", b"%!PS-Adobe EPSF", b"\x89PNG\r\n\x1a\n"])
def test_other_kinds_are_refused(model, content):
    problem(asked(model, "/v1/vqa", **form(images=[content], text="what")), 415, "images")


def test_a_full_service_refuses(model, monkeypatch):
    go = threading.Event()
    ask = type(model).ask
    monkeypatch.setattr(type(model), "ask", lambda *given: go.wait(10) and ask(*given))

    async def work(client, service):
        first = [asyncio.create_task(client.post("/v1/vqa", **form(**ASKED))) for _ in range(2)]
        while len(service.batcher) < 2:
            await asyncio.sleep(0.01)
        refused = await client.post("/v1/vqa", **form(**ASKED))
        health = await client.get("/health/ready")
        go.set()
        return refused, health, await asyncio.gather(*first), await client.post("/v1/vqa", **form(**ASKED))

    refused, health, first, later = served(model, work, queue=2, wait_ms=200)
    assert problem(refused, 503) == "2 requests are under way"
    assert refused.headers["retry-after"] == "1"
    assert [one.status_code for one in (health, *first, later)] == [200] * 4


def test_an_answer_that_takes_too_long(model, monkeypatch):
    go = threading.Event()
    monkeypatch.setattr(type(model), "ask", lambda *_: go.wait(10))

    async def work(client, _):
        response = await client.post("/v1/vqa", **form(**ASKED))
        go.set()
        return response

    assert problem(served(model, work, timeout_s=0.2), 504) == "There was no answer within 0.2 seconds"


def test_a_client_that_left_costs_nothing(model, monkeypatch):
    """It left while its picture was decoded."""
    monkeypatch.setattr(type(model), "ask", lambda *_: pytest.fail("computed"))

    async def work(_, service):
        head = service.heads["vqa"]
        left = iter([False, True])
        with pytest.raises(ClientLeft):
            await service.ask(head, ASKED, lambda: next(left))
        return service.metrics.registry.get_sample_value("vlc_dropped_total")

    assert served(model, work) == 1


def test_stopping(model, monkeypatch):
    go = threading.Event()
    ask = type(model).ask
    monkeypatch.setattr(type(model), "ask", lambda *given: go.wait(10) and ask(*given))

    async def work(client, service):
        waiting = asyncio.create_task(client.post("/v1/vqa", **form(**ASKED)))
        while not len(service.batcher):
            await asyncio.sleep(0.01)
        stopped = asyncio.create_task(service.close())
        await asyncio.sleep(0.01)
        refused = await client.post("/v1/vqa", **form(**ASKED))
        health = [await client.get(f"/health/{name}") for name in ("live", "ready")]
        go.set()
        await stopped
        return await waiting, refused, *health

    answered, refused, live, ready = served(model, work, wait_ms=100)
    assert (answered.status_code, live.status_code) == (200, 200)
    assert problem(refused, 503) == problem(ready, 503) == "The service stops"


def test_errors_that_are_not_foreseen_are_opaque(model, monkeypatch, caplog):
    def fail(_, __, prepared):
        raise RuntimeError(f"cannot read {prepared[0].request.text}")

    monkeypatch.setattr(type(model), "ask", fail)
    with caplog.at_level(logging.DEBUG):
        response = asked(model, "/v1/vqa", **form(images=[PNG], text="my private words"))
    detail = problem(response, 500)
    identity = response.json()["id"]
    assert identity in detail
    assert f"{identity}: RuntimeError" in caplog.text
    assert "test_app.py" in caplog.text, "the log says where"
    assert "private words" not in caplog.text + response.text


def test_values_that_are_not_finite_are_errors_of_the_service(model, monkeypatch):
    def fail(*_):
        raise NonFiniteMetric("NaN")

    monkeypatch.setattr(type(model), "ask", fail)
    problem(asked(model, "/v1/vqa", **form(**ASKED)), 500)


def test_the_key(model, monkeypatch):
    async def work(client, _):
        statuses = {}
        for given in ("", "Bearer wrong", "Basic key", "Basic YTprZXk=", "Bearer key"):  # a:key in base64
            headers = {"Authorization": given} if given else {}
            statuses[given] = [
                (await client.post("/v1/vqa", **form(**ASKED), headers=headers)).status_code,
                (await client.get("/metrics", headers=headers)).status_code,
                (await client.get("/v1/heads", headers=headers)).status_code,
                (await client.get("/health/ready", headers=headers)).status_code,
            ]
        refused = [await client.post(path) for path in ("/v1/none", "/page/vqa")]
        return statuses, refused, (await client.get("/openapi.json")).json()

    statuses, (refused, without_script), schema = served(model, work, api_key="key")
    assert statuses.pop("Bearer key") == statuses.pop("Basic YTprZXk=") == [200] * 4
    assert list(statuses.values()) == [[401, 401, 401, 200]] * 3
    problem(refused, 401)
    assert refused.headers["www-authenticate"] == "Bearer"
    assert without_script.headers["www-authenticate"].startswith("Basic ")
    assert schema["paths"]["/v1/vqa"]["post"]["security"] == [{"key": []}]
    monkeypatch.setenv("VLC_API_KEY", "of the environment")
    assert asked(model, "/v1/vqa", **form(**ASKED)).status_code == 401


def test_every_answer_has_headers_of_safety(model):
    async def work(client, _):
        return [
            await client.get("/health/live"),
            await client.get("/nowhere"),
            await client.get("/v1/vqa"),
            await client.post("/v1/vqa", **form(**ASKED)),
            await client.post("/v1/vqa", content=b"x" * 2**25),
        ]

    answers = served(model, work)
    assert [one.status_code for one in answers] == [200, 404, 405, 200, 413]
    for one in answers:
        assert one.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in one.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in one.headers["content-security-policy"]
    for one, status in ((answers[1], 404), (answers[2], 405)):
        problem(one, status)
    assert answers[2].headers["allow"] == "POST"


def test_the_description_says_what_is_sent(model):
    schema = asked(model, "/openapi.json", "GET").json()
    paths = schema["paths"]
    assert {f"/v1/{name}" for name in model.forms} <= set(paths)
    assert {"/", "/v1/heads", "/v1/embed", "/v1/explain", "/health/live", "/health/ready", "/metrics"} <= set(paths)
    content = paths["/v1/refer"]["post"]["requestBody"]["content"]
    assert content["application/json"]["schema"]["required"] == ["images", "text"]
    assert content["multipart/form-data"]["schema"]["properties"]["images"]["items"]["format"] == "binary"
    for path, methods in paths.items():
        for method, described in methods.items():
            for status, response in described["responses"].items():
                (kind,) = response["content"]
                assert (kind == "application/problem+json") == (int(status) >= 400), (path, method, status)
    assert schema["components"]["schemas"]["Problem"]["required"] == ["title", "status", "detail"]
