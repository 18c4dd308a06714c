//! Every limit, with its name and its unit. What is bounded here is bounded nowhere else.

use std::time::Duration;

/// The largest message of the wire protocol that is accepted, in bytes: PostgreSQL's own bound for
/// a `StringInfo` (`MaxAllocSize`, 1 GiB less one byte) holds for everything a server can send.
pub const MESSAGE_BYTES: usize = 0x3fff_ffff;

/// The largest row that can travel, in bytes of text: a message, less what frames a row in it. PostgreSQL
/// itself can't print a larger one, neither for COPY nor for the stream.
pub const ROW_BYTES: usize = MESSAGE_BYTES - 64 * 1024;

/// From how many bytes of text on a row may be the one that a server couldn't print. Sizes are estimates:
/// an old and a new row can be one message, and of some types only the compressed size is known.
pub const LARGE_ROW_BYTES: u64 = 128 * 1024 * 1024;

/// How long such a row is looked for.
pub const LARGE_ROW_SEARCH: Duration = Duration::from_secs(60);

/// The largest message before authentication, in bytes; an honest server sends a few hundred.
pub const LOGIN_MESSAGE_BYTES: usize = 64 * 1024;

/// The most columns a table can have (`MaxTupleAttributeNumber` is 1664, `MaxHeapAttributeNumber` 1600).
pub const COLUMNS: usize = 1664;

/// How long one attempt to connect and log in may take, if `connect_timeout` doesn't say otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long saying goodbye to a server may take before the socket is just closed.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The most changes in one batch. Larger batches were no faster in measurements (50,000), and a
/// batch is what is done again after a lost connection.
pub const BATCH_CHANGES: usize = 10_000;

/// The most bytes of changes in one batch; one change can be larger.
pub const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// How long what the source sends is let gather while the stream is behind: about a batch. A walsender that can fill
/// the socket is cheaper, too, by a tenth of its CPU.
pub const GATHER: Duration = Duration::from_millis(30);

/// How long a batch waits for more at the most then.
pub const GATHER_MOST: Duration = Duration::from_millis(100);

/// From how many changes in a batch on those of each table are applied together.
pub const SET_CHANGES: usize = 16;

/// From how many changes of a table on that is done: with very few, preparing a statement for a set of columns that may
/// not come again isn't worth it.
pub const SET_TABLE_CHANGES: usize = 4;

/// From how many new rows of a table on they come by COPY, which takes longer to begin than an INSERT.
pub const SET_COPY_ROWS: usize = 64;

/// How long a table whose changes could not be applied together is left to the path that takes them one
/// by one.
pub const SET_REST: Duration = Duration::from_secs(60);

/// The most batches that are with the applier: one that the target works on, and the next.
pub const ROUNDS: usize = 2;

/// How long batches of a backlog join an open target transaction. DDL that waits for it (see [`DDL_LOCK_WAIT_MS`])
/// lives through its end.
pub const JOIN: Duration = Duration::from_millis(100);

/// The same in round trips, where these are long: a COMMIT costs one.
pub const JOIN_ROUND_TRIPS: u32 = 10;

/// The most batches that join one, each at a savepoint inside the one before.
pub const JOINED: u32 = 16;

/// The most prepared statements that the connection to the target keeps; each has a plan in the server's memory. With
/// fewer, a stream of changes to a thousand tables would prepare one for nearly each change.
pub const PREPARED_STATEMENTS: usize = 4096;

/// How many chunks are copied at a time, if the configuration doesn't say otherwise.
pub const COPY_READERS: usize = 4;

/// The most chunks that can be copied at a time: each takes a connection on either side.
pub const COPY_READERS_MOST: usize = 32;
/// How many pages of a table are sampled for each of its chunks: keys that lie close together on the
/// same page count as one, and thirty of them put most boundaries within a fifth of their place.
pub const SAMPLE_PAGES_PER_CHUNK: u64 = 30;

/// The fewest pages that are sampled for a chunk; the largest chunk is then about three times the mean.
pub const SAMPLE_PAGES_PER_CHUNK_LEAST: u64 = 4;

/// The most pages of a table that are sampled (390 MiB): some seconds of reading here and there.
pub const SAMPLE_PAGES: u64 = 50_000;

/// How many pages are sampled, with all of their rows, to learn how often the copy will read each.
pub const SAMPLE_PAGES_READS: u64 = 500;

/// The most rows of a sample that the source keeps and sorts.
pub const SAMPLE_ROWS: u64 = 200_000;

/// The most characters of a value that an error shows.
pub const SHOWN_CHARS: usize = 80;

