"""What OpenAI's strict mode asks of a tool's schema: every object closed, every property required.

Arguments are valid without it too; `strict` only refuses what OpenAI would refuse.
"""

from engine.errors import SchemaError
from engine.grammars.schema_walk import all_schemas, child_path
from engine.types import JsonObject


def check_strict(schema: JsonObject | None, path: str) -> None:
    """Raises SchemaError that names the object by path."""
    for where, each in all_schemas(dict(schema or {}), path):
        properties = each.get("properties")
        if properties is None and each.get("type") != "object":
            continue
        if each.get("additionalProperties") is not False:
            _refuse(child_path(where, "additionalProperties"), "must be false where strict is true")
        missing = [name for name in properties or {} if name not in each.get("required", ())]
        if missing:
            _refuse(child_path(where, "required"), f"must list {missing[0]!r} too where strict is true")


def _refuse(path: str, rule: str) -> None:
    raise SchemaError(f"{path} {rule}", param=path)
