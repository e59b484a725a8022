"""One python call in a process of its own, where what it requests can be held: `python -m dts.worker.alone`, started by the guard.

On its private socket (spawning.CONTROL_FD) it gets one frame, [function, encoded arguments, job, instant, nonce, attempt, fencing],
and answers with one, [status, error, result], before it ends. Output goes straight to its standard output.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

from dts.worker.calling import Caller
from dts.worker.context import CURRENT, Context, execution_id
from dts.worker.frames import Frames, pack
from dts.worker.spawning import CONTROL_FD

READ_BYTES = 256 * 1024


def main() -> None:
    """Runs the call."""
    sys.path.append(str(Path.cwd()))  # as in the pool
    channel = socket.socket(fileno=CONTROL_FD)
    os.set_inheritable(CONTROL_FD, False)
    frames = Frames()
    while data := channel.recv(READ_BYTES):
        for function, arguments, job, at, nonce, attempt, fencing in frames.feed(data):
            CURRENT.set(Context(job, execution_id(job, at, nonce), attempt, at, fencing))
            caller = Caller(sys.stdout.write, lambda: True)
            signal.signal(signal.SIGTERM, caller.on_term)
            ended = caller.call(function, arguments)
            sys.stdout.flush()
            channel.sendall(pack(ended))
            return


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # threads that it left behind end with it, as a call's end is the end of all that it started
