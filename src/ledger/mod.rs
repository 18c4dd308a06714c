//! The ledger: typed access to the tables of schema `cdc` in the database that is applied to.
//!
//! Nothing is kept on the local disk. What the daemon must remember is here, committed together
//! with the rows that it speaks of.

mod checkpoint;
mod copy;
mod cutover;
mod incident;
mod migration;
mod missing;
mod progress;
mod removal;
mod repair;
mod shape;
mod skip;
mod told;
mod turn;
mod verification;

pub use checkpoint::{Checkpoint, write_checkpoint_sql};
pub use copy::{CopiedChunk, CopiedTable, LedgerChunk, record_done, record_table, send_back_sql};
pub use cutover::{Switch, note_used};
pub use incident::{Incident, Severity, Slowdown, Times, constraint_part};
pub use migration::{DaemonState, Ledger, Origin, Phase, USING, advise, fault, host, lock_key};
pub use progress::{CopyProgress, TableProgress, TableState};
pub use repair::{Again, Repair, RepairedChunk, record_repair};
pub use shape::{ask_again, record_shape};
pub use skip::{ChangesByTable, Skip, record_skip_sql};
pub use turn::{Course, as_it_runs, record_followed};
pub use verification::{DaemonNow, Verification};
