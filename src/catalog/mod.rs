//! What the system catalogs say: the tables that can be replicated, and how the target's are built.

mod large;
mod names;
mod published;
mod rows;
mod source;
mod target;
mod users;

pub use large::{LargeRow, largest_row};
pub use names::{TableName, quote_identifier, quote_literal};
pub use published::{Published, PublishedTable, published, published_names, with_digest};
pub use rows::{empty, rows_exist, with_rows_in_sight};
pub use source::{Identity, SourceTable, source_tables};
pub use target::{Bounds, TargetColumn, TargetTable, destination, missing_on_target, target_table};
pub use users::{User, users};
