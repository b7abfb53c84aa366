"""GET /health on the wire."""

from typing import Literal

from api.schemas.common import ResponseModel


class Health(ResponseModel):
    """Whether requests would be answered now."""

    status: Literal["ok", "loading", "no_model"]
    model: str | None
