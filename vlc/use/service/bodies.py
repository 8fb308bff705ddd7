"""Bodies of requests: which fields they have, how multipart forms and JSON are read, and what is said of wrong ones."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, create_model
from pydantic import Field as Described
from pydantic_core import PydanticUndefined, from_json
from python_multipart.multipart import parse_options_header
from starlette.requests import Request

from vlc.configuration.command_settings import ServiceSettings
from vlc.use.forms import Field
from vlc.use.service.multipart import Part, parts_of
from vlc.use.service.pictures import check
from vlc.use.service.problems import Problem

IMAGES = "images"
FORM, JSON = "multipart/form-data", "application/json"
_LARGEST = 10.0**6  # coordinate of a box
_REPEATED = (IMAGES, "text", "options", "candidates")  # in a form, a part for each item
_NUMBERS = ("num_results", "choice")
_AS_JSON = ("boxes", "history", "named_boxes")  # in a form, a part with JSON


def types(settings: ServiceSettings) -> dict[str, Any]:
    """The types of fields of requests, by name; others are texts."""
    text = Annotated[str, StringConstraints(min_length=1, max_length=settings.max_text, pattern=r"\S")]
    number = Annotated[float, Described(ge=-_LARGEST, le=_LARGEST, allow_inf_nan=False)]
    box = Annotated[list[number], Described(min_length=4, max_length=4)]
    several = Described(min_length=1, max_length=settings.max_items)
    return {
        "one text": text,
        "text": text | Annotated[list[text], several],
        "boxes": Annotated[list[box], several],
        "options": Annotated[list[text], several],
        "candidates": Annotated[list[text], several],
        "history": Annotated[list[Annotated[list[text], Described(min_length=2, max_length=2)]], several],
        "named_boxes": Annotated[dict[text, box], several],
    }


def pictures(fewest: int, most: int) -> Any:
    """The type of pictures in JSON."""
    encoded = Annotated[str, Described(json_schema_extra={"contentEncoding": "base64"})]
    return Annotated[list[encoded], Described(min_length=fewest, max_length=most)]


@dataclass(frozen=True)
class Body:
    """The body of an endpoint.

    model: its fields, with pictures in base64.
    settings: with the limits.
    """

    model: type[BaseModel]
    settings: ServiceSettings

    @classmethod
    def of_fields(cls, name: str, fields: Mapping[str, Field], settings: ServiceSettings) -> "Body":
        """Return the body for the fields of a form."""
        known = types(settings)
        return cls.of_types(
            name,
            {
                key: (_type_of(key, field, known), _described(field.about, required=field.required))
                for key, field in fields.items()
            },
            settings,
        )

    @classmethod
    def of_types(cls, name: str, fields: Mapping[str, tuple[Any, Any]], settings: ServiceSettings) -> "Body":
        """Return the body for fields with their types and what pydantic has to know of them."""
        config = ConfigDict(extra="forbid", strict=True)
        return cls(create_model(name, __config__=config, **fields), settings)  # type: ignore[call-overload]

    # -- reading

    def read(self, received: "Received") -> dict[str, Any]:
        """Return the given fields, the pictures as bytes. Raises Problem, which names the field."""
        if received.boundary is not None:
            return self.read_parts(received.parts(self.settings))
        given = self.checked(_parsed(received.body))
        return self._with_pictures(given, [_decoded(image) for image in given.get(IMAGES, ())])

    def read_parts(self, parts: Sequence[Part]) -> dict[str, Any]:
        """Return the fields that the parts of a form give, as `read` does."""
        values, found = _of_form(parts)
        if not set(self.model.model_fields) >= {IMAGES} and found:
            raise Problem(422, "No picture is wanted", IMAGES)
        given = self.checked(values | ({IMAGES: [""] * len(found)} if found else {}))
        return self._with_pictures(given, found)

    def _with_pictures(self, given: dict[str, Any], found: Sequence[bytes]) -> dict[str, Any]:
        checked = [check(image, self.settings.max_pixels, IMAGES) for image in found]
        return given | ({IMAGES: checked} if checked else {})

    def checked(self, values: Any) -> dict[str, Any]:
        """Return the given fields of a body. Raises Problem for those that are missing or not valid."""
        try:
            return self.model.model_validate(values).model_dump(exclude_unset=True)
        except ValidationError as error:
            raise _invalid(error) from error

    # -- as OpenAPI describes it

    def described(self) -> dict[str, Any]:
        """The request body of OpenAPI."""
        schema = self.model.model_json_schema()
        for own in schema["properties"].values():
            own.pop("default", None)  # null stands for a field that is not given
        return {"required": True, "content": {JSON: {"schema": schema}, FORM: self._form_schema(schema)}}

    def _form_schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        properties, encoding = {}, {}
        for key, own in schema["properties"].items():
            about = {"description": own.get("description", "")}
            if key == IMAGES:
                limits = {name: own[name] for name in ("minItems", "maxItems")}
                file = {"type": "string", "format": "binary"}
                properties[key] = {**about, "type": "array", "items": file, **limits}
                encoding[key] = {"contentType": "image/*"}
            elif "anyOf" in own:  # a text or a list of texts
                properties[key] = {**about, **own["anyOf"][1]}
            elif key in _AS_JSON:
                properties[key] = {**about, "type": "string", "contentMediaType": JSON, "contentSchema": own}
            else:
                properties[key] = own
        form = {"type": "object", "properties": properties, "additionalProperties": False}
        required = {"required": schema["required"]} if "required" in schema else {}
        return {"schema": {**form, **required}, "encoding": encoding}


@dataclass(frozen=True)
class Received:
    """A body as it came.

    boundary: between the parts of a form; None: the body is JSON.
    """

    body: bytes
    boundary: bytes | None = None

    def parts(self, settings: ServiceSettings) -> list[Part]:
        """The parts of a form. Raises Problem where it cannot be read."""
        return parts_of(self.body, self.boundary or b"", settings.max_items, 4 * settings.max_items)


async def receive(request: Request, kinds: Sequence[str] = (FORM, JSON)) -> Received:
    """Receive the body of a request, which is read later, in a thread. Raises Problem for another kind of body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in kinds:
        raise Problem(415, f"The content type {kind or 'is missing and'} is not taken: send {' or '.join(kinds)}")
    if kind == JSON:
        return Received(await request.body())
    _, options = parse_options_header(request.headers["content-type"])
    if options.get(b"charset", b"utf-8").lower() != b"utf-8":  # Python has codecs that take minutes for a megabyte
        raise Problem(415, "The texts of a form are UTF-8: leave the charset out of its content type")
    if not options.get(b"boundary"):
        raise Problem(400, "The content type of a form names the boundary of its parts")
    return Received(await request.body(), options[b"boundary"])


