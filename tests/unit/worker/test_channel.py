"""The worker's private sockets when the other side reads slowly."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from dts.worker.channel import Channel

FRAMES = 400


async def test_equal_frames_all_arrive_once_however_the_socket_cuts_them() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    loop, got, done = asyncio.get_running_loop(), [], asyncio.Event()

    def on_frame(frame: list[Any]) -> None:
        got.append(frame)
        if frame == ["last"]:
            done.set()

    sender = Channel(loop, ours, lambda _: None, lambda: None, lambda: None)
    reader = Channel(loop, theirs, on_frame, lambda: None, lambda: None)
    frames = [["same", b"x" * 700] if number % 10 else ["other", number] for number in range(FRAMES)]
    for frame in [*frames, ["last"]]:
        sender.send(frame)
    try:
        async with asyncio.timeout(10):
            await done.wait()
    finally:
        sender.close()
        reader.close()
    assert got == [*frames, ["last"]]
