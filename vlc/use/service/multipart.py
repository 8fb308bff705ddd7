"""Forms (multipart/form-data), read from the whole body of a request at once."""

from typing import TypeAlias

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from vlc.use.service.problems import Problem

Part: TypeAlias = tuple[str, str | bytes]  # its name, with a text, or with the content of a file


def parts_of(body: bytes, boundary: bytes, most_files: int, most_texts: int) -> list[Part]:
    """The parts of a form, in their order. Raises Problem for a form that is damaged or has too many parts.

    Starlette's own parser makes a temporary file for each part, in the event loop; this one may run in any thread.
    """
    reader = _Reader()
    names = ("part_begin", "header_field", "header_value", "part_data", "part_end", "end")
    callbacks = {f"on_{name}": getattr(reader, name) for name in names}
    try:
        MultipartParser(boundary, callbacks).write(body)  # type: ignore[arg-type]  # it wants a TypedDict
    except FormParserError as error:
        raise Problem(400, f"The form cannot be read: {error}") from error
    if not reader.complete:
        raise Problem(400, "The form cannot be read: its end is missing")
    files = sum(isinstance(content, bytes) for _, content in reader.parts)
    for kind, count, most in (("files", files, most_files), ("fields", len(reader.parts) - files, most_texts)):
        if count > most:
            raise Problem(400, f"Too many {kind}: a form has {most} at most")
    return reader.parts


class _Reader:
    """What the parser calls. As it is given the whole body, each header comes in one piece."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.complete = False
        self._header = self._disposition = self._content = b""

    def part_begin(self) -> None:
        self._disposition = self._content = b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._header = data[start:end].lower()

    def header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header == b"content-disposition":
            self._disposition = data[start:end]

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]

    def part_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Problem(400, "The form cannot be read: a part has no name")
        is_file = b"filename" in options
        self.parts.append((_text(options[b"name"]), self._content if is_file else _text(self._content)))

    def end(self) -> None:
        self.complete = True


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Problem(400, f"A text of the form is not UTF-8: {error.reason}") from error
