"""POST /v1/tokenize on the wire."""

from pydantic import Field

from api.schemas.common import PromptOptions, RequestModel, ResponseModel, Text
from api.schemas.messages import Messages
from api.schemas.tools import RequestTool, ToolChoice


class TokenizeRequest(RequestModel):
    """Either text, or messages as a chat completion has them, with whatever else decides the prompt."""

    model: Text | None = Field(default=None, description="The one that is served where it is left out.")
    text: Text | None = None
    messages: Messages | None = None
    tools: list[RequestTool] | None = None
    tool_choice: ToolChoice | None = None
    reasoning_effort: Text | None = Field(
        default=None, description="Passed to the chat template; refused where that does not read it."
    )
    toolmask: PromptOptions | None = None


class TokenizeResponse(ResponseModel):
    model: str
    count: int
    tokens: list[int]
    context_length: int  # of the model, the answer included
