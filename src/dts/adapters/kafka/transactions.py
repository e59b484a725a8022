"""One shard's transactional producer: all or nothing, and nothing at all once another has initialised the same id.

Rules:
- Nothing is committed before `commit_transaction` was called: up to there every failure is a refusal.
- After it has been called and did not say what became of it, only calling it again can tell (UNKNOWN).
- An abort that the broker has acknowledged is proof that the transaction was not committed.
- An empty transaction of a fenced producer is answered with success: there is none without a record.
- Whatever is fatal to the producer, being fenced above all, ends the ownership: the log alone knows what was committed.

Methods block; one thread at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from dts.adapters.kafka import settings as s
from dts.adapters.kafka.logs import client_logger
from dts.adapters.kafka.settings import KafkaSettings
from dts.errors import Bug, OwnershipLost, Unavailable
from dts.model import Outcome, ShardId

logger = logging.getLogger("dts.kafka")


class _State(Enum):
    NEW = 1
    READY = 2
    ABORTING = 3  # refused, but the broker has not acknowledged the abort
    UNKNOWN = 4
    LOST = 5


class Reports:
    """What the brokers said of one transaction's records."""

    def __init__(self) -> None:
        self.sent = 0
        self.written = 0
        self.first = -1  # offset of the first record of the log
        self.at = 0  # the broker's append time of the last one, ms

    def of_log(self, error: KafkaError | None, message: Message) -> None:
        """The delivery report of a log record."""
        self.of_event(error, message)
        if error is None:
            offset = message.offset()
            if offset is not None and (self.first < 0 or offset < self.first):
                self.first = offset
            self.at = max(self.at, message.timestamp()[1])

    def of_event(self, error: KafkaError | None, message: Message) -> None:
        """The delivery report of an event."""
        del message
        self.written += error is None


Probe = Callable[[str, "Transactions"], None]  # for tests: told the points that are passed


def no_probe(point: str, transactions: Transactions) -> None:
    """Watches nothing. Points: begun, produced, committed."""
    del point, transactions


