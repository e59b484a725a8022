"""Create, run, read and delete a job over HTTP, with nothing but Python's own library."""

import json
import os
from urllib.request import Request, urlopen

BASE = f"http://{os.environ.get('DTS_HOST', 'localhost')}:{os.environ.get('JOB_SERVICE_HTTP_PORT', '8080')}"


def call(method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
    """One request; raises urllib.error.HTTPError, whose body has code and message."""
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(BASE + path, data, method=method), timeout=30) as answer:
        found: dict[str, object] = json.load(answer)
        return found


def main() -> None:
    job = {"name": "over HTTP", "cron_expression": "0 9 * * *", "task": {"shell": {"command": "echo hi"}}}
    job_id = call("POST", "/v1/jobs", job)["jobId"]
    print("execution", call("POST", f"/v1/jobs/{job_id}/run", {})["executionId"])
    print("next run", call("GET", f"/v1/jobs/{job_id}")["nextRun"])
    print("deleted", call("DELETE", f"/v1/jobs/{job_id}")["success"])


if __name__ == "__main__":
    main()
