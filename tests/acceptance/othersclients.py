"""What other people's clients of the original system do, against a server wherever it is: the guide's five commands."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALL_S = 60.0
GUIDE = ("My Job", "Description", "*/5 * * * *")
JOB_FIELDS = {
    *("id", "name", "description", "cronExpression", "status", "createdAt", "updatedAt", "nextRun"),
    *("metadata", "priority", "maxRetries", "timeout", "lastRun"),
}

Reply = dict[str, Any]
Call = Callable[..., Reply]


def by_go(client: Path, address: str) -> Call:
    """Calls over gRPC in plain text: what comes back, or {"error": "Code: message"}."""

    def call(*arguments: str) -> Reply:
        done = subprocess.run(
            [client, address, *arguments], capture_output=True, text=True, timeout=CALL_S, check=False
        )
        if done.returncode:
            return {"error": done.stderr.strip()}
        found = json.loads(done.stdout)
        assert isinstance(found, dict)
        return found

    return call


def five_commands(call: Call) -> None:
    """Create, get, list --status active, update --status paused with every other field empty, delete."""
    id = call("create", *GUIDE, "key", "value")["jobId"]
    job = call("get", id)
    assert set(job) >= JOB_FIELDS
    assert (job["name"], job["description"], job["cronExpression"]) == GUIDE
    assert (job["status"], job["metadata"], job["priority"]) == ("SCHEDULED", {"key": "value"}, 0)
    assert job["nextRun"] > job["createdAt"]
    assert job["lastRun"] is None
    assert id in ids(call, "active")
    assert id not in ids(call, "paused")
    changed = call("update", id, "Updated Job", "paused")
    assert (changed["name"], changed["status"]) == ("Updated Job", "PAUSED")
    kept = ("description", "cronExpression", "metadata", "priority", "maxRetries", "timeout", "createdAt")
    assert {name: changed[name] for name in kept} == {name: job[name] for name in kept}
    assert id not in ids(call, "active")
    assert id in ids(call, "paused")
    assert call("delete", id) == {"success": True}
    assert call("get", id)["error"].startswith("NotFound: ")
    assert id not in ids(call, "")


def ids(call: Call, status: str) -> set[str]:
    """All pages of a list."""
    found: set[str] = set()
    last = ""
    while True:
        page = call("list", "10", status, last)
        found |= {job["id"] for job in page["jobs"]}
        last = page["nextPageToken"] if "nextPageToken" in page else page["nextPage"]
        if not last:
            return found


def refused(call: Call) -> None:
    """A cron expression that cannot be parsed, as the guide itself prints one: nothing is stored."""
    before = ids(call, "")
    error = call("create", "Cut short", "", "/5 ", "", "")["error"]
    assert error.startswith("InvalidArgument: cron_expression: ")
    assert ids(call, "") == before


class Curl:
    """HTTP as a page or a script does it."""

    def __init__(self, port: str) -> None:
        self.url = f"http://localhost:{port}"

    def __call__(self, verb: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        data = [] if body is None else ["--data", json.dumps(body), "--header", "Content-Type: application/json"]
        text = self._run("--write-out", "\n%{http_code}", "--request", verb, *data, f"{self.url}{path}")
        answer, _, status = text.rpartition("\n")
        return int(status), json.loads(answer)

    def headers(self, verb: str, path: str, *sent: str) -> tuple[str, dict[str, str]]:
        """The status line and the headers, names in lower case."""
        given = [part for header in sent for part in ("--header", header)]
        text = self._run("--include", "--output", "-", "--request", verb, *given, f"{self.url}{path}")
        lines = text.replace("\r", "").partition("\n\n")[0].splitlines()
        pairs = (line.partition(": ") for line in lines[1:])
        return lines[0], {name.lower(): value for name, _, value in pairs}

    def _run(self, *arguments: str) -> str:
        return subprocess.run(
            ["curl", "--silent", "--show-error", *arguments], capture_output=True, text=True, timeout=CALL_S, check=True
        ).stdout


def over_http(curl: Curl) -> None:
    """The same five, with both styles of names in; lowerCamel and nulls out; errors in the gateway's form."""
    snake = {"name": "My Job", "cron_expression": "*/5 * * * *", "max_retries": 2, "metadata": {"key": "value"}}
    status, made = curl("POST", "/v1/jobs", snake)
    assert (status, list(made)) == (200, ["jobId"])
    camel = {"name": "My Other Job", "cronExpression": "0 6 * * *", "maxRetries": 3}
    other = curl("POST", "/v1/jobs", camel)[1]["jobId"]
    status, job = curl("GET", f"/v1/jobs/{made['jobId']}")
    assert status == 200
    assert set(job) >= JOB_FIELDS
    assert not [name for name in job if "_" in name]
    assert (job["cronExpression"], job["maxRetries"], job["lastRun"]) == ("*/5 * * * *", 2, None)
    assert (job["priority"], job["timeout"], job["description"]) == (0, 0, "")
    assert curl("GET", f"/v1/jobs/{other}")[1]["maxRetries"] == 3
    status, listed = curl("GET", "/v1/jobs?page_size=10&status=active")
    assert status == 200
    assert {made["jobId"], other} <= {each["id"] for each in listed["jobs"]}
    assert listed == curl("GET", "/v1/jobs?pageSize=10&status=active")[1]
    empty = {"description": "", "cronExpression": "", "metadata": {}, "priority": 0, "maxRetries": 0, "timeout": 0}
    status, changed = curl("PUT", f"/v1/jobs/{other}", {"name": "Updated Job", "status": "PAUSED", **empty})
    assert (status, changed["name"], changed["status"]) == (200, "Updated Job", "PAUSED")
    assert (changed["cronExpression"], changed["maxRetries"]) == ("0 6 * * *", 3)
    status, error = curl("PUT", f"/v1/jobs/{other}", {"cronExpression": "61 * * * *"})
    assert (status, error["message"].split(": ")[0]) == (400, "cron_expression")
    for id in (made["jobId"], other):
        assert curl("DELETE", f"/v1/jobs/{id}") == (200, {"success": True})
    status, error = curl("GET", f"/v1/jobs/{other}")
    assert (status, error["code"], error["details"]) == (404, 5, [])
    assert other in error["message"]
    status, error = curl("POST", "/v1/jobs", {"name": "Cut short", "cron_expression": "/5 "})
    assert (status, error["code"]) == (400, 3)
    assert error["message"].startswith("cron_expression: ")


def from_a_page(curl: Curl) -> None:
    """A browser asks first: pages of this machine may call, on any port; others may not."""
    asked = ("Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type")
    for origin in ("http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:8000"):
        status, headers = curl.headers("OPTIONS", "/v1/jobs/any", f"Origin: {origin}", *asked)
        assert status.split()[1] in ("200", "204")
        assert headers["access-control-allow-origin"] == origin
        assert "PUT" in headers["access-control-allow-methods"]
        assert "content-type" in headers["access-control-allow-headers"].lower()
        _, headers = curl.headers("GET", "/v1/jobs", f"Origin: {origin}")
        assert headers["access-control-allow-origin"] == origin
    for origin in ("http://example.com", "http://localhost.example.com", "null"):
        _, headers = curl.headers("OPTIONS", "/v1/jobs/any", f"Origin: {origin}", *asked)
        assert "access-control-allow-origin" not in headers
        _, headers = curl.headers("GET", "/v1/jobs", f"Origin: {origin}")
        assert "access-control-allow-origin" not in headers
