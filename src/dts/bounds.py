"""Every bound, with its unit in its name or comment, and the relations between bounds, asserted at import."""

from __future__ import annotations

# Time accounting
LATE_WINDOW_MIN_MS = 60_000  # the least late window a job may have; at least the failover promise
FAILOVER_PROMISE_MS = 10_000  # new fires after an instance's death
FIRST_PUBLICATION_OWES_MS = 24 * 3_600_000  # how far back a new revision owes instants one by one
CHANGE_LATE_MS = 7 * 24 * 3_600_000  # a later revision owes nothing further back: what was decided stands
DELETED_KNOWN_MS = 24 * 3_600_000  # how long an owner knows a deleted job: it is not brought back
COMMAND_EXPIRY_MS = 24 * 3_600_000
MAX_GAPS = 16  # jumps of the watermark being worked off at once
CLOCK_APART_MS = 2_000  # wall and monotonic clock further apart than this: the watermark is held
CLOCK_HOLD_MS = 30_000  # ... for so long at most

# Steps and commits
STEP_BYTES = 32 * 1024 * 1024  # of a commit: a heavier step is decided again with fewer inputs
STEP_FIRES = 2_500  # due instants a shard takes into one commit
STEP_CHANGES = 5_000  # feed records a shard takes into one commit
CHANGES_LINGER_MS = 10  # changes alone wait so long after the last commit: one commit takes many of them
STEP_REPORTS = 512  # worker reports a shard takes into one commit
STEP_JOBS_OF_GAP = 20_000  # jobs of an outage looked at in one step
HELD_COMMANDS = 500  # commands that wait for a revision: each commit carries them all
INBOX_CHANGES = 200_000  # changes waiting for a shard: beyond, the feed is slowed
INBOX_REPORTS = 20_000  # reports waiting for a shard: beyond, the worker's stream is slowed
TAKE_OVERS = 16  # shards being opened at once
REFUSED_BACKOFF_MS = (50, 5_000)  # first and longest wait after a refused commit

# The book of record and the feed: two writes (services/publication.py)
STORE_WRITE_MS = 10_000  # a write of the job store that takes longer: its outcome is unknown
INTENT_LOOK_MS = 2 * STORE_WRITE_MS  # an intent so old is looked at by sweepers
INTENT_KEPT_MS = 10 * STORE_WRITE_MS  # ... and so old it goes: what it says has happened by then, or never will
PUBLISH_FRESH_MS = 60_000  # a revision that was read longer ago is read again before it is published
CATCH_UP_JOBS = 500  # jobs read and published at once
CATCH_UP_REVISIONS = 100  # of one job at once: older ones came to no term
SETTLING = 1_000  # changes acknowledged whose intents are being removed: beyond, the next change waits for its own
SWEEP_INTENTS = 1_000  # intents read at once
TOMBSTONE_AFTER_MS = 7 * 24 * 3_600_000  # a deletion has been in the feed for so long when its job leaves it
RENEW_AFTER_MS = (
    2 * INTENT_KEPT_MS
)  # a revision so young is being published, or the sweepers': it is not told once more
DELETION_OWED_MS = (
    TOMBSTONE_AFTER_MS + 24 * 3_600_000
)  # a deletion so old that the feed does not have is not told again
CLOCK_SAMPLE_OLD_MS = 60_000  # a comparison of clocks so old says nothing any more: changes are refused

# Definitions and requests
JOB_ID_BYTES = 64
DEFINITION_BYTES = 64 * 1024
REQUEST_BYTES = 4 * 1024 * 1024  # one request, gRPC or HTTP
BULK_JOBS = 10_000  # jobs in one bulk call
BULK_EXECUTIONS = 1_000  # executions cancelled or retried by one call
BACKFILL_INSTANTS = 1_000_000  # of one backfill
BACKFILL_PARALLEL = 10_000  # its executions open at once, at most; BACKFILL_PARALLEL_DEFAULT unless said
BACKFILL_PARALLEL_DEFAULT = 10
BACKFILLS_RUNNING = 64  # in one shard
BACKFILLS_KNOWN = 256  # in one shard, those that are over included: beyond, the oldest of these is forgotten
NAME_LENGTH = 256
DESCRIPTION_LENGTH = 8_192
METADATA_ENTRIES = 64
METADATA_KEY_LENGTH = 128
METADATA_VALUE_LENGTH = 8_192
TAGS = 64
TAG_LENGTH = 128
SCHEDULES = 16  # schedules of one job
SCHEDULE_LENGTH = 512
PAGE_SIZE = 250
PAGE_SIZE_SCHEDULED = 100
PREVIEW_INSTANTS = 1_000
COUNTED_EXECUTIONS = 10_000  # `total` is exact up to here
MAX_RETRIES = 1_000
TIMEOUT_MAX_S = 30 * 86_400
RESOURCE_MAX = 2**31 - 1
WATCH_QUEUE = 10_000  # events waiting for one slow watcher; beyond, it is told that it missed some