/// How long the other end may be silent where an honest one would have answered, before the
/// connection counts as lost.
pub const SILENCE: Duration = Duration::from_secs(30);

/// How long to wait for a slot that something else uses, before that is reported.
pub const SLOT_FREE: Duration = Duration::from_secs(10);

/// How often the source is told what is durable on the target, at the least. A shorter
/// `wal_sender_timeout` shortens it.
pub const FEEDBACK_INTERVAL: Duration = Duration::from_secs(10);

/// What is taken for `wal_sender_timeout` where that is switched off: PostgreSQL's default.
pub const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(60);

/// How soon after a commit on the target the source is told of it.
pub const FEEDBACK_DELAY: Duration = Duration::from_millis(100);

/// How often a position that moves without changes (other databases, vacuum) is written down.
pub const IDLE_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(2);

/// How often the source is asked for its position and its clock.
pub const CLOCK_INTERVAL: Duration = Duration::from_millis(500);

/// How often the time up to which the source is applied is written down while nothing happens.
pub const CLOCK_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);

/// How often slot, publications, counters and open incidents are looked at.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How often the log says how it goes, and how often it repeats the same fault.
pub const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// For how long an incident that is over is the same one if it comes again.
pub const INCIDENT_REST: Duration = Duration::from_secs(600);

/// How long a blocked daemon waits before it tries again.
pub const BLOCKED_INTERVAL: Duration = Duration::from_secs(30);

/// How often a blocked daemon looks whether a schema has changed, which may be what it waits for.
pub const SCHEMA_INTERVAL: Duration = Duration::from_secs(2);

/// The longest pause between two attempts after something that passes by itself.
pub const BACKOFF_LONGEST: Duration = Duration::from_secs(15);

/// The longest that DDL waits for a lock that makes the stream wait behind it, in milliseconds; less
/// where `deadlock_timeout` is short.
pub const DDL_LOCK_WAIT_MS: i64 = 200;

/// How often DDL that couldn't have its lock is tried before it is left for later: about a minute.
pub const DDL_ATTEMPTS: usize = 10;

/// About how many bytes of a table are one chunk of the copy: what a reader moves in a second or less.
/// The stream pauses for no longer than a chunk takes.
pub const CHUNK_BYTES: u64 = 16 * 1024 * 1024;

/// From how many bytes of a table on its indexes that are not unique are made after the copy: inserting in an
/// index's order of its own costs more than sorting once as soon as the index is larger than the cache.
pub const HELD_INDEX_TABLE_BYTES: u64 = 256 * 1024 * 1024;

/// How many indexes are built at a time when they are put back, each of another table.
pub const INDEX_BUILDERS: usize = 3;

/// How many times its own size the copy of a table reads from the source at about the most, if need be
/// with larger chunks. Each chunk of a table whose rows lie in no order reads all of it; beyond about as
/// many chunks as the source reads faster than the target writes, more don't even make a chunk shorter.
pub const TABLE_READS: u64 = 16;

/// The least bytes of a chunk, however low `copy.max_rate` is.
pub const CHUNK_BYTES_LEAST: u64 = 64 * 1024;

/// Rows are gathered into messages of about this many bytes on their way into the target.
pub const COPY_MESSAGE_BYTES: usize = 32 * 1024;

/// No chunk is begun while the stream is further behind the source than this: chunks that are being
/// copied make it wait, so it needs the time in between.
pub const COPY_LAG: Duration = Duration::from_secs(1);

/// How long a reader waits before it takes another snapshot after one was refused.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_millis(50);

/// How long something may stand in the way of every snapshot before the status names it.
pub const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(2);

/// How long a chunk's rows wait for a lock on the target. While unique constraints are in place, a chunk can
/// wait for the stream, and the stream for a chunk, of which the server sees only half.
pub const COPY_LOCK_WAIT: Duration = Duration::from_secs(10);

/// How long a reader that nothing waits for keeps its connections.
pub const COPY_IDLE: Duration = Duration::from_secs(2);

/// How long a table's copy rests after a failure that passes by itself; longer if that comes again.
pub const COPY_PAUSE: Duration = Duration::from_secs(2);

/// How often the ledger is asked whether something is to be copied again.
pub const REPAIR_INTERVAL: Duration = Duration::from_secs(1);

/// How long a daemon may be blocked, or be away, before nobody waits for what it is to copy again.
pub const REPAIR_GRACE: Duration = Duration::from_secs(10);

/// How long nothing may move before nobody waits for that.
pub const REPAIR_PATIENCE: Duration = Duration::from_secs(120);

/// How often a loop that waits for something comes round all the same.
pub const TURN: Duration = Duration::from_secs(1);

