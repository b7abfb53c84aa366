"""Errors in OpenAI's shape."""

from api.schemas.common import ResponseModel


class ErrorBody(ResponseModel):
    """What went wrong, for people and for programs."""

    message: str
    type: str
    param: str | None  # path into the request: "tools[3].function.parameters.properties.when.pattern"
    code: str | None


class ErrorResponse(ResponseModel):
    """The body of every answer that is no success, and the last event of a stream that fails."""

    error: ErrorBody
