//! What is done to the schema of the target, and how it differs from the source's ([`mod@diff`]).
//!
//! So far one thing is done: constraints are *held back* while rows are being copied (rules C5 and
//! C8). The chunks of a table are copied at different moments, so until the last one is done the target
//! may hold two rows that never existed together, and a unique index, an exclusion constraint or a
//! foreign key would refuse the second of them.
//!
//! ```text
//! hold_back                                              put_back
//!   one transaction, with what adopts the table            a session of its own, beside the stream
//!   record in cdc.held_back, then ALTER ... DROP           CREATE UNIQUE INDEX CONCURRENTLY
//!                                                          ADD CONSTRAINT ..., comments, marks: one
//!                                                            transaction, with put_back_at
//!                                                          VALIDATE CONSTRAINT
//! ```
//!
//! The statements are made by the two queries `sql/catalog/held_indexes.sql` and
//! `held_foreign_keys.sql`, from what the catalogs say before anything is dropped, and kept in the
//! ledger: whoever has only psql can read there what is missing, and run it.

pub mod diff;
mod hold_back;
mod locks;
mod put_back;
mod references;
mod scope;
mod stand_ins;

pub use diff::{SchemaDiff, diff};
pub use hold_back::{Held, held, hold_back, hold_back_now};
pub use put_back::{NotPutBack, put_back, statements};
pub use references::{Reference, StaysBehind, references, stays_behind};
pub use scope::Scope;
pub use stand_ins::{has_stand_in, make_stand_ins};

use tokio_postgres::GenericClient;
use tokio_postgres::error::SqlState;

use crate::fault::{Fault, Result, Side};

/// What the advisory lock is made from that says: constraints are being put back.
fn lock_key(name: &str) -> String {
    format!("cdc put back {name}")
}

/// Takes the advisory lock with this function of the server's.
async fn take_lock(client: &impl GenericClient, function: &str, name: &str) -> Result<()> {
    let sql = format!("SELECT pg_catalog.{function}(pg_catalog.hashtextextended($1, 0))");
    let row = client.query_one(&sql, &[&lock_key(name)]).await;
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
