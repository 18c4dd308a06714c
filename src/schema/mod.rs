//! What is done to the schema of the target, and how it differs from the source's ([`mod@diff`]).
//!
//! What the target would do to rows by itself is *held back* (rules C5 and C8), for one of two reasons.
//!
//! *Until every row is copied*: the chunks of a table are copied at different moments, so until the last one is
//! done the target may hold two rows that never existed together, and a unique index, an exclusion constraint
//! or a foreign key would refuse the second of them.
//!
//! *Until the cutover*: a row must arrive as the source has it, whatever fires there. A session with
//! `session_replication_role = replica` sees to that but for triggers and rules that are ENABLE ALWAYS or ENABLE
//! REPLICA. An ordinary owner may not set that ([`Mode::Owner`](crate::connect::Mode)): then all triggers and
//! rules of the tables are off, and the foreign keys of the tables and those that refer to them, as their
//! triggers are the server's and only a superuser could switch them off. So nothing cascades on the target
//! either, and a change that finds no row is an error as ever. In either mode FORCE ROW LEVEL SECURITY goes, if
//! it would hold for the role.
//!
//! ```text
//! hold_back, silence                                     put_back
//!   one transaction, with what adopts the table            a session of its own, beside the stream
//!   record in cdc.held_back, then ALTER ... DROP,          CREATE UNIQUE INDEX CONCURRENTLY
//!                                 ALTER ... DISABLE        ADD CONSTRAINT ..., comments, marks: one
//!                                                            transaction, with put_back_at
//!                                                          VALIDATE CONSTRAINT
//!                                                          ENABLE TRIGGER, RULE ...
//! ```
//!
//! Whoever makes such a thing on the target while rows are streamed is noticed within seconds
//! ([`silence_all`]); until then it acts, and `cdc verify` finds what it did.
//!
//! The statements are made by the queries `sql/catalog/held_*.sql`, from what the catalogs say before
//! anything is changed, and kept in the ledger: whoever has only psql can read there what is missing, and
//! run it.

pub mod apply;
pub mod diff;
pub mod drift;
mod hold_back;
pub(crate) mod locks;
mod put_back;
mod references;
mod refresh;
mod scope;
mod silence;
mod stand_ins;

pub use diff::{SchemaDiff, diff};
pub use hold_back::{Held, Hold, held, hold_back, hold_back_now, not_to_be_put_back, silence, silence_now};
pub use put_back::{AtOnce, NotPutBack, builders, put_back, statements};
pub use references::{Reference, StaysBehind, references, stays_behind};
pub use refresh::refresh_views;
pub use scope::Scope;
pub use silence::{is_stirring, refuse_stirring, silence_all};
pub use stand_ins::{has_stand_in, make_stand_ins};

use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;

use crate::fault::{Fault, Result, Side};

/// Until when something is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until every row is copied.
    Copy,
    /// Until the target takes the source's place; or until the migration is dropped.
    Cutover,
}

impl Until {
    /// Its name in the ledger and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Copy => "copy",
            Self::Cutover => "cutover",
        }
    }
}

/// What the advisory lock is made from that says: what is held back until then is being put back.
fn lock_key(name: &str, until: Until) -> String {
    match until {
        Until::Copy => format!("cdc put back {name}"),
        Until::Cutover => format!("cdc put back at the cutover {name}"),
    }
}

/// Takes the advisory lock with this function of the server's.
async fn take_lock(client: &impl GenericClient, function: &str, name: &str, until: Until) -> Result<()> {
    let sql = format!("SELECT pg_catalog.{function}(pg_catalog.hashtextextended($1, 0))");
    let row = client.query_one(&sql, &[&lock_key(name, until)]).await;
    let row =
        row.map_err(|e| Fault::sql(Side::Target, "looking whether constraints are being put back", &e))?;
    if row.get(0) {
        return Ok(());
    }
    Err(Fault::retry("another session is still putting constraints back")
        .on(Side::Target)
        .sqlstate(SqlState::LOCK_NOT_AVAILABLE)
        .remedy("nothing: it is tried again, and a session whose daemon was killed ends by itself"))
}
