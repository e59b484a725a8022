#!/bin/sh
# Create, run, read and delete a job with nothing but curl.
set -eu
jobs=http://${DTS_HOST:-localhost}:${JOB_SERVICE_HTTP_PORT:-8080}/v1/jobs

curl -fsS "$jobs" -d '{"id": "over-http", "name": "Over HTTP", "cron_expression": "0 9 * * *", "task": {"shell": {"command": "echo hi"}}}'
echo
curl -fsS -X POST "$jobs/over-http/run" -d '{}'
echo
curl -fsS "$jobs/over-http"
echo
curl -fsS -X DELETE "$jobs/over-http"
echo
