"""Errors as the service sends them: problem details of RFC 9457, which name the field that is wrong."""

from collections.abc import Mapping
from http import HTTPStatus

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

MEDIA_TYPE = "application/problem+json"

# The statuses of errors, and when they are sent.
STATUSES = {
    400: "The body cannot be read, a field is missing, or a picture is damaged.",
    401: "The key is missing or wrong.",
    404: "There is nothing of this number.",
    413: "The body or a picture is too large.",
    415: "The body or a picture is of a kind that is not taken.",
    422: "A value is not valid.",
    500: "The service failed; its log has the id.",
    503: "The service is full or stops; try again later.",
    504: "The answer took too long.",
}


class ProblemDetails(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(default="about:blank", description="The kind of error; about:blank: the status says it.")
    title: str = Field(description="The name of the status.")
    status: int
    detail: str = Field(description="What is wrong, and what to do.")
    field: str | None = Field(None, description="The field of the request that is wrong.")
    id: str | None = Field(None, description="The id of the error in the log of the service.")


class Problem(Exception):
    """An error to be sent.

    status: the HTTP status.
    detail: what is wrong and what to do, for the user.
    field: the field of the request that is wrong, if it is one.
    identity: the id of the error in the log, if it is there.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        field: str | None = None,
        identity: str | None = None,
        headers: Mapping[str, str] | None = None,
    ):
        super().__init__(detail)
        self.status, self.detail, self.field, self.identity = status, detail, field, identity
        self.headers = dict(headers or {})

    def response(self) -> JSONResponse:
        details = ProblemDetails(
            title=HTTPStatus(self.status).phrase,
            status=self.status,
            detail=self.detail,
            field=self.field,
            id=self.identity,
        )
        content = details.model_dump(exclude_none=True)
        return JSONResponse(content, self.status, headers=self.headers, media_type=MEDIA_TYPE)


def busy(detail: str) -> Problem:
    """The error of a request that is refused now and may be repeated in a second."""
    return Problem(503, detail, headers={"Retry-After": "1"})


def described_errors(*statuses: int, key: str = "") -> dict[int | str, dict]:
    """The errors of an address, as OpenAPI describes them; 401 is one of them where the service has a key."""
    schema = {"$ref": "#/components/schemas/Problem"}
    chosen = (*statuses, 401) if key else statuses
    return {
        status: {"description": STATUSES[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in sorted(chosen)
    }