/// How long a start may take before the service counts as started all the same: making a slot waits for
/// the transactions that run on the source.
pub const READY: Duration = Duration::from_secs(60);

/// How often the daemon looks at both ends, for whoever wants to know how it is.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(2);

/// How old a look may be before nobody is told that all is well.
pub const STATUS_AGE: Duration = Duration::from_secs(60);

/// How long a loop of the daemon may stand still before it isn't healthy: asking a server that doesn't answer takes it
/// [`SILENCE`].
pub const STILL: Duration = Duration::from_secs(120);

/// The port of the status page, if the configuration doesn't say otherwise.
pub const HTTP_PORT: u16 = 7432;

/// How often the address of the status page is tried while something else uses it.
pub const HTTP_RETRY: Duration = Duration::from_secs(5);

/// The most connections to it. More wait: each is a descriptor that the daemon may need for its own.
pub const HTTP_CONNECTIONS: usize = 64;

/// How long such a connection may take for the head of a request, or say nothing.
pub const HTTP_HEAD: Duration = Duration::from_secs(30);

/// How long it may last.
pub const HTTP_LONGEST: Duration = Duration::from_secs(3600);

/// The most characters of a status that the service manager is told; a message has 4096 bytes.
pub const STATUS_CHARS: usize = 1000;

/// How many bytes a second a verification that the daemon begins by itself reads of either database, if
/// `verify.max_rate` doesn't say otherwise.
pub const VERIFY_RATE_BYTES: u64 = 8 * 1024 * 1024;

/// The shortest time between two of them.
pub const VERIFY_EVERY_LEAST: Duration = Duration::from_secs(1);
/// How long the stream may make no progress, and a row's difference be undecided, before a verification gives
/// up on that.
pub const VERIFY_PATIENCE: Duration = Duration::from_secs(60);

/// How long a verification waits for a lock that keeps it from reading a table.
pub const VERIFY_LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often a verification looks whether the stream has got to a position.
pub const VERIFY_POLL: Duration = Duration::from_millis(20);

/// After how long of that it has the source flush its log; longer than [`IDLE_CHECKPOINT_INTERVAL`].
pub const VERIFY_NUDGE: Duration = Duration::from_secs(3);

/// The most rows of a chunk that are compared one by one when its sums differ, on each side.
pub const VERIFY_ROWS: i64 = 1_000_000;

/// The most rows of a chunk that are looked at again to tell a difference from a change in flight; also the most
/// differences of a table that are listed.
pub const VERIFY_CANDIDATES: usize = 1_000;

/// The most bytes of their keys.
pub const VERIFY_CANDIDATES_BYTES: usize = 2 * 1024 * 1024;

/// How many of them are looked at when a table's list is full: enough to tell that the chunk differs.
pub const VERIFY_CANDIDATES_LEAST: usize = 20;

/// How many rows that differ are described at a time: the answer has a hash for each of their columns.
pub const VERIFY_DESCRIBED: usize = 100;

/// How often a row is looked at on both sides at the least before it counts as undecided: where the target is
/// far behind, each time takes as long as that.
pub const VERIFY_ROUNDS: usize = 8;

/// How often the source is asked, one time after the other, for a row that changes all the time.
pub const VERIFY_SAMPLES: usize = 200;

/// The most sights of such rows that are kept.
pub const VERIFY_SIGHTS: usize = 5_000;

/// The most differences of all tables together that are listed.
pub const VERIFY_LISTED: usize = 5_000;

/// The most differing columns of a row that are named.
pub const VERIFY_COLUMNS: usize = 32;

/// The most differing columns of a row whose values are shown.
pub const VERIFY_VALUES: usize = 10;

/// The most characters of a value that are looked at for the place where it differs.
pub const VERIFY_VALUE_CHARS: usize = 64 * 1024;

/// Up to how many of the provider's rows are counted that stay behind: whether they are more makes no difference.
pub const STAYS_BEHIND_ROWS: i64 = 10_000;

/// The oldest major version that a server may have.
pub const MAJOR_VERSION_LEAST: i32 = 14;

/// How long a preflight waits for a lock on a table that it asks for its size, or for a row.
pub const CHECK_LOCK_WAIT: Duration = Duration::from_secs(2);

/// How long one of its queries may take.
pub const CHECK_STATEMENT: Duration = Duration::from_secs(60);

/// How long it looks on how much log the source writes.
pub const CHECK_WAL: Duration = Duration::from_secs(1);

/// From how many milliseconds on a `wal_sender_timeout` is long enough for a moment's delay in the network.
pub const WAL_SENDER_TIMEOUT_LEAST_MS: i64 = 5_000;

