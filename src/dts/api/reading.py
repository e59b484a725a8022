"""JSON and query parameters into messages: strict about what could be a mistake, lenient about case and spelling of names.

Names are accepted in snake_case and lowerCamelCase, enum names in any case. What a client only echoes back (the computed fields of a
job that it got from us) is ignored, as the original did; any other unknown name is refused, so that no misspelt field is silently lost.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet

from dts.errors import InvalidArgument
from dts.gen.job.v1 import job_pb2 as job
from dts.wirejson import Json

EXACT = 2.0**53  # whole numbers beyond it were rounded by the JSON parser
MAX_DEPTH = 64  # JSON within JSON
# Fields of a job as it is shown, which a client may send back whole.
_ECHOED = frozenset(job.JobResponse.DESCRIPTOR.fields_by_name) | {
    field.json_name for field in job.JobResponse.DESCRIPTOR.fields
}
_ECHO_TAKEN = frozenset({"job.v1.CreateJobRequest", "job.v1.UpdateJobRequest"})
_TRUE, _FALSE = ("true", "1"), ("false", "0", "")
_SINGLE_WORDS = ("google.protobuf.Timestamp", "google.protobuf.Duration", "google.protobuf.FieldMask")


M = TypeVar("M", bound=Message)


def decode(data: bytes, kind: type[M]) -> M:
    """A message from its encoding. Raises DecodeError, and InvalidArgument for a field that has another type than its number says.

    A field of an unknown number is a newer client's: it is ignored, as protobuf does.
    """
    message = kind.FromString(data)
    unknown = UnknownFieldSet(message)
    for index in range(len(unknown)):
        field = message.DESCRIPTOR.fields_by_number.get(unknown[index].field_number)
        if field is not None:
            raise InvalidArgument(field.name, "has another type than this field")
    return message


def parse_json(data: bytes, message: Message) -> None:
    """Merges a JSON object into a message; no bytes at all are an empty object. Raises InvalidArgument."""
    if not data.strip():
        return
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidArgument("", f"the body is no JSON: {error}") from None
    merge(parsed, message)


def merge(parsed: Json, message: Message) -> None:
    """Merges parsed JSON into a message. Raises InvalidArgument naming the field."""
    if not isinstance(parsed, dict):
        raise InvalidArgument("", f"the body must be a JSON object, not {_kind(parsed)}")
    clean = _message(parsed, _descriptor(message), "", 0)
    try:
        ParseDict(clean, message)
    except (ParseError, ValueError, TypeError, OverflowError) as error:  # ParseDict lets each of them through
        raise InvalidArgument("", _plain(str(error))) from None


def parse_query(pairs: Sequence[tuple[str, str]], message: Message) -> None:
    """Merges query parameters (`a.b=1`, repeated names for repeated fields) into a message. Raises InvalidArgument."""
    tree: dict[str, Json] = {}
    descriptor = _descriptor(message)
    for name, value in pairs:
        _plant(tree, name, value, descriptor)
    merge(tree, message)


def _plant(tree: dict[str, Json], name: str, value: str, descriptor: Descriptor) -> None:
    place, words = tree, name.split(".")
    for depth, word in enumerate(words):
        field = fields_of(descriptor).get(word)
        if field is None or map_value(field) is not None:
            raise InvalidArgument("", f"{name[:80]!r} is no parameter; valid: {', '.join(_spelling(descriptor))}")
        last = depth == len(words) - 1
        inner = field.message_type
        if last and inner is not None and inner.full_name not in _SINGLE_WORDS:
            raise InvalidArgument(name, "name one of its fields, as in a.b=1")
        if last:
            _put(place, field, _text(value, field, name))
            return
        if inner is None or field.is_repeated or inner.full_name.startswith("google.protobuf."):
            raise InvalidArgument("", f"{name[:80]!r} is no parameter: {word} has no fields of its own")
        below = place.setdefault(field.name, {})
        assert isinstance(below, dict), "only messages are planted as trees"
        place, descriptor = below, inner


def _descriptor(message: Message) -> Descriptor:
    descriptor = message.DESCRIPTOR
    assert isinstance(descriptor, Descriptor), "the two implementations of descriptors are one class at run time"
    return descriptor


def _put(place: dict[str, Json], field: FieldDescriptor, value: Json) -> None:
    if not field.is_repeated:
        place[field.name] = value
        return
    values = place.setdefault(field.name, [])
    assert isinstance(values, list), "only repeated fields are planted as lists"
    values.append(value)


def _text(value: str, field: FieldDescriptor, name: str) -> Json:
    if field.type != FieldDescriptor.TYPE_BOOL:
        return value
    if value.lower() in _TRUE or value.lower() in _FALSE:
        return value.lower() in _TRUE
    raise InvalidArgument(name, f"{value[:40]!r} is neither true nor false")


def _message(parsed: Mapping[str, Json], descriptor: Descriptor, path: str, depth: int) -> dict[str, Json]:
    """The object with proto names, enum names as declared, and nothing unknown."""
    if depth > MAX_DEPTH:
        raise InvalidArgument(path, f"nested deeper than {MAX_DEPTH} levels")
    fields = fields_of(descriptor)
    clean: dict[str, Json] = {}
    for name, value in parsed.items():
        field = fields.get(name)
        here = f"{path}.{name}" if path else name
        if field is None:
            if descriptor.full_name in _ECHO_TAKEN and name in _ECHOED:
                continue
            raise InvalidArgument(here[:120], f"there is no such field{_suggestion(name, descriptor)}")
        if field.name in clean:
            raise InvalidArgument(here, f"given twice, as {name} and in its other spelling")
        clean[field.name] = _field(value, field, here, depth)
    return clean


def _field(value: Json, field: FieldDescriptor, path: str, depth: int) -> Json:
    if value is None:
        return None
    inner = map_value(field)
    if inner is not None:
        if not isinstance(value, dict):
            raise InvalidArgument(path, f"must be an object, not {_kind(value)}")
        return {key: _one(each, inner, f"{path}[{key[:40]}]", depth) for key, each in value.items()}
    if field.is_repeated:
        if not isinstance(value, list):
            raise InvalidArgument(path, f"must be a list, not {_kind(value)}")
        return [_one(each, field, f"{path}[{at}]", depth) for at, each in enumerate(value)]
    return _one(value, field, path, depth)


def _one(value: Json, field: FieldDescriptor, path: str, depth: int) -> Json:
    if field.enum_type is not None:
        return _enum(value, field.enum_type, path)
    inner = field.message_type
    if inner is None:
        return _scalar(value, field, path)
    if inner.full_name.startswith("google.protobuf."):
        return _known(value, inner, path)
    if not isinstance(value, dict):
        raise InvalidArgument(path, f"must be an object, not {_kind(value)}")
    return _message(value, inner, path, depth + 1)


def _known(value: Json, descriptor: Descriptor, path: str) -> Json:
    """Time, duration, mask or free JSON: tried alone, so that a refusal names the field."""
    try:
        ParseDict(value, GetMessageClass(descriptor)())  # type: ignore[arg-type]  # a time is a string
    except (ParseError, ValueError, TypeError, OverflowError, AttributeError) as error:
        if descriptor.full_name == "google.protobuf.Timestamp":
            read = f"{value[:40]!r}" if isinstance(value, str) else _kind(value)
            raise InvalidArgument(path, f"{read} is no RFC 3339 time; write it as 2026-03-29T01:00:00Z") from None
        raise InvalidArgument(path, _plain(str(error))) from None
    return value


def _scalar(value: Json, field: FieldDescriptor, path: str) -> Json:
    """Refused here rather than by ParseDict, whose messages do not name the field as the client does."""
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING and not isinstance(value, str):
        raise InvalidArgument(path, f"must be a string, not {_kind(value)}")
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL and not isinstance(value, bool):
        raise InvalidArgument(path, f"must be true or false, not {_kind(value)}")
    if field.cpp_type in _REAL and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidArgument(path, f"must be a number, not {_kind(value)}")
    if field.cpp_type in _BITS:
        return _whole(value, field, path)
    return value


_REAL = frozenset({FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT})
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: 31,
    FieldDescriptor.CPPTYPE_INT64: 63,
    FieldDescriptor.CPPTYPE_UINT32: 32,
    FieldDescriptor.CPPTYPE_UINT64: 64,
}


def _whole(value: Json, field: FieldDescriptor, path: str) -> int:
    """An int from a number or its text, within the field's range."""
    number: int | None = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif (isinstance(value, float) and value.is_integer() and abs(value) <= EXACT) or (
        isinstance(value, str) and len(value) <= 20 and value.isascii() and value.removeprefix("-").isdigit()
    ):
        number = int(value)
    if number is None:
        raise InvalidArgument(path, f"must be a whole number, not {_kind(value)}")
    bits = _BITS[field.cpp_type]
    low = -(1 << bits) if bits in (31, 63) else 0
    if not low <= number < 1 << bits:
        raise InvalidArgument(path, f"must be from {low} to {(1 << bits) - 1}")
    return number


