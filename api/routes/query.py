"""No route has query parameters, so each one is refused by name: an option that is ignored misleads whoever sent it."""

import fastapi

from api.convert.errors import WireError


async def no_query_parameters(request: fastapi.Request) -> None:
    """Raises WireError for the first."""
    for name in request.query_params:
        message = f"the query parameter {name!r:.80} is not supported: no route here has any"
        raise WireError(400, message, param=name, code="unsupported_parameter")
