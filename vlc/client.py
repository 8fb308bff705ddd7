"""Ask a running service about an image and a text, and print the scores: `python -m vlc.client --image F --text T`."""

import argparse
import json
import os
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

URL = "http://127.0.0.1:5000/"


class Refused(Exception):
    """The service refused a request, or was not reached."""


def ask(url: str, fields: Mapping[str, str | bytes], key: str = "", timeout: float = 60) -> dict:
    """Send a multipart form, and return the JSON of the answer. Raises Refused with the reason.

    fields: texts, and the bytes of files, by name.
    key: of the service, if it wants one.
    timeout: in seconds.
    """
    boundary = uuid.uuid4().hex
    body = b"".join(_part(boundary, name, value) for name, value in fields.items()) + f"--{boundary}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        with urlopen(Request(url, body, headers), timeout=timeout) as answer:
            return json.load(answer)
    except HTTPError as error:
        raise Refused(_reason(error)) from error
    except (URLError, OSError, ValueError) as error:
        raise Refused(f"{url} cannot be asked: {getattr(error, 'reason', error)}") from error


def _part(boundary: str, name: str, value: str | bytes) -> bytes:
    file = '; filename="file"' if isinstance(value, bytes) else ""
    kind = "Content-Type: application/octet-stream\r\n" if isinstance(value, bytes) else ""
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n{kind}\r\n'
    return head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"


def _reason(error: HTTPError) -> str:
    try:
        detail = json.load(error)["detail"]
    except (ValueError, LookupError, TypeError):  # another service answered
        detail = error.reason
    return f"{error.code}: {detail}"


def main() -> None:
    """Ask and print, the best answer first."""
    parser = argparse.ArgumentParser(description="Ask a running service about an image and a text.")
    parser.add_argument("--image", required=True, type=Path, metavar="FILE")
    parser.add_argument("--image2", type=Path, metavar="FILE", help="the second image of a statement about two")
    parser.add_argument("--text", help="what is judged, or asked")
    parser.add_argument("--task", help="the head to ask, by default that of visual entailment, or the first one")
    parser.add_argument("--url", default=URL, help=f"of the service, by default {URL}")
    parser.add_argument("--key", default=os.environ.get("VLC_API_KEY", ""), help="of the service, or VLC_API_KEY")
    given = parser.parse_args()
    try:
        files = {"fileupload": given.image, "fileupload2": given.image2}
        fields: dict[str, str | bytes] = {name: path.read_bytes() for name, path in files.items() if path}
        fields |= {name: text for name, text in {"text_input": given.text, "task": given.task}.items() if text}
        answer = ask(given.url, fields, given.key)
    except (Refused, OSError) as error:
        sys.exit(f"vlc.client: {error}")
    for name, value in sorted(answer["scores"].items(), key=lambda item: -item[1]):
        print(f"{value:.4f}  {json.dumps(name, ensure_ascii=True)[1:-1]}")


if __name__ == "__main__":
    main()
