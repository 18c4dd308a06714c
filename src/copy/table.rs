//! A table of the copy: where it is read, and where its rows go.

use crate::catalog::{PublishedTable, TableName, TargetTable};
use crate::chunk::KeyType;

/// A table, as it is read and written.
#[derive(Clone, Debug)]
pub struct TableCopy {
    /// What is published of it on the source.
    pub source: PublishedTable,
    /// The table of the target that takes its rows.
    pub target: TableName,
    /// That table passes them on to its partitions.
    pub target_is_partitioned: bool,
    /// The target's table holds these rows alone. It doesn't if it is the topmost parent of a partition
    /// that the target lacks; the partition is one chunk then, which no row can move into.
    pub owns_target: bool,
}

impl TableCopy {
    /// The table with what was found on the target for it.
    #[must_use]
    pub fn new(source: PublishedTable, target: &TargetTable, through_root: bool) -> Self {
        Self {
            source,
            target: target.name.clone(),
            target_is_partitioned: target.is_partitioned,
            owns_target: !through_root,
        }
    }

    /// The columns that its chunks are ranges of, with their types.
    #[must_use]
    pub fn chunk_key(&self) -> Vec<(String, KeyType)> {
        self.source.chunk_columns().iter().cloned().zip(self.source.chunk_key.iter().copied()).collect()
    }
}
