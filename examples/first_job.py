"""Create a job, run it, follow its output, read its record, delete it."""

from dts.client import DtsClient, shell
from dts.gen.job.v1.job_pb2 import CreateJobRequest


def main() -> None:
    with DtsClient() as dts:
        job_id = dts.create_job(
            CreateJobRequest(
                name="first job",
                cron_expression="0 9 * * MON-FRI",
                time_zone="Europe/Paris",
                task=shell('echo "I am $DTS_EXECUTION_ID, attempt $DTS_ATTEMPT"'),
                max_retries=3,
                tags=["example"],
            )
        )
        print("job", job_id, "runs next at", dts.get_job(job_id).next_run.ToJsonString())

        execution_id = dts.run_job(job_id)
        for part in dts.follow_output(execution_id):
            print(part.data.decode(), end="")
        record = dts.get_execution(execution_id)
        print(record.status, "by", record.worker_id)

        dts.delete_job(job_id)


if __name__ == "__main__":
    main()
