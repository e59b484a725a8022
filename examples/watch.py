"""Run ten jobs side by side and watch their events until all have ended."""

import asyncio

from dts.client import AsyncDtsClient, shell
from dts.gen.job.v1.job_pb2 import CreateJobRequest

ENDED = {"COMPLETED", "FAILED", "SKIPPED", "CANCELLED", "LOST"}
TIMEOUT_S = 30


async def main() -> None:
    async with AsyncDtsClient() as dts, asyncio.timeout(TIMEOUT_S):
        requests = [CreateJobRequest(name=f"watched {n}", task=shell(f"exit {n % 2}")) for n in range(10)]
        job_ids = await dts.batch_create_jobs(requests)
        watcher = asyncio.create_task(watch(dts, set(job_ids)))
        await asyncio.gather(*(dts.run_job(job_id) for job_id in job_ids))
        # An event may have passed before the watch began: what is on record is what counts.
        while not watcher.done() and not await all_ended(dts, job_ids):
            await asyncio.wait([watcher], timeout=0.5)
        watcher.cancel()
        await dts.batch_delete_jobs(job_ids)


async def watch(dts: AsyncDtsClient, waiting: set[str]) -> None:
    async for event in dts.watch_events():
        if event.execution.job_id in waiting:
            print(event.execution.status, event.execution.id)
            if event.execution.status in ENDED:
                waiting.discard(event.execution.job_id)
        if not waiting:
            return


async def all_ended(dts: AsyncDtsClient, job_ids: list[str]) -> bool:
    jobs = await asyncio.gather(*(dts.get_job(job_id) for job_id in job_ids))
    return all(job.last_status in ENDED for job in jobs)


if __name__ == "__main__":
    asyncio.run(main())