def _type_of(key: str, field: Field, known: Mapping[str, Any]) -> Any:
    if key == IMAGES:
        count = field.count or 1
        return pictures(count, count)
    if field.choices:
        return Literal[field.choices]
    if field.count:
        return Annotated[known[key], Described(max_length=field.count)]
    return known.get(key, known["one text"])


def _described(about: str, *, required: bool) -> Any:
    return Described(PydanticUndefined if required else None, description=about)


def _of_form(parts: Sequence[Part]) -> tuple[dict[str, Any], list[bytes]]:
    """The values of a form, and its pictures. Raises Problem for a field of another kind than it should be."""
    values: dict[str, Any] = {}
    found: list[bytes] = []
    for key, value in parts:
        if (key == IMAGES) != isinstance(value, bytes):
            wanted = "files are wanted" if key == IMAGES else "a text is wanted, and not a file"
            raise Problem(422, f"{key}: {wanted}", key)
        if isinstance(value, bytes):
            found.append(value)
        elif key in values and key not in _REPEATED:
            raise Problem(422, f"{key} is given more than once", key)
        elif key in _AS_JSON + _NUMBERS:
            try:
                values[key] = from_json(value)
            except ValueError as error:
                raise Problem(422, f"{key} is not JSON: {error}", key) from error
        elif key in _REPEATED:
            values.setdefault(key, []).append(value)
        else:
            values[key] = value
    if len(values.get("text", ())) == 1:
        values["text"] = values["text"][0]
    return values, found


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError as error:
        raise Problem(400, f"The body is not JSON: {error}") from error


def _decoded(image: str) -> bytes:
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(400, f"A picture is not base64: {error}", IMAGES) from error


def _invalid(error: ValidationError) -> Problem:
    """The first error of a body. A text may be one or a list, and errors of the other way are left out."""
    errors = error.errors(include_url=False, include_context=False)
    own = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]
    of_list = [one for one in own if any(str(part).startswith("list[") for part in one["loc"])]
    first = of_list[0] if of_list and isinstance(own[0]["input"], list) else own[0]
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith(("constrained-str", "list[")))
    field = str(first["loc"][0]) if first["loc"] else None
    status = 400 if first["type"] == "missing" else 422
    return Problem(status, f"{place or 'The body'}: {first['msg']}", field)
