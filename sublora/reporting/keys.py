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
        inside = [inner["$ref"].rpartition("/")[2] for inner in _inner(value) if "$ref" in inner]
        for name in inside:
            if name not in told:
                told.add(name)
                place = f"{before}{key}{'[i]' if 'items' in value else ''}."
                kind = groups[name]["title"] if len(inside) > 1 else of
                yield from _rows(groups[name], place, groups, told, kind)


def _inner(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas that may say what is in a key's value."""
    return [value, value.get("items", {}), *value.get("anyOf", [])]


def _type(value: Mapping[str, Any]) -> str:
    """The type of a key's value in words."""
    if "anyOf" in value:
        return " or ".join(_type(choice) for choice in value["anyOf"])
    if "const" in value:
        return f"the text {value['const']}"
    if "enum" in value:
        return f"one of {', '.join(value['enum'])}"
    if "items" in value:
        return "list of groups"
    if "$ref" in value or value["type"] == "object":
        return "group of keys"
    return TYPES[value["type"]] + _range(value)


def _range(value: Mapping[str, Any]) -> str:
    if "exclusiveMinimum" in value:
        return f" between {value['exclusiveMinimum']} and {value['exclusiveMaximum']}"
    return f", at least {value['minimum']}" if "minimum" in value else ""
