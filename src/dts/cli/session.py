"""What a command that talks to a server needs: the settings, a client, and the API's messages as output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from dts.cli.options import JSON, TABLE
from dts.cli.show import print_values
from dts.client import Addresses, ApiError, DtsClient
from dts.config import Config, load
from dts.wirejson import to_json

DOTENV = Path(".env")
_NO_ADDRESS = ("DNS resolution failed", "errors resolving")
_NO_CONNECTION = ("failed to connect to all addresses", "connections to all backends failing")


def settings() -> Config:
    """The settings in force. Raises ConfigError."""
    return load(os.environ, DOTENV)


@contextmanager
def client() -> Iterator[DtsClient]:
    """A client of the server that the settings name."""
    with DtsClient(Addresses.of(settings())) as found:
        try:
            yield found
        except ApiError as error:
            if error.code == "UNAVAILABLE" and error.message.startswith(_NO_ADDRESS):
                message = (
                    f"no address is known for {error.address}\nIs DTS_HOST right? See what is in force with: dts config"
                )
                raise ApiError(error.code, message, error.address) from None
            if error.code == "UNAVAILABLE" and error.message.startswith(_NO_CONNECTION):
                message = f"no DTS server answers at {error.address}\nIs it running? Start it with: dts up"
                raise ApiError(error.code, message, error.address) from None
            raise


def print_message(message: Message, output: str | None) -> bool:
    """Print the API's own JSON, or the same as YAML, if that is asked for; False: it is not."""
    return print_values(to_json(message), output) if output in (JSON, "yaml") else False


def like_the_original(output: str | None) -> bool:
    """Whether `job get`, `job list` and `job update` print what the original did: nobody chose, and a program reads."""
    return output is None and not sys.stdout.isatty()


def print_token(token: str, output: str | None) -> None:
    """Where the next page begins; a person is told only if there is one, a program always finds the line."""
    if token or like_the_original(output):
        click.echo(f"Next page token: {token}")


def wants_table(output: str | None) -> bool:
    return output in (None, TABLE)


def timestamp(instant: int | None) -> Timestamp | None:
    """UTC milliseconds as the API has them."""
    if instant is None:
        return None
    stamp = Timestamp()
    stamp.FromMilliseconds(instant)
    return stamp


def duration(ms: int | None) -> Duration | None:
    """Milliseconds as the API has them."""
    if ms is None:
        return None
    value = Duration()
    value.FromMilliseconds(ms)
    return value


def instant_of(stamp: Timestamp) -> int:
    """UTC milliseconds; 0 for none."""
    return stamp.seconds * 1000 + stamp.nanos // 1_000_000
