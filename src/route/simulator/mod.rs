//! A deterministic simulator of the copy (rules C1, C2, C3 and C5).
//!
//! The real [`Router`](super::Router) and the real [`Batcher`](crate::apply::Batcher) run between a
//! model of a source and a model of a target. A seed decides what the applications do, how often
//! everything gets its turn, and what breaks when. After each commit of the target the oracle compares
//! every chunk that is done with what the source had; at the end nothing more breaks, and the daemon
//! has to arrive at a target that is equal to the source.
//!
//! ```text
//! writer ─► source ─► stream ─► engine ─► Router ─► Batcher ─► applier ─► target ─► oracle
//!             │                             ▲ offer, done                   ▲
//!             └────────── snapshot, rows ─► reader ─────────────────────────┘
//! ```
//!
//! What the model has, each as an event of its own that can come late or never:
//!
//! - source ([`source`], [`writer`]): a commit record in the log, its flush, and its visibility to new
//!   snapshots, in another order than that of the log, or not before the end (a synchronous standby
//!   that doesn't answer); transactions with `synchronous_commit = off` are seen before they are
//!   flushed. Rows have versions and locks; TRUNCATE is not MVCC-safe and waits for readers; xids begin
//!   around 2^32; a crash loses the unflushed log and the slot's last positions, and xids come again.
//! - stream ([`stream`]): whole transactions in commit order, as far as the log is flushed; tables that
//!   are published late, with open transactions that have written to them; keepalives up to exactly the
//!   next commit record; servers that send again what the checkpoint holds, or empty transactions.
//! - rows ([`row`]): key changes within and between chunks, values that aren't sent, keys outside what
//!   was planned, REPLICA IDENTITY FULL, and tables without a key where rows are there twice.
//! - daemon ([`engine`], [`reader`]): it dies between any two steps, those of its start included; chunks
//!   fail, and the answer to `done` is lost.
//! - repair ([`repair`]): chunks of a table that was over are to be copied again at any moment, and
//!   something has happened to their rows.
//! - target ([`target`]): transactions with row locks, huge ones open over many batches; COMMITs that
//!   land after their daemon has died; a crash that loses what wasn't flushed. Who waits for whom is
//!   followed through row locks and through the engine's wait for a chunk, of which PostgreSQL sees
//!   only half.
//! - oracle ([`oracle`]).
//!
//! Each rule can be left out of a run ([`rules`]), and for each there is a seed that fails without it
//! ([`seeds`]): that a run passes means something only if it could have failed.

mod engine;
mod oracle;
mod reader;
mod repair;
mod row;
mod rules;
mod seeds;
mod source;
mod stream;
mod target;
mod world;
mod writer;

pub(super) use rules::{Rule, keeps};
