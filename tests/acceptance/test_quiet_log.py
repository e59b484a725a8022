"""What clients do wrong is theirs: a server's log holds no traceback of it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from tests.acceptance.served import Served, served

GONE_S = 4.0  # a stream looks each second whether anybody listens
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ANSWER_S = 10.0


def say(running: Served, data: bytes) -> bytes:
    """Sends bytes to the HTTP port, reads the first of the answer and hangs up."""
    port = int(running.env["JOB_SERVICE_HTTP_PORT"])
    with socket.create_connection(("localhost", port), timeout=ANSWER_S) as connection:
        connection.sendall(data)
        return connection.recv(1_024)


def ask(path: str, accept: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n".encode()


def test_clients_that_leave_or_speak_otherwise(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        for accept in ("*/*", "text/event-stream"):
            assert say(running, ask("/v1/events", accept)).startswith(b"HTTP/1.1 200 ")
        assert say(running, PREFACE).startswith(b"HTTP/1.")
        assert say(running, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 to a port without TLS\r\n\r\n")
        watched(running)
    log = running.log.read_text()
    assert "Traceback" not in log, log
    assert " ERROR " not in log, log


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with served(tmp_path) as running:
        env = {**running.env, "DTS_DATABASE": str(tmp_path / "other.db"), "HOME": str(tmp_path / "elsewhere")}
        done = Served(env, running.log, running.process).dts("up")
    assert done.returncode == 3
    assert f"port {running.env['JOB_SERVICE_GRPC_PORT']} is not free" in done.stderr
    assert "add_port" not in done.stderr


def watched(running: Served) -> None:
    """Things happen while the streams that were left find out."""
    running.out("job", "create", "--id", "busy", "--cron", "@every 1s", "--shell", "true")
    deadline = time.monotonic() + GONE_S
    while time.monotonic() < deadline:
        running.out("job", "run", "busy", "--wait")
