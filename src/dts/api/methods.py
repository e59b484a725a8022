"""Every method of the API once, found by reflection over the services' descriptors: what gRPC, HTTP and OpenAPI are made from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from dts.api.execution_methods import ExecutionMethods
from dts.api.job_methods import JobMethods
from dts.api.scheduler_methods import SchedulerMethods
from dts.gen.execution.v1 import execution_pb2
from dts.gen.job.v1 import job_pb2
from dts.gen.scheduler.v1 import scheduler_pb2

Unary = Callable[[Message], Awaitable[Message]]
Streaming = Callable[[Message], AsyncIterator[Message]]


class Method(NamedTuple):
    """One method. `call` answers a request; of a streaming one it gives the answers."""

    descriptor: MethodDescriptor
    request: type[Message]
    unary: Unary | None
    streaming: Streaming | None

    @property
    def name(self) -> str:
        """As in job.v1.JobService.GetJob."""
        return self.descriptor.full_name

    @property
    def rule(self) -> HttpRule:
        """The method's HTTP annotation."""
        return self.descriptor.GetOptions().Extensions[annotations_pb2.http]


class Service(NamedTuple):
    """A service with its methods."""

    descriptor: ServiceDescriptor
    methods: tuple[Method, ...]


def services(
    jobs: JobMethods | None = None,
    scheduler: SchedulerMethods | None = None,
    executions: ExecutionMethods | None = None,
) -> tuple[Service, ...]:
    """The services that a process serves; those not given are left out."""
    given = (
        (job_pb2.DESCRIPTOR, "JobService", jobs),
        (scheduler_pb2.DESCRIPTOR, "SchedulerService", scheduler),
        (execution_pb2.DESCRIPTOR, "ExecutionService", executions),
    )
    return tuple(_service(file, name, methods) for file, name, methods in given if methods is not None)


def _service(file: FileDescriptor, name: str, implementation: object) -> Service:
    descriptor = file.services_by_name[name]
    return Service(descriptor, tuple(_method(each, implementation) for each in descriptor.methods))


def _method(descriptor: MethodDescriptor, implementation: object) -> Method:
    call = getattr(implementation, descriptor.name)  # a method of the proto that is not implemented ends the start
    request = GetMessageClass(descriptor.input_type)
    if descriptor.server_streaming:
        return Method(descriptor, request, None, call)
    return Method(descriptor, request, call, None)


def all_methods(served: Sequence[Service]) -> list[Method]:
    """The methods of all services, in the order of the protos."""
    return [method for service in served for method in service.methods]
