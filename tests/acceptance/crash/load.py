"""A load of each-second jobs and the check of what became of it, from the tasks' own files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tests.acceptance.crash.crash_tasks import SHELL
from tests.acceptance.crash.site import Site, until

OFFSETS_MS = (0, 250, 500, 750)  # jobs are due in the middle of seconds, too
DRAIN_S = 90.0
STANDS_MS = 5_000  # what fired after a pause's instant but before the pause came to the scheduler stands
PAGE = 250
BATCH = 250


class Line(NamedTuple):
    """A start, as the task wrote it. `at_ns` 0: not known."""

    execution: str
    attempt: int
    pid: int
    at_ns: int


class Facts(NamedTuple):
    """What a run came to."""

    due: int
    lines: list[Line]
    attempts: Counter[int]  # executions by their last attempt


def instant(text: str) -> int:
    """A timestamp of the API as UTC milliseconds."""
    moment = datetime.fromisoformat(text)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


def stamp(at: int) -> str:
    """UTC milliseconds for the API."""
    return f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def execution_id(job: str, at: int) -> str:
    return f"{job}@{datetime.fromtimestamp(at // 1000, UTC):%Y%m%dT%H%M%S}.{at % 1000:03d}Z"


def scheduled(execution: str) -> int:
    """The instant in an execution's id."""
    moment = datetime.strptime(execution.rpartition("@")[2], "%Y%m%dT%H%M%S.%fZ").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


class Load:
    """Jobs that are due each second, from `create` to `pause`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._offsets: dict[str, int] = {}

    def create(self, *, shell: int = 0, python: int = 0, function: str = "hold", spread: bool = True) -> None:
        """So many jobs of each kind; `spread` over the second, or all due at the whole second."""
        jobs = []
        for kind, count in (("shell", shell), ("python", python)):
            for number in range(count):
                id = f"{kind}-{number:04d}"
                offset = self._offsets[id] = OFFSETS_MS[number % len(OFFSETS_MS)] if spread else 0
                schedule = {"expression": "@every 1s"} | (
                    {"start": stamp(1_600_000_000_000 + offset)} if spread else {}
                )
                task = {"shell": {"command": SHELL}} if kind == "shell" else {
                    "python": {"function": f"crash_tasks:{function}"}
                }  # fmt: skip
                jobs.append({"id": id, "name": id, "task": task, "schedules": [schedule]})
        for start in range(0, len(jobs), BATCH):
            self._site.call("POST", "/v1/job-batches", {"jobs": jobs[start : start + BATCH]})

    def pause(self) -> None:
        """Nothing is due any more; returns when nothing is open."""
        self._site.call("POST", "/v1/job-batches/pause", {"ids": list(self._offsets)})
        until("no execution is open", lambda: not self._open(), DRAIN_S)

    def _open(self) -> list[Any]:
        found: list[Any] = self._site.call("GET", "/v1/executions?status=open&page_size=1")["executions"]
        return found

    def _spans(self) -> dict[str, tuple[int, int]]:
        """When each job was created and paused."""
        spans: dict[str, tuple[int, int]] = {}
        after = ""
        while len(spans) < len(self._offsets):
            page = self._site.call("GET", f"/v1/jobs?page_size={PAGE}&last_id={after}")
            for job in page["jobs"]:
                spans[job["id"]] = (instant(job["createdAt"]), instant(job["pause"]["since"]))
            after = page["nextPage"]
        return spans

    def _due(self, spans: dict[str, tuple[int, int]]) -> set[str]:
        """Recomputed here: every id that there must be."""
        found = set()
        for job, (created, paused) in spans.items():
            first = created - (created - self._offsets[job]) % 1000 + 1000
            found |= {execution_id(job, at) for at in range(first, paused + 1, 1000)}
        return found

    def _executions(self) -> Iterator[dict[str, Any]]:
        after, more = "", True
        while more:
            page = self._site.call("GET", f"/v1/executions?page_size={PAGE}&last_id={after}")
            yield from page["executions"]
            after = page["nextPage"]
            more = bool(after)

    def lines(self) -> list[Line]:
        """What the tasks wrote."""
        fields = [line.split() for line in (self._site.folder / "lines").read_text().splitlines()]
        return [Line(id, int(attempt), int(pid), int(at)) for id, attempt, pid, at in fields]

    def check(self, *, once: bool) -> Facts:
        """After `pause`: everything due ran, nothing ran twice at once. `once`: nothing ran twice at all."""
        spans = self._spans()
        due, lines = self._due(spans), self.lines()
        violations = self._site.folder / "violations"
        assert not violations.exists(), f"runs of one execution overlapped:\n{violations.read_text()}"

        executions = {each["id"]: each for each in self._executions()}
        assert sorted(due - executions.keys()) == [], "due, but there is no execution"
        late = executions.keys() - due
        assert all(0 < scheduled(id) - spans[id.partition("@")[0]][1] <= STANDS_MS for id in late), f"not due: {late}"
        others = {
            id: (each["status"], each["reason"]) for id, each in executions.items() if each["status"] != "COMPLETED"
        }
        assert not others

        starts = Counter((line.execution, line.attempt) for line in lines)
        assert {start: count for start, count in starts.items() if count > 1} == {}, "an attempt ran twice"
        ran = Counter(line.execution for line in lines)
        assert sorted(ran.keys() - executions.keys()) == [], "ran, but there is no execution"
        unseen = [id for id, each in executions.items() if (id, each["attempt"]) not in starts]
        assert unseen == [], "COMPLETED, but the task of that attempt left no line"
        if once:
            assert {id: count for id, count in ran.items() if count > 1} == {}, "ran more than once"
        self._audit(spans, len(due))
        return Facts(len(due), lines, Counter(each["attempt"] for each in executions.values()))

    def _audit(self, spans: dict[str, tuple[int, int]], due: int) -> None:
        start = stamp(min(created for created, _ in spans.values()) - 1)
        end = stamp(max(paused for _, paused in spans.values()))
        done = self._site.served.dts("audit", "--from", start, "--to", end, "-o", "json")
        assert done.returncode == 0, done.stdout + done.stderr
        found = json.loads(done.stdout)
        assert found["clean"] is True
        assert (int(found["missing"]), int(found["doubled"]), int(found["unexplained"])) == (0, 0, 0)
        assert int(found["due"]) == due, found
        assert {name: int(count) for name, count in found["verdicts"].items()} == {"COMPLETED": due}