/// How far clocks may be apart before that is told.
pub const CLOCKS_APART: Duration = Duration::from_secs(5);

/// From how many bytes on a table that is copied in one piece is worth a warning: minutes, in which the stream
/// waits.
pub const SINGLE_CHUNK_BYTES: u64 = 1024 * 1024 * 1024;

/// How many bytes a second one reader copies at the least, for an estimate of how long a chunk takes. Where the
/// network is slower, `copy.max_rate` says so.
pub const READER_RATE_BYTES: u64 = 8 * 1024 * 1024;

/// For how long the daemon should be able to be away without losing its slot.
pub const AWAY_LEAST: Duration = Duration::from_secs(30 * 60);

/// How often a fence is tried whose locks were not to be had.
pub const FENCE_RETRY: Duration = Duration::from_millis(100);

/// What locking a table and switching its trigger on takes, for an estimate.
pub const FENCE_TABLE: Duration = Duration::from_micros(200);

/// How often it is looked who is in its way.
pub const FENCE_LOOK: Duration = Duration::from_millis(30);

/// How long sessions in the way of a fence are ended, and others that come, before that is given up.
pub const FENCE_END: Duration = Duration::from_secs(4);

/// How long making the trigger of a table is tried that somebody has locked, before it is left for later.
pub const FENCE_MAKE: Duration = Duration::from_secs(1);

/// How long removing a fence is tried for a table that somebody has locked.
pub const FENCE_DDL: Duration = Duration::from_secs(30);

/// How long writes may rest in a switch, if the configuration doesn't say otherwise.
pub const CUTOVER_PAUSE: Duration = Duration::from_secs(10);

/// How long transactions that have written may go on then.
pub const CUTOVER_PATIENCE: Duration = Duration::from_secs(3);

/// How long rows are compared while writes rest.
pub const CUTOVER_VERIFY: Duration = Duration::from_millis(300);

/// How many bytes of tables are compared in a second at the least, for an estimate of what fits into that.
pub const CUTOVER_VERIFY_RATE_BYTES: u64 = 64 * 1024 * 1024;

/// How long ago everything may have been compared before a switch.
pub const CUTOVER_VERIFIED_WITHIN: Duration = Duration::from_secs(24 * 3600);

/// How far behind the stream may be when a switch begins.
pub const CUTOVER_LAG: Duration = Duration::from_secs(5);

/// From how long on a transaction is in the way of a switch.
pub const CUTOVER_TRANSACTION: Duration = Duration::from_secs(30);

/// How long the answer to a decision is waited for, and as long again whether it was one is asked for. Then it is given
/// up.
pub const CUTOVER_ANSWER: Duration = Duration::from_millis(700);

/// How long what is left to undo is tried by the command, when the old side takes writes again.
pub const CUTOVER_TIDY: Duration = Duration::from_secs(5);

/// How often it is looked whether the other side has everything.
pub const CUTOVER_POLL: Duration = Duration::from_millis(5);

/// How long a hook may take.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// How often the daemon looks whether a switch goes on.
pub const CUTOVER_WATCH: Duration = Duration::from_millis(200);

/// What comparing a table takes at the least, as if it had so many bytes more: some round trips.
pub const CUTOVER_VERIFY_TABLE_BYTES: i64 = 512 * 1024;

/// For how long nobody must have used the old database before it is given up.
pub const QUIET: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long the same kind of trouble isn't told again, if the configuration doesn't say otherwise.
pub const NOTIFY_CALM: Duration = Duration::from_secs(300);

/// The shortest time between two reports of how it goes.
pub const NOTIFY_EVERY_LEAST: Duration = Duration::from_secs(1);

/// How long a database may not answer before somebody is told.
pub const NOTIFY_UNREACHABLE: Duration = Duration::from_secs(60);

/// The most messages that wait for a webhook or a command.
pub const NOTIFY_QUEUE: usize = 64;

/// How long a webhook or a command may take for a message.
pub const NOTIFY_DEADLINE: Duration = Duration::from_secs(15);

/// How long it is tried to deliver a message.
pub const NOTIFY_PATIENCE: Duration = Duration::from_secs(600);

/// How long the daemon waits at its end for messages to be delivered.
pub const NOTIFY_FAREWELL: Duration = Duration::from_secs(5);

/// The most characters of a message: Telegram takes 4,096, Slack some more.
pub const NOTIFY_CHARS: usize = 2000;

/// The most bytes that are read of a webhook's answer.
pub const NOTIFY_ANSWER_BYTES: usize = 64 * 1024;