def _enum(value: Json, enum: EnumDescriptor, path: str) -> Json:
    names = enum_names(enum)
    if isinstance(value, str):
        found = names.get(value.upper())
        if found is not None:
            return found
    elif isinstance(value, int) and not isinstance(value, bool) and value in enum.values_by_number:
        return value
    raise InvalidArgument(path, f"{str(value)[:60]!r} is none of {', '.join(enum.values_by_name)}")


@cache
def enum_names(enum: EnumDescriptor) -> dict[str, str]:
    """Declared names by themselves and with the enum's own prefix (JOB_STATUS_PENDING), in upper case."""
    prefix = "".join(f"_{letter}" if letter.isupper() else letter for letter in enum.name).lstrip("_").upper()
    return {f"{head}{name}": name for name in enum.values_by_name for head in ("", f"{prefix}_")}


@cache
def fields_of(descriptor: Descriptor) -> dict[str, FieldDescriptor]:
    """A message's fields by both spellings of their names."""
    return {name: field for field in descriptor.fields for name in (field.name, field.json_name)}


def map_value(field: FieldDescriptor) -> FieldDescriptor | None:
    """The field of a map's values; None for a field that is no map."""
    entry = field.message_type
    return entry.fields_by_name["value"] if entry is not None and entry.GetOptions().map_entry else None


def _suggestion(name: str, descriptor: Descriptor) -> str:
    close = difflib.get_close_matches(name[:80], _spelling(descriptor), 1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; valid: {', '.join(_spelling(descriptor))}"


def _spelling(descriptor: Descriptor) -> list[str]:
    return [field.json_name for field in descriptor.fields]


def _kind(value: Json) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def _plain(text: str) -> str:
    """json_format's message without its own function names."""
    return text.strip().rstrip(".").removeprefix("Failed to parse ")[:300]
