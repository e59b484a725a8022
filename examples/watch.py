"""Run ten jobs side by side, watch their events, and read from the record how they ended."""

import asyncio
from collections import Counter

from dts.client import AsyncDtsClient, shell
from dts.gen.job.v1.job_pb2 import CreateJobRequest

TIMEOUT_S = 30


async def main() -> None:
    async with AsyncDtsClient() as dts, asyncio.timeout(TIMEOUT_S):
        watching = asyncio.create_task(watch(dts))
        requests = [CreateJobRequest(name=f"watched {n}", task=shell(f"exit {n % 2}")) for n in range(10)]
        job_ids = await dts.batch_create_jobs(requests)
        # A watch shows what happens from when it began; what is on record is what counts.
        results = await asyncio.gather(*(run(dts, job_id) for job_id in job_ids))
        print(dict(sorted(Counter(results).items())))
        watching.cancel()
        await dts.batch_delete_jobs(job_ids)


async def watch(dts: AsyncDtsClient) -> None:
    async for event in dts.watch_events():
        if event.HasField("execution"):
            print(event.execution.status, event.execution.id)


async def run(dts: AsyncDtsClient, job_id: str) -> str:
    """Run a job and return how it ended: its output is followed until the end, and not looked at."""
    execution_id = await dts.run_job(job_id)
    async for _ in dts.follow_output(execution_id):
        pass
    return (await dts.get_execution(execution_id)).status


if __name__ == "__main__":
    asyncio.run(main())
