"""OpenAPI 3.1 from the services' descriptors and their HTTP annotations."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from inspect import getdoc

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from dts.api.limits import limits_of
from dts.api.methods import Method
from dts.api.reading import map_value
from dts.api.routes import Route
from dts.gen.comments import COMMENTS
from dts.wirejson import Json

Schema = dict[str, Json]

_ABOUT = (
    "Jobs, their schedules and what became of every due instant. Names are accepted in lowerCamelCase and snake_case, enum names in any "
    "case; answers are lowerCamelCase with unset fields at their default. Every error has the same body: code (of gRPC), message, details."
)
_KNOWN: dict[str, Schema] = {
    "google.protobuf.Timestamp": {"type": ["string", "null"], "format": "date-time"},
    "google.protobuf.Duration": {"type": ["string", "null"], "pattern": r"^-?\d+(\.\d{1,9})?s$", "examples": ["90s"]},
    "google.protobuf.FieldMask": {"type": ["string", "null"], "examples": ["name,cronExpression"]},
    "google.protobuf.Struct": {"type": ["object", "null"]},
    "google.protobuf.ListValue": {"type": ["array", "null"], "items": {}},
}
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1, "int32"),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1, "int64"),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1, "uint32"),
}
_ERRORS = {"400": "The request cannot be accepted", "404": "There is no such thing", "default": "Any other error"}


def openapi(routes: Sequence[Route], version: str) -> Schema:
    """The document for these routes."""
    messages: dict[str, Descriptor] = {}
    requests: set[str] = set()
    for route in routes:
        found = set(_below(route.method.descriptor.input_type, messages))
        requests |= found
        list(_below(route.method.descriptor.output_type, messages))
    schemas: Schema = {
        _name(message): _message(message, strict=name in requests) for name, message in sorted(messages.items())
    }
    schemas["Error"] = {
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "integer", "description": "gRPC status code"},
            "message": {"type": "string"},
            "details": {"type": "array", "items": {}},
        },
    }
    paths: dict[str, Json] = {}
    for route in routes:
        verbs = paths.setdefault(route.template, {})
        assert isinstance(verbs, dict), "a path holds its verbs"
        verbs[route.verb.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "DTS", "version": version, "description": _ABOUT},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _below(message: Descriptor, known: dict[str, Descriptor]) -> Iterator[str]:
    """The full names of a message and of all within it; `known` collects them."""
    todo, seen = [message], set()
    while todo:
        one = todo.pop()
        if one.full_name in seen or one.full_name.startswith("google.protobuf."):
            continue
        seen.add(one.full_name)
        if not one.GetOptions().map_entry:
            known[one.full_name] = one
            yield one.full_name
        todo += [field.message_type for field in one.fields if field.message_type is not None]


def _name(message: Descriptor) -> str:
    """job.v1.Task -> job.Task: as unique as the full name in one version."""
    return message.full_name.replace(".v1.", ".")


def _reference(message: Descriptor) -> Schema:
    return {"$ref": f"#/components/schemas/{_name(message)}"}


def _message(message: Descriptor, strict: bool) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": {field.json_name: _field(field) | _described(field.full_name) for field in message.fields},
    }
    if strict:
        schema["additionalProperties"] = False
    return schema | _described(message.full_name)


def _described(name: str) -> Schema:
    """What the proto says of it."""
    text = COMMENTS.get(name, "")
    return {"description": text[:1].upper() + text[1:]} if text else {}


def _field(field: FieldDescriptor) -> Schema:
    facets = dict(limits_of(field, in_body=True))
    inner = map_value(field)
    if inner is not None:
        value = _single(inner, {}, nullable=False)
        return {"type": ["object", "null"], "additionalProperties": value, **facets}
    if field.is_repeated:
        return {"type": ["array", "null"], "items": _single(field, {}, nullable=False), **facets}
    return _single(field, facets, nullable=True)


def _single(field: FieldDescriptor, facets: Schema, nullable: bool) -> Schema:
    """One value. Where it may be left out it may be null too."""
    inner = field.message_type
    if inner is not None:
        known = _KNOWN.get(inner.full_name)
        if known is not None:
            return dict(known)
        return {"anyOf": [_reference(inner), {"type": "null"}]} if nullable else _reference(inner)
    null: list[Json] = ["null"] if nullable else []
    if field.enum_type is not None:
        values: list[Json] = [*field.enum_type.values_by_name, *field.enum_type.values_by_number]
        return {"type": ["string", "integer", *null], "enum": [*values, None] if nullable else values}
    if field.type in _INTEGERS:
        low, high, form = _INTEGERS[field.type]
        # Numbers as text are accepted too, and 64-bit ones are written so.
        bounds: Schema = {"minimum": low, "maximum": high, **facets}
        return {"type": ["integer", "string", *null], "format": form, "pattern": r"^-?\d{1,19}$", **bounds}
    plain = {
        FieldDescriptor.TYPE_BOOL: "boolean",
        FieldDescriptor.TYPE_DOUBLE: "number",
        FieldDescriptor.TYPE_FLOAT: "number",
    }
    if field.type in plain:
        return {"type": [plain[field.type], *null], **facets}
    if field.type == FieldDescriptor.TYPE_BYTES:
        return {"type": ["string", *null], "contentEncoding": "base64"}
    return {"type": ["string", *null], **facets}


def _operation(route: Route) -> Schema:
    method = route.method
    service = method.descriptor.containing_service.name
    sentence, _, rest = _doc(method).partition("\n")
    operation: Schema = {
        "operationId": f"{service}_{method.descriptor.name}",
        "tags": [service],
        "summary": sentence.strip(),
        "parameters": [*_path(route), *([] if route.body else _query(route))],
        "responses": {"200": _answer(method), **{status: _error(text) for status, text in _ERRORS.items()}},
    }
    if rest.strip():
        operation["description"] = re.sub(r"\s+", " ", rest.strip())
    if route.body:
        content: Json = {"application/json": {"schema": _reference(method.descriptor.input_type)}}
        operation["requestBody"] = {"content": content, "required": False} | _described(
            method.descriptor.input_type.full_name
        )
    return operation


def _doc(method: Method) -> str:
    call: Callable[..., object] | None = method.unary or method.streaming
    return getdoc(call) or method.descriptor.name


def _path(route: Route) -> list[Json]:
    fields = route.method.descriptor.input_type.fields_by_name
    return [_parameter(fields[name], name, "path") for name in route.parameters]


def _query(route: Route) -> list[Json]:
    taken = set(route.parameters)
    fields = [field for field in route.method.descriptor.input_type.fields if field.name not in taken]
    return [_parameter(field, field.json_name, "query") for field in fields]


def _parameter(field: FieldDescriptor, name: str, place: str) -> Schema:
    schema = _single(field, dict(limits_of(field)), nullable=False)
    if isinstance(schema["type"], list):
        kinds = [kind for kind in schema["type"] if kind not in ("null", "string")] or ["string"]
        schema["type"] = kinds[0]
    if schema["type"] == "integer":
        schema.pop("pattern", None)
    found: Schema = {"name": name, "in": place, "required": place == "path", "schema": schema}
    return found | _described(field.full_name)


def _answer(method: Method) -> Schema:
    schema: Json = {"schema": _reference(method.descriptor.output_type)}
    if method.streaming is None:
        return {"description": "OK", "content": {"application/json": schema}}
    lines = "One message a line, or one server-sent event each for a client that accepts text/event-stream"
    return {"description": lines, "content": {"application/x-ndjson": schema, "text/event-stream": schema}}


def _error(text: str) -> Schema:
    content: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": text, "content": content}