class Transactions:
    """Transactions of one shard's owner."""

    def __init__(self, settings: KafkaSettings, shard: ShardId, probe: Probe = no_probe) -> None:
        self.wait_s = s.COMMIT_WAIT_S
        self.reports = Reports()
        self._topics = settings.topics
        self._shard = shard
        self._probe = probe
        self._state = _State.NEW
        self.producer = Producer(
            {
                **settings.common(),
                "transactional.id": settings.transactional_id(shard),
                "transaction.timeout.ms": s.TRANSACTION_TIMEOUT_MS,
                "delivery.timeout.ms": s.DELIVERY_TIMEOUT_MS,
                "message.max.bytes": s.TOPIC_RECORD_BYTES,
                "queue.buffering.max.kbytes": 2 * s.COMMIT_BYTES // 1024,
                "linger.ms": 0,
                "retry.backoff.ms": 5,
                "retry.backoff.max.ms": 5,
                "compression.type": "lz4",
            },
            logger=client_logger(),
        )

    def initialise(self) -> None:
        """Fences the former owner; its open transaction is aborted. Raises Unavailable: try again with a new object."""
        try:
            self.producer.init_transactions(s.INIT_WAIT_S)
        except KafkaException as error:
            self._state = _State.LOST
            raise Unavailable(f"shard {self._shard} cannot be taken over: {error.args[0].str()}") from error
        self._state = _State.READY

    def commit(self, log: Sequence[bytes], events: Sequence[bytes]) -> Outcome:
        """Writes records of the log and events. Raises OwnershipLost."""
        if not log:
            raise Bug(f"a commit of shard {self._shard} without a record in the log")
        if self._state in (_State.NEW, _State.UNKNOWN):
            raise Bug(f"shard {self._shard}: a commit while the producer is {self._state.name}")
        self._owned()
        if not self._aborted():
            return Outcome.REFUSED
        self.reports = Reports()
        try:
            self.producer.begin_transaction()
            self._probe("begun", self)
            self._produce(log, events)
        except KafkaException as error:
            self._fatal(error.args[0])
            return self._refuse()
        self._probe("produced", self)
        outcome = self._finish()
        self._probe("committed", self)
        return outcome

    def resolve(self) -> Outcome:
        """What became of the transaction that was UNKNOWN. Raises OwnershipLost when that is given up."""
        if self._state is not _State.UNKNOWN:
            raise Bug(f"shard {self._shard}: nothing is unknown")
        deadline = time.monotonic() + s.RESOLVE_WAIT_S
        outcome = Outcome.UNKNOWN
        while outcome is Outcome.UNKNOWN and time.monotonic() < deadline:
            outcome = self._finish()
        while outcome is Outcome.REFUSED and not self._aborted():  # proof is the acknowledged abort
            if time.monotonic() >= deadline:
                outcome = Outcome.UNKNOWN
        if outcome is Outcome.UNKNOWN:
            self._state = _State.LOST
            raise OwnershipLost(
                f"shard {self._shard}: what became of a commit was not known after {s.RESOLVE_WAIT_S:g} s"
            )
        return outcome

    @property
    def unknown(self) -> bool:
        """Whether a transaction waits for `resolve`."""
        return self._state is _State.UNKNOWN

    def close(self) -> None:
        """Lets the producer go. What was not committed is aborted: by this, or by whoever initialises the id next."""
        if self._state is _State.ABORTING:
            try:
                self._abort()
            except OwnershipLost:
                pass
        self._state = _State.LOST
        try:
            self.producer.purge()
            self.producer.flush(0)
        except KafkaException as error:  # it failed for good: it has nothing any more
            logger.debug("shard %d: closed with %s", self._shard, error.args[0].str())

    def _produce(self, log: Sequence[bytes], events: Sequence[bytes]) -> None:
        reports = self.reports
        for topic, records, told in (
            (self._topics.log, log, reports.of_log),
            (self._topics.events, events, reports.of_event),
        ):
            for record in records:
                while True:
                    try:
                        self.producer.produce(topic, record, partition=self._shard, on_delivery=told)
                        break
                    except BufferError:
                        self.producer.poll(0.1)  # ends: what cannot be delivered leaves the queue by its time-out
                reports.sent += 1

    def _finish(self) -> Outcome:
        try:
            self.producer.commit_transaction(self.wait_s)
        except KafkaException as raised:
            error = raised.args[0]
            self._fatal(error)
            if error.txn_requires_abort():
                return self._refuse()
            if not error.retriable() and error.code() != KafkaError._TIMED_OUT:
                self._lose(error)
            self._state = _State.UNKNOWN
            return Outcome.UNKNOWN
        self._state = _State.READY
        if self.reports.written < self.reports.sent:
            # Success without the records: a transaction that the broker never heard of ends so, too. The log can tell.
            self._state = _State.LOST
            told = f"{self.reports.written} of {self.reports.sent} records were written"
            raise OwnershipLost(f"shard {self._shard}: a transaction ended well, but {told}")
        return Outcome.COMMITTED

    def _refuse(self) -> Outcome:
        self._state = _State.ABORTING
        self._abort()
        return Outcome.REFUSED

    def _abort(self) -> bool:
        """Whether the broker has acknowledged the abort."""
        try:
            self.producer.abort_transaction(self.wait_s)
        except KafkaException as raised:
            error = raised.args[0]
            self._fatal(error)
            if not error.retriable() and error.code() != KafkaError._TIMED_OUT:
                self._lose(error)
            return False
        self._state = _State.READY
        return True

    def _aborted(self) -> bool:
        return self._state is not _State.ABORTING or self._abort()

    def _owned(self) -> None:
        if self._state is _State.LOST:
            raise OwnershipLost(f"shard {self._shard}: this producer was fenced or given up")

    def _fatal(self, error: KafkaError) -> None:
        if error.fatal() or error.code() in (
            KafkaError._FENCED,
            KafkaError.PRODUCER_FENCED,
            KafkaError.INVALID_PRODUCER_EPOCH,
        ):
            self._lose(error)

    def _lose(self, error: KafkaError) -> None:
        self._state = _State.LOST
        raise OwnershipLost(f"shard {self._shard}: {error.str()}")
