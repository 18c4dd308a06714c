//! `cdc` copies a PostgreSQL database, follows it through a logical replication slot, and keeps a
//! second one in sync until the switch.
//!
//! # How a change travels
//!
//! ```text
//! source                                    cdc                                          target
//!                 ┌────────────────────────────────────────────────────────────┐
//! slot, pgoutput ─┼─► replication ─► pgoutput ─► Router ─► Batcher ─► Applier ─┼─► rows + checkpoint,
//!                 │     frames       messages      ▲       batches    SQL      │   one transaction
//!                 │       ▲                        │ snapshots          │      │
//! tables, COPY ───┼───────│───────────────────► readers ────────────────│──────┼─► rows + chunk done,
//!                 │       └──────── feedback ◄── durable LSN ◄──────────┘      │   one transaction
//!                 └────────────────────────────────────────────────────────────┘
//! ```
//!
//! Data flows one way, from bytes to SQL; the only thing that flows back is one number, the LSN that
//! is durable on the target. Follow an UPDATE:
//!
//! 1. The source's walsender decodes it from the log when its transaction has committed and sends it
//!    in a `CopyData` message. [`replication`] owns that connection and hands out [`replication::Frame`]s.
//! 2. [`pgoutput`] turns the frame's bytes into a [`pgoutput::Message`], without copying the values.
//! 3. [`engine`] resolves the relation that the message refers to and asks the [`route::Router`] whether
//!    the copy of the row's chunk has the change, will have it, or lacks it.
//! 4. What it lacks goes to the [`apply::Batcher`], which gathers whole transactions, or pieces of a huge
//!    one, into a [`apply::Batch`].
//! 5. The [`apply::Applier`] writes the batch and the checkpoint in one transaction of the target and
//!    counts the rows of each statement: a change does exactly what it did on the source, or the
//!    stream stops there.
//! 6. The engine tells the source that everything up to the checkpoint is durable, and the source may
//!    forget it.
//!
//! # How the rows get there that were there before
//!
//! The stream begins first; the rows are copied while it runs, in *chunks*: ranges of a table's key, each
//! read in a second or so under a snapshot of its own. So the source keeps no snapshot open for long and
//! holds no more of its log than one chunk takes, and a copy that is killed loses no more than the chunks
//! it was at. [`mod@copy`] plans and reads them; [`route`] says which changes a chunk has already; [`schema`]
//! takes constraints off the target that couldn't hold meanwhile, and puts them back.
//!
//! # Where state is
//!
//! Nowhere but in the databases: a slot and a publication on the source, and the [`ledger`] (schema
//! `cdc`) on the target. The daemon can be killed between any two instructions: [`engine::prepare`]
//! compares both ends with the ledger, refuses what doesn't fit, and the stream goes on from the
//! checkpoint. A transaction is sent again only if its rows and its checkpoint were not committed.
//!
//! # What is known before
//!
//! [`preflight`] looks at both ends before anything is made there, and tells what a start would refuse and what would
//! hurt later, each with what mends it.
//!
//! # How it is proved
//!
//! [`verify`] compares both sides while they are live, chunk by chunk, and tells what is in flight from what differs;
//! what differs is copied again by the daemon, through the same chunks ([`copy`](mod@copy)), when somebody asks for it in
//! the ledger. [`schema::diff()`] and [`integrity`] look at what isn't rows.
//!
//! # How the applications move
//!
//! [`cutover`] is a plan of steps: it fences the source, waits until the stream has brought everything over, sets
//! sequences, puts back what was held back, and opens the target; a rollback is the same plan the other way round. Who
//! carries it out holds a lease in the ledger, so a command that is killed is undone, or finished, by the daemon.
//!
//! # What happens when something fails
//!
//! Every failure is a [`fault::Fault`], and its [`fault::Reaction`] decides: what passes by itself is
//! tried again by the [`daemon`] with backoff, for ever; what needs a person is an incident in the
//! ledger, and is tried again every 30 seconds. [`observe`] reads all of that for `cdc status`, and every two seconds
//! beside the daemon, for systemd, for whoever asks over HTTP ([`serve`]: a page, metrics, health), and for messages
//! that tell each thing once ([`notify`]). systemd's
//! watchdog is fed ([`service`]) for as long as each loop of the daemon turns ([`pulse`]).
//!
//! # The floors
//!
//! Imports only go down: [`commands`] → [`demo`] → [`daemon`], [`removal`], [`serve`], [`notify`] → [`cutover`] → [`engine`],
//! [`observe`] → [`replication`], [`route`], [`apply`], [`verify`], [`preflight`] → [`integrity`] → [`copy`], [`pgoutput`],
//! [`schema`] → [`ledger`], [`catalog`], [`config`] → [`connect`] → [`lsn`], [`chunk`], [`hook`], [`fault`], [`limits`].

pub mod apply;
pub mod catalog;
pub mod chunk;
pub mod cli;
pub mod commands;
pub mod config;
pub mod connect;
pub mod copy;
pub mod cutover;
pub mod daemon;
pub mod demo;
pub mod engine;
pub mod fault;
pub mod hook;
pub mod integrity;
pub mod ledger;
pub mod limits;
pub mod lsn;
pub mod notify;
pub mod observe;
pub mod pgoutput;
pub mod preflight;
pub mod provider;
pub mod pulse;
pub mod removal;
pub mod replication;
pub mod retry;
pub mod route;
pub mod schema;
pub mod serve;
pub mod service;
pub mod shutdown;
pub mod verify;
