"""Workers of mixed sizes under storm: what their own tasks record, and who looks whether it is ever too much."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from tests.acceptance.proxy import Proxy
from tests.acceptance.served import BIN

LOOK_S = 0.02
STOP_S = 30.0
LASTS_S = (0.5, 12.0)  # a worker is frozen, a connection held: shorter than a lease, and longer

# A task writes a line when it starts, and a file named after its process for as long as that lives.
TASK = (
    'm="$STORM/alive/$STORM_WORKER.$$"; echo "$DTS_EXECUTION_ID $DTS_ATTEMPT {cpu} {memory} {slots} {gpu}" > "$m.t"; mv "$m.t" "$m"; '
    'echo "$DTS_EXECUTION_ID $DTS_ATTEMPT $STORM_WORKER" >> "$STORM/starts"; sleep {seconds}; rm -f "$m"'
)
NAMES = ("cpu", "memory", "slots", "gpu")


class Size:
    """What a worker offers."""

    def __init__(self, cpu: int, memory: int, slots: int, gpu: int) -> None:
        self.amounts = (cpu, memory, slots, gpu)

    @property
    def flags(self) -> list[str]:
        cpu, memory, slots, gpu = self.amounts
        extra = ["--resource", f"gpu={gpu}"] if gpu else []
        return ["--cpu", str(cpu), "--memory", str(memory), "--storage", "1000", "--slots", str(slots), *extra]


class Worker:
    """One `dts worker` process, started anew when it was killed."""

    def __init__(self, name: str, size: Size, scheduler: str, env: dict[str, str], folder: Path) -> None:
        self.name, self.size = name, size
        self._command = [str(BIN / "dts"), "worker", "--scheduler", scheduler, "--id", name, *size.flags]
        self._env = {**env, "STORM": str(folder), "STORM_WORKER": name}
        self._log = folder / f"{name}.log"
        self.process = self._start()
        self.frozen = False

    def _start(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, env=self._env, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def kill(self) -> None:
        """-9, and another incarnation at once."""
        self.process.kill()
        self.process.wait()
        self.frozen = False
        self.process = self._start()

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.frozen = False

    def stop(self) -> None:
        self.thaw()
        self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Watch:
    """Adds up, again and again, what the tasks that are alive at each worker hold."""

    def __init__(self, folder: Path, sizes: dict[str, Size]) -> None:
        self.folder, self.sizes = folder, sizes
        self.looks = self.full = 0
        self.most: dict[str, tuple[int, ...]] = {}
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        (folder / "alive").mkdir()
        (folder / "starts").touch()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self._look()

    def _look(self) -> None:
        self.looks += 1
        held: dict[str, list[list[str]]] = {}
        for entry in os.scandir(self.folder / "alive"):
            worker, _, rest = entry.name.rpartition(".")
            if rest == "t":
                continue
            if not _runs(int(rest)):
                Path(entry.path).unlink(missing_ok=True)  # it was killed
                continue
            try:
                text = Path(entry.path).read_text()
            except FileNotFoundError:
                continue
            if _runs(int(rest)):
                held.setdefault(worker, []).append(text.split())
        for worker, tasks in held.items():
            total = tuple(sum(int(task[2 + place]) for task in tasks) for place in range(len(NAMES)))
            self.most[worker] = tuple(map(max, total, self.most.get(worker, total)))
            has = self.sizes[worker].amounts
            self.full += any(one == other > 0 for one, other in zip(total, has, strict=True))
            if any(one > other for one, other in zip(total, has, strict=True)):
                self.wrong.append(f"{worker} has {has}, and runs {total}: {tasks}")
            twice = [task for task, count in Counter(" ".join(task[:2]) for task in tasks).items() if count > 1]
            self.wrong += [f"{worker} runs {task} twice" for task in twice]

    def starts(self) -> list[tuple[str, ...]]:
        """(execution, attempt, worker) of all that began."""
        return [tuple(line.split()) for line in (self.folder / "starts").read_text().splitlines()]

    def check(self) -> None:
        """Never too much, and no attempt began twice, at whatever worker."""
        assert not self.wrong, self.wrong[:10]
        begun = Counter(start[:2] for start in self.starts())
        assert not (twice := [start for start, count in begun.items() if count > 1]), twice[:10]


def _runs(pid: int) -> bool:
    """Whether the process is there, and no zombie, and a shell of ours."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class Troubles:
    """Kills, freezes and cuts off workers at random; `done` counts what was done. `lines`: the ways to the schedulers."""

    def __init__(self, chance: random.Random, workers: list[Worker], lines: list[Proxy]) -> None:
        self.done: Counter[str] = Counter()
        self._chance, self._workers, self._lines = chance, workers, lines
        self._thaw_at: dict[str, float] = {}
        self._held_until = 0.0

    def go_on(self, seconds: float, pause: float) -> None:
        """For so long; then everything is well again."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            self._heal(now)
            self._one(now)
            time.sleep(self._chance.uniform(0.2, 1.8) * pause)
        self._heal(float("inf"))

    def _heal(self, now: float) -> None:
        for worker in self._workers:
            if worker.frozen and now >= self._thaw_at[worker.name]:
                worker.thaw()
        if self._held_until and now >= self._held_until:
            self._held_until = 0.0
            for line in self._lines:
                line.let_go()

    def _one(self, now: float) -> None:
        chance, victim, line = self._chance, self._chance.choice(self._workers), self._chance.choice(self._lines)
        match chance.choice(["kill", "freeze", "cut", "hold"]):
            case "kill":
                victim.kill()
                self.done["killed"] += 1
            case "freeze" if not victim.frozen:
                victim.freeze()
                self._thaw_at[victim.name] = now + chance.uniform(*LASTS_S)
                self.done["frozen"] += 1
            case "cut":
                self.done["cut"] += line.cut(chance)
            case "hold":
                self.done["held"] += line.hold(chance)
                self._held_until = self._held_until or now + chance.uniform(*LASTS_S)
