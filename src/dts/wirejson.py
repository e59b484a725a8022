"""The API's JSON: proto3's mapping as grpc-gateway writes it. Unset fields are there with their default, unset messages as null.

Python's own printer leaves unset messages out; and it is slow. This one compiles a plan for each message type once.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

_WIDE = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_SINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
    }
)
_REAL = frozenset({FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT})


class _Step(NamedTuple):
    """How one field is printed. `optional`: left out when it is unset; `null`: printed as null then."""

    name: str
    key: str
    repeated: bool
    map: bool
    optional: bool
    null: bool
    value: Callable[..., Json]


def to_json(message: Message) -> dict[str, Json]:
    """The message as values of JSON, keys in lowerCamelCase, in the order of the proto file."""
    printed: dict[str, Json] = {}
    for step in _plan(message.DESCRIPTOR):
        if (step.null or step.optional) and not message.HasField(step.name):
            if step.null:
                printed[step.key] = None
            continue
        value = getattr(message, step.name)
        if step.map:
            printed[step.key] = {_key(key): step.value(value[key]) for key in sorted(value)}
        elif step.repeated:
            printed[step.key] = [step.value(each) for each in value]
        else:
            printed[step.key] = step.value(value)
    return printed


@cache
def _plan(descriptor: Descriptor) -> tuple[_Step, ...]:
    return tuple(_step(field) for field in descriptor.fields)


def _step(field: FieldDescriptor) -> _Step:
    entry = field.message_type
    is_map = entry is not None and entry.GetOptions().map_entry
    inner = entry.fields_by_name["value"] if entry is not None and is_map else field
    single = not field.is_repeated and field.has_presence
    in_oneof = field.containing_oneof is not None
    null = single and not in_oneof and field.type == FieldDescriptor.TYPE_MESSAGE
    return _Step(field.name, field.json_name, field.is_repeated, is_map, single and not null, null, _printer(inner))


def _printer(field: FieldDescriptor) -> Callable[..., Json]:
    if field.message_type is not None:
        known = field.message_type.full_name.startswith("google.protobuf.")
        return MessageToDict if known else to_json
    if field.enum_type is not None:
        names = {number: value.name for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number, number)
    if field.type in _WIDE:
        return str
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda data: b64encode(data).decode()
    if field.type in _REAL:
        return _real
    return lambda value: value  # bool, int32, string: as they are


def _real(value: float) -> Json:
    if math.isfinite(value):
        return int(value) if value == int(value) else value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key(key: object) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)
