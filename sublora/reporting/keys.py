"""The keys of a certificate in words, from the descriptions in its schema."""

from collections.abc import Iterator, Mapping
from typing import Any

from sublora.certificate.schema import Certificate
from sublora.reporting.markdown import Markdown, Table

TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false", "null": "null"}


def keys_table() -> Table:
    """Every key of a certificate, in the order of the file: its name, its type in words, and what it means."""
    schema = Certificate.model_json_schema(by_alias=True)
    return Table(list(_rows(schema, "", schema["$defs"], set())), left=("Key", "Type", "Meaning"))


def _rows(
    group: Mapping[str, Any], before: str, groups: Mapping[str, Any], told: set[str], of: str = ""
) -> Iterator[dict[str, str]]:
    """The keys of a group, and below each those of the groups in it. Groups in `told` are left out, and others added to it.

    of: the kind of certificate that has the group, where there are several.
    """
    for key, value in group["properties"].items():
        name = f"`{before}{key}`" + (f" ({of})" if of else "")
        yield {"Key": Markdown(name), "Type": _type(value), "Meaning": value.get("description", "")}
        schemas = (value, value.get("items", {}), *value.get("anyOf", []))
        inside = [schema["$ref"].rpartition("/")[2] for schema in schemas if "$ref" in schema]
        for name in inside:
            if name not in told:
                told.add(name)
                place = f"{before}{key}{'[i]' if 'items' in value else ''}."
                kind = groups[name]["title"] if len(inside) > 1 else of
                yield from _rows(groups[name], place, groups, told, kind)


def _type(value: Mapping[str, Any]) -> str:
    """The type of a key's value in words."""
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "const" in value:
        return f"the text {value['const']}"
    if "enum" in value:
        return f"one of {', '.join(value['enum'])}"
    if "items" in value:
        return "list of groups" if "$ref" in value["items"] else f"list: {_type(value['items'])}"
    if "$ref" in value or value["type"] == "object":
        return "group of keys"
    name = TYPES[value["type"]]
    if "exclusiveMinimum" in value and "exclusiveMaximum" not in value:
        return f"{name} above {value['exclusiveMinimum']}"
    if "exclusiveMinimum" in value:
        return f"{name} between {value['exclusiveMinimum']} and {value['exclusiveMaximum']}"
    return f"{name}, at least {value['minimum']}" if "minimum" in value else name
