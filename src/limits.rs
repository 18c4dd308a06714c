//! Every limit, with its name and its unit. What is bounded here is bounded nowhere else.

use std::time::Duration;

/// The largest message of the wire protocol that is accepted, in bytes: PostgreSQL's own bound for
/// a `StringInfo` (`MaxAllocSize`, 1 GiB less one byte) holds for everything a server can send.
pub const MESSAGE_BYTES: usize = 0x3fff_ffff;

/// The largest message before authentication, in bytes; an honest server sends a few hundred.
pub const LOGIN_MESSAGE_BYTES: usize = 64 * 1024;

/// The most columns a table can have (`MaxTupleAttributeNumber` is 1664, `MaxHeapAttributeNumber` 1600).
pub const COLUMNS: usize = 1664;

/// How long one attempt to connect and log in may take, if `connect_timeout` doesn't say otherwise.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long saying goodbye to a server may take before the socket is just closed.
pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
