"""Ends a process whose event loop stands still: a stuck owner renews its group's session from another thread for ever.

It counts its own wake-ups, not time: a process that was stopped, or whose machine slept, wakes up with its loop and is not stuck.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import threading

EVERY_S = 0.5
STRIKES = 10  # wake-ups in a row without progress
EXIT_CODE = 70
TELL_S = 1.0  # for the last words: who reads them may be what it is stuck on


class Watchdog:
    """Watches a loop from `start` to `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, every_s: float = EVERY_S) -> None:
        self._loop = loop
        self._every_s = every_s
        self._turns = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watches no more: before a loop ends."""
        self._stopped.set()

    def progress(self) -> None:
        """A turn of the loop, or a slice of work that keeps it from turning."""
        self._turns += 1

    def _run(self) -> None:
        strikes, seen = 0, -1
        while not self._stopped.wait(self._every_s):
            if self._turns == seen:
                strikes += 1
                if strikes == STRIKES:
                    self._end()
            else:
                strikes, seen = 0, self._turns
                try:
                    self._loop.call_soon_threadsafe(self.progress)
                except RuntimeError:
                    return  # the loop is closed

    def _end(self) -> None:
        telling = threading.Thread(target=self._tell, daemon=True)
        telling.start()
        telling.join(TELL_S)
        os._exit(EXIT_CODE)

    def _tell(self) -> None:
        wakes = f"{STRIKES} wake-ups {self._every_s:g} s apart"
        os.write(2, f"CRITICAL dts.watchdog the event loop made no turn in {wakes}: the process ends\n".encode())
        faulthandler.dump_traceback(file=2, all_threads=True)
