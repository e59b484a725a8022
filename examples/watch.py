"""Run ten jobs side by side, watch their events, and read from the record how they ended."""

import asyncio
from collections import Counter

from dts.client import AsyncDtsClient, shell
from dts.gen.job.v1.job_pb2 import CreateJobRequest

TIMEOUT_S = 30
POLL_S = 0.2


async def main() -> None:
    async with AsyncDtsClient() as dts, asyncio.timeout(TIMEOUT_S):
        watching = asyncio.create_task(watch(dts))
        requests = [CreateJobRequest(name=f"watched {n}", task=shell(f"exit {n % 2}")) for n in range(10)]
        job_ids = await dts.batch_create_jobs(requests)
        await asyncio.gather(*(dts.run_job(job_id) for job_id in job_ids))
        # A watch shows what happens from when it began; what is on record is what counts.
        results = await asyncio.gather(*(result(dts, job_id) for job_id in job_ids))
        print(dict(sorted(Counter(results).items())))
        watching.cancel()
        await dts.batch_delete_jobs(job_ids)


async def watch(dts: AsyncDtsClient) -> None:
    async for event in dts.watch_events():
        if event.HasField("execution"):
            print(event.execution.status, event.execution.id)


async def result(dts: AsyncDtsClient, job_id: str) -> str:
    """How the job's execution ended."""
    while not (job := await dts.get_job(job_id)).last_status:
        await asyncio.sleep(POLL_S)
    return job.last_status


if __name__ == "__main__":
    asyncio.run(main())