# Attempts and leases
MAX_LOSSES = 100  # points for attempts handed back or lost; then LOST
LOSS_RUNNING = 20  # points for one that ran, or may have run on another machine: the fifth is the last
LOSS_WAITING = 1  # for one that did not, as far as is known: it is not to blame for its worker's death
LEASE_MS = 60_000
BEATS_PER_LEASE = 12
QUIET_BEATS = 3  # a worker elsewhere that was not heard for so many beats gets nothing new until it is
KEEP_ALIVES_PER_LEASE = 3
IDLE_COMMIT_MS = 5_000  # in the cluster a shard without news commits so often: what of its history is still 'pending'
HOLD_COMMIT_MS = 1_000  # ... while its clock is in doubt: each commit is a sample of the broker's clock
LEASE_MARGIN = 0.05
BROKER_SESSION_MS = 6_000
HAND_BACK_REST_MS = 1_000  # a worker that handed something back gets nothing new from that shard for so long
BACKLOG = 2_000  # leased executions waiting at a worker
LEASE_MESSAGE_KEYS = 500
MISFIRE_RUN_ALL = 10_000
GROUP_LIMIT = 1_000_000
PAUSE_AFTER = 1_000_000
RETRY_NAMES = 32  # exit codes and kinds of errors that a job names
OVERLAP_WAITING = 1_000  # executions of a job that wait for their turn

# Placement
AGING_MS = 60_000  # who waits so long rises by one in priority
FIRST_AFTER_MS = 3_600_000  # who has waited so long comes before all who have not, whatever their priority
BYPASS_MS = 30_000  # what finds no room is passed over for so long; then room is kept free for it at one worker
KEPT_SHARE = 4  # one worker of so many, at least one, keeps room free
STEP_PLACES = 10_000  # waiting executions that an instance offers in one step, its shards in equal parts

# Output and results
OUTPUT_HEAD_BYTES = 32 * 1024
OUTPUT_TAIL_BYTES = 32 * 1024
RESULT_BYTES = 8 * 1024
ERROR_BYTES = 8 * 1024
OUTPUT_CHUNK_BYTES = 64 * 1024

# Waiting
ANSWER_WAIT_S = 2.0  # run now and cancel wait for the owner's commit
STOP_GRACE_S = 10.0  # a clean stop lets running tasks finish for so long
KILL_GRACE_S = 5.0  # between TERM and KILL of a task's group
REPORT_WAIT_MS = 1_000

assert CHANGE_LATE_MS >= FIRST_PUBLICATION_OWES_MS
assert STORE_WRITE_MS < INTENT_LOOK_MS < INTENT_KEPT_MS
assert TOMBSTONE_AFTER_MS > DELETED_KNOWN_MS
assert PUBLISH_FRESH_MS < DELETED_KNOWN_MS // 2
assert LATE_WINDOW_MIN_MS >= FAILOVER_PROMISE_MS
assert 2 * LEASE_MS // 3 > BROKER_SESSION_MS + 5_000
assert BACKFILLS_RUNNING < BACKFILLS_KNOWN
assert DEFINITION_BYTES < REQUEST_BYTES
# What no step can be cut below: the commands that wait, one request or report, and of one job its definitions.
assert HELD_COMMANDS * DEFINITION_BYTES <= STEP_BYTES
assert REQUEST_BYTES + 16 * DEFINITION_BYTES <= STEP_BYTES
assert OUTPUT_CHUNK_BYTES < REQUEST_BYTES
