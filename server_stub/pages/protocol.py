# SPDX-License-Identifier: Apache-2.0
"""The protocol as a page, from the server's own OpenAPI document: nothing is loaded from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Document = Mapping[str, Any]


def protocol(document: Document) -> dict[str, Any]:
    """What the page shows of an OpenAPI document."""
    return {
        "model": document["info"]["title"],
        "state": f"protocol of release {document['info']['version']}",
        "federation": "",
        "summary": document["info"].get("summary", ""),
        "operations": [
            _operation(method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        ],
        "schemas": [
            {"name": name, "about": _about(schema), "fields": _fields(schema)}
            for name, schema in sorted(document.get("components", {}).get("schemas", {}).items())
        ],
    }


def _operation(method: str, path: str, operation: Document) -> dict[str, Any]:
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "about": operation.get("description") or operation.get("summary", ""),
        "parameters": [
            (each["name"], each["in"], _said(each.get("required")), _kind(each["schema"]))
            for each in operation.get("parameters", ())
        ],
        "body": _content(operation.get("requestBody", {})),
        "answers": [
            (code, _content(answer)) for code, answer in operation["responses"].items() if code != "422"
        ],
    }  # fmt: skip


def _content(holder: Document) -> list[tuple[str, str]]:
    """Media types, and what is in them."""
    content = holder.get("content", {})
    # Beside what a route gives, the framework lists JSON of no schema.
    told = {kind: what for kind, what in content.items() if what != {"schema": {}}} or content
    return [(kind, _kind(what.get("schema", {}))) for kind, what in told.items()]


def _said(value: object) -> str:
    return "yes" if value else "no"


def _about(schema: Document) -> str:
    return str(schema.get("description", "")).partition("\n")[0]


def _fields(schema: Document) -> list[tuple[str, str, str]]:
    needed = schema.get("required", ())
    return [(name, _said(name in needed), _kind(each)) for name, each in schema.get("properties", {}).items()]


def _kind(schema: Document) -> str:
    """A schema in one line."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(json.dumps(each) for each in schema["enum"])
    kind = str(schema.get("title") if schema.get("type") == "object" else schema.get("type", "bytes"))
    if "items" in schema:
        kind = f"list of {_kind(schema['items'])}"
    names = {"minimum": "from {}", "maximum": "to {}", "pattern": "matching {}", "maxLength": "up to {} long"}
    limits = [text.format(schema[name]) for name, text in names.items() if name in schema]
    return " ".join([kind, *limits])
