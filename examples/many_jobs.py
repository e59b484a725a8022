"""A thousand jobs in one bulk call; listed page by page; deleted in one."""

from dts.client import DtsClient, python
from dts.gen.job.v1.job_pb2 import CreateJobRequest, ListJobsRequest


def main() -> None:
    with DtsClient() as dts:
        job_ids = dts.batch_create_jobs(
            CreateJobRequest(
                name=f"customer {n}",
                cron_expression=f"{n % 60} 3 * * *",
                task=python("builtins:print", [f"billing customer {n}"]),
                tags=["billing"],
            )
            for n in range(1000)
        )
        found = {job.id for job in dts.iter_jobs(ListJobsRequest(tag="billing"))}
        print("created", len(job_ids), "listed", len(found.intersection(job_ids)))
        print("deleted", dts.batch_delete_jobs(job_ids))


if __name__ == "__main__":
    main()
