"""Short forms of `python -m benchmarks.service`: odd requests, hostile pictures, and clients at once."""

import asyncio
import io
import random
import struct

import numpy as np
import pytest
from PIL import Image

from benchmarks.service.asking import is_answer, offline, requests
from benchmarks.service.memory import slope_of
from benchmarks.service.pictures import hostile, many_scans
from tests.use.service.asking import form, served
from vlc.configuration.command_settings import ServiceSettings
from vlc.use.service.app import create_app

HEADS = ("vqa", "nlvr2", "visdial", "refer", "refer_box")


@pytest.mark.parametrize("way", ["by_schema", "by_forms"])
def test_odd_requests_are_answered_as_openapi_says(model, way):
    pytest.importorskip("schemathesis", reason="it needs Python 3.11")
    from benchmarks.service import fuzz

    app = create_app({"all-heads": model}, ServiceSettings())
    outcome = getattr(fuzz, way)(app, 100, seed=1)
    assert outcome.faults == []
    assert outcome.statuses.total() >= 100
    assert {200, 400, 422} <= outcome.statuses.keys()


def test_hostile_pictures_are_no_errors_of_the_service(model):
    async def work(client, _):
        sent = [(name, form(images=[data], text="what")) for name, data in hostile(60, seed=2) if len(data) < 10**6]
        return [(name, await client.post("/v1/vqa", **one)) for name, one in sent]

    found = served(model, work, max_pixels=10**6)
    assert len(found) >= 55
    assert {(name, response.status_code) for name, response in found if response.status_code >= 500} == set()
    assert {200, 400, 413, 415} <= {response.status_code for _, response in found}


def test_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(model):
    async def work(client, _):
        return [await client.post("/v1/vqa", **form(images=[many_scans(n, 64)], text="a")) for n in (20, 10_000)]

    taken, refused = served(model, work)
    assert taken.status_code == 200
    assert refused.status_code == 413
    assert "more than 64 scans" in refused.json()["detail"]


def test_answers_of_clients_at_once_are_not_mixed_up(model):
    asked = requests(model, HEADS, 40, seed=3)
    expected = offline(model, asked, batch=8)

    async def work(client, _):
        async def one_client(number):
            order = random.Random(number).choices(range(len(asked)), k=25)
            return [(at, await client.post(f"/v1/{asked[at].head}", **_body(asked[at]))) for at in order]

        return [pair for pairs in await asyncio.gather(*map(one_client, range(8))) for pair in pairs]

    found = served(model, work)
    assert len(found) == 200
    assert all(is_answer(response.content, asked[at], expected[at]) for at, response in found)
    other = asked.index(next(one for one in asked[len(HEADS) :] if one.head == "vqa"))
    mixed = [is_answer(response.content, asked[other], expected[other]) for at, response in found if at < other]
    assert not any(mixed), "the check sees no difference between answers"


def _body(one):
    head, _, content = one.message.partition(b"\r\n\r\n")
    (kind,) = [line for line in head.decode().splitlines() if line.startswith("Content-Type: ")]
    return {"content": content, "headers": {"content-type": kind.removeprefix("Content-Type: ")}}


def test_the_slope_of_memory():
    assert slope_of([0, 1000, 2000], [5, 7, 9]) == pytest.approx(0.002)


def test_a_tiff_of_a_jpeg_of_many_scans_is_refused(model):
    """A TIFF whose only strip is such a JPEG; a TIFF of as many bytes, which are no scans, is taken."""
    side = 64
    jpeg = many_scans(100, side)
    tags = {256: side, 257: side, 258: 8, 259: 7, 262: 1, 273: 0, 277: 1, 278: side, 279: len(jpeg)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    tiff = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    pixels = np.tile(np.array([255, 0xDA, 185], np.uint8), (side, side, 1))
    plain = io.BytesIO()
    Image.fromarray(pixels).save(plain, "TIFF")

    async def work(client, _):
        return [await client.post("/v1/vqa", **form(images=[one], text="a")) for one in (tiff + jpeg, plain.getvalue())]

    refused, taken = served(model, work)
    assert refused.status_code == 413
    assert taken.status_code == 200
