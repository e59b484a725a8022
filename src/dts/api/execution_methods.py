"""The methods of execution.v1.ExecutionService: messages in, messages out (or a stream of them). Both gRPC and HTTP call them."""

from __future__ import annotations

from collections.abc import AsyncIterator

from dts import bounds
from dts.api import tasks, values, views
from dts.api.batch_methods import BatchMethods
from dts.api.ids import parse_execution_id
from dts.api.wanted import cause_of, job_of, span_of, statuses_of
from dts.errors import InvalidArgument
from dts.gen.execution.v1 import execution_pb2 as execution
from dts.model import Execution, ExecutionQuery, Key, Range, Status
from dts.services.audit import AuditService
from dts.services.batches import Batches
from dts.services.executions import ExecutionService, Wanted
from dts.services.explain import ExplainService
from dts.services.ids import check_job_id, check_request_id

ATTEMPT_MAX = 2**31 - 1
_AUDITED_MS = 24 * 3_600_000  # an audit that names no start looks back so far


class ExecutionMethods(BatchMethods):
    """Each method raises DtsError for what the caller did or the world is; anything else is a bug."""

    def __init__(self, executions: ExecutionService, audit: AuditService, explain: ExplainService) -> None:
        self._explain = explain
        self._executions = executions
        self._batches = Batches(executions)
        self._audit = audit

    async def GetExecution(self, request: execution.GetExecutionRequest) -> execution.ExecutionResponse:
        """One execution."""
        found, earlier = await self._executions.get(parse_execution_id(request.id))
        return views.execution_message(found, tuple(earlier))

    async def ListExecutions(self, request: execution.ListExecutionsRequest) -> execution.ListExecutionsResponse:
        """Executions, newest first."""
        limit = values.page_size(request)
        before = parse_execution_id(request.last_id, "last_id") if request.last_id else None
        wanted = _wanted(request)
        if wanted.query.job:
            await self._executions.check_job(wanted.query.job)
        page = await self._executions.page(wanted, before, limit)
        return execution.ListExecutionsResponse(
            executions=[views.execution_message(each) for each in page.executions],
            total=page.total,
            total_is_lower_bound=page.lower_bound,
            next_page=str(page.next) if page.next is not None else "",
        )

    async def CancelExecution(self, request: execution.CancelExecutionRequest) -> execution.ExecutionResponse:
        """Ends an open execution as CANCELLED."""
        reason = values.text(request.reason, bounds.NAME_LENGTH, "reason")
        key = parse_execution_id(request.id)
        act = self._executions.cancellable(key) if request.dry_run else self._executions.cancel(key, reason)
        found, earlier = await act
        return views.execution_message(found, tuple(earlier))

    async def RetryExecution(self, request: execution.RetryExecutionRequest) -> execution.RetryExecutionResponse:
        """A new execution of an ended one's job; the old verdict stays."""
        key, request_id = parse_execution_id(request.id), check_request_id(request.request_id)
        arguments = b""
        if request.HasField("task") and request.task.WhichOneof("kind") is not None:
            tasks.check(request.task)
            arguments = tasks.body(request.task, 0)
        if request.dry_run:
            found, _ = await self._executions.get(key)
            await self._executions.retriable(found)
            return execution.RetryExecutionResponse()
        return execution.RetryExecutionResponse(execution_id=await self._executions.retry(key, arguments, request_id))

    async def GetOutput(self, request: execution.GetOutputRequest) -> execution.GetOutputResponse:
        """What an attempt wrote: head and tail, and how much between them was cut."""
        key, attempt = parse_execution_id(request.id), values.within(request.attempt, 0, ATTEMPT_MAX, "attempt")
        output = await self._executions.output(key, attempt)
        return execution.GetOutputResponse(
            execution_id=str(key),
            attempt=output.attempt,
            head=output.head,
            tail=output.tail,
            cut_bytes=output.cut,
            complete=output.complete,
        )

    async def FollowOutput(
        self, request: execution.FollowOutputRequest
    ) -> AsyncIterator[execution.FollowOutputResponse]:
        """The output as it is written, until the execution ends."""
        key, attempt = parse_execution_id(request.id), values.within(request.attempt, 0, ATTEMPT_MAX, "attempt")
        async for piece in self._executions.follow(key, attempt):
            yield execution.FollowOutputResponse(
                attempt=piece.attempt, data=piece.data, cut_bytes=piece.cut, status=piece.status
            )

    async def WatchEvents(self, request: execution.WatchEventsRequest) -> AsyncIterator[execution.WatchEventsResponse]:
        """Transitions as they are committed, from now on."""
        job_id = check_job_id(request.job_id, "job_id") if request.job_id else ""
        async for event in self._executions.watch(job_id):
            match event:
                case Execution():
                    yield execution.WatchEventsResponse(execution=views.execution_message(event))
                case Range():
                    yield execution.WatchEventsResponse(range=views.range_message(event))
                case _:
                    yield execution.WatchEventsResponse(missed_events=event)

    async def ListVerdicts(self, request: execution.ListVerdictsRequest) -> execution.ListVerdictsResponse:
        """Verdicts of due instants in order of time: executions, and ranges of instants that did not run."""
        limit = values.page_size(request)
        start, until = span_of(request)
        job_id = await self._known(request.job_id)
        statuses, kinds = _verdict(request.verdict)
        before = _place(request.page_token) if request.page_token else None
        query = ExecutionQuery(job_id, statuses, start, until or self._executions.now() + 1)
        found = await self._executions.verdicts(query, kinds, before, limit)
        return execution.ListVerdictsResponse(
            verdicts=[_verdict_message(each) for each in found.found],
            next_page_token=_token(found.next) if found.next is not None else "",
        )

    async def Audit(self, request: execution.AuditRequest) -> execution.AuditResponse:
        """Recomputes what was due and compares it with the verdicts."""
        job_id = await self._known(request.job_id)
        now = self._executions.now()
        until = values.instant(request.to, "to") if request.HasField("to") else now
        after = max(0, until - _AUDITED_MS)
        if request.HasField("from"):  # a keyword of Python: only reachable by name
            after = values.instant(getattr(request, "from"), "from")
        if after > until:
            raise InvalidArgument("from", "is after to")
        found = await self._audit.audit(job_id, after, until)
        tally = found.tally
        return execution.AuditResponse(
            clean=tally.clean,
            due=tally.due,
            verdicts=dict(tally.verdicts),
            findings=[
                execution.Finding(
                    kind=each.kind, job_id=each.job, instant=values.timestamp(each.instant), detail=each.detail
                )
                for each in tally.findings
            ],
            missing=tally.kinds["missing"],
            doubled=tally.kinds["doubled"],
            unexplained=tally.kinds["unexplained"],
            complete_until=values.timestamp(found.complete_until),
            jobs=tally.jobs,
            notes=found.notes,
        )

    async def Explain(self, request: execution.ExplainRequest) -> execution.ExplainResponse:
        """Why an execution or a job is as it is."""
        if request.HasField("at") and request.local:
            raise InvalidArgument("local", "is given beside at: give one of the two")
        if "@" in request.id:
            if request.HasField("at") or request.local:
                raise InvalidArgument("at", "an execution has its instant in its id: it is for a job")
            return views.explained_message(await self._explain.execution(parse_execution_id(request.id)))
        at = values.instant(request.at, "at") if request.HasField("at") else None
        local = values.text(request.local, bounds.NAME_LENGTH, "local")
        return views.explained_message(await self._explain.job(check_job_id(request.id), at, local))

    async def _known(self, job_id: str) -> str:
        """The id of a job that is or was there; '' for all. Raises InvalidArgument, NotFound."""
        if job_id:
            await self._executions.check_job(check_job_id(job_id, "job_id"))
        return job_id


def _wanted(request: execution.ListExecutionsRequest) -> Wanted:
    start, until = span_of(request)
    statuses, running = statuses_of(request.status, "status")
    query = ExecutionQuery(job_of(request.job_id, "job_id"), statuses, start, until)
    return Wanted(query, running, cause_of(request.cause, "cause"))


def _verdict(text: str) -> tuple[frozenset[Status], tuple[bool, bool]]:
    """The statuses wanted, and whether executions and ranges are."""
    name = text.upper()
    if not name:
        return frozenset(), (True, True)
    if name == "RANGE":
        return frozenset(), (False, True)
    ended = [status.name for status in Status if status.terminal]
    if name not in ended:
        raise InvalidArgument("verdict", f"{text[:40]!r} is none of {', '.join(ended)}, range")
    return frozenset({Status[name]}), (True, False)


def _verdict_message(found: Execution | Range) -> execution.Verdict:
    if isinstance(found, Range):
        return execution.Verdict(range=views.range_message(found))
    return execution.Verdict(execution=views.execution_message(found))


def _token(found: Execution | Range) -> str:
    """An execution's id, or a range's place: its job and last instant in the form of one, and its revision."""
    if isinstance(found, Range):
        return f"{Key(found.job, found.until)}/{found.revision}"
    return str(found.key)


def _place(token: str) -> Execution | Range:
    """What a token stands for: only its place in the list counts. Raises InvalidArgument."""
    text, slash, revision = token.partition("/")
    key = parse_execution_id(text, "page_token")
    if not slash:
        return Execution(key, 0, Status.COMPLETED)
    if not (revision.isascii() and revision.isdigit() and len(revision) < 19):
        raise InvalidArgument("page_token", f"{token[:120]!r} is none of ours")
    return Range(key.job, int(revision), key.at, key.at, 0, "")
