//! Many changes of a table at a time.
//!
//! ```text
//! changes of one table ─► net.rs ─► what they come to, key by key ─► statement.rs ─► send.rs
//!                         (pure)    deleted, updated, inserted        (pure)
//! ```
//!
//! Triggers and foreign keys are off in a replica's session, so tables don't depend on each other, and
//! within a batch only the last state of each row counts: every state that a reader of the target can see
//! is one that the source once had at a commit. A table takes a DELETE, an UPDATE for each set of columns
//! and a COPY, and each must touch as many rows as it has keys.
//!
//! What can't be done so, or fails, is left to the path that takes the changes one by one in their order,
//! which finds the one that is wrong, or succeeds: two rows that exchange the values of a unique column
//! meet each other in one UPDATE.

mod net;
mod send;
mod statement;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::batch::{Batch, Change};
use super::encoded::Place;
use super::table::Fitted;
use crate::catalog::TableName;
use crate::limits;
use crate::pgoutput::{Relation, ReplicaIdentity};
pub(super) use statement::SetShape;

/// What is known of the tables that are written in sets.
#[derive(Default)]
pub(super) struct Sets {
    /// What the target's tables allow, by the source's oid, with what they were fitted to then.
    tables: HashMap<u32, (Arc<Fitted>, Allowed)>,
    /// Tables that are left to the other path for a while, as it failed here: it would be done twice.
    resting: HashMap<u32, Instant>,
}

/// What a table of the target allows to be done in sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    /// New rows only.
    Inserts,
    /// Everything.
    All,
}

impl Sets {
    /// True if the batch has changes enough, and no row of a size that would be in memory several times.
    pub(super) fn suit(batch: &Batch) -> bool {
        let changes = || batch.transactions.iter().flat_map(|t| &t.changes);
        batch.changes() >= limits::SET_CHANGES
            && changes().map(Change::heap_bytes).sum::<usize>() <= 2 * limits::BATCH_BYTES
    }

    fn rests(&self, relation: u32) -> bool {
        self.resting.get(&relation).is_some_and(|until| Instant::now() < *until)
    }

    /// Leaves a table to the other path for a while.
    pub(super) fn rest(&mut self, relation: u32) {
        self.resting.insert(relation, Instant::now() + limits::SET_REST);
    }

    /// A relation is not what it was.
    pub(super) fn forget(&mut self, relation: u32) {
        self.tables.remove(&relation);
    }
}

impl Allowed {
    /// `are_found`: a row can be found by its key, read from text, and has its place in one table.
    fn by(relation: &Relation, are_found: bool) -> Self {
        let has_key = matches!(relation.replica_identity, ReplicaIdentity::Default | ReplicaIdentity::Index);
        if has_key && are_found { Self::All } else { Self::Inserts }
    }
}

/// The table whose row is changed; `None` for what is more than a row.
pub(super) fn relation_of(change: &Change) -> Option<&Arc<Relation>> {
    match change {
        Change::Insert { relation, .. }
        | Change::Update { relation, .. }
        | Change::Delete { relation, .. } => Some(relation),
        Change::Truncate { .. } | Change::Clear { .. } | Change::SendBack { .. } => None,
    }
}

/// A part of a batch that can be applied table by table: changes of rows, of one description of each
/// table; or a single change of more than a row.
type Segment<'a> = Vec<(Place, &'a Change)>;

fn segments(batch: &Batch) -> Vec<Segment<'_>> {
    let mut segments = vec![Segment::new()];
    let mut described: HashMap<u32, &Arc<Relation>> = HashMap::new();
    for (transaction, t) in batch.transactions.iter().enumerate() {
        for (change, c) in t.changes.iter().enumerate() {
            let relation = relation_of(c);
            let goes_on = relation.is_some_and(|r| Arc::ptr_eq(described.entry(r.oid).or_insert(r), r));
            if !goes_on {
                segments.push(Segment::new());
                described = relation.map(|r| (r.oid, r)).into_iter().collect();
            }
            if let Some(segment) = segments.last_mut() {
                segment.push((Place { transaction, change }, c));
            }
            if relation.is_none() {
                segments.push(Segment::new());
            }
        }
    }
    segments
}

/// The changes of one table in a segment.
struct Group<'a> {
    table: Arc<Fitted>,
    /// Where the first of them is.
    first: Place,
    changes: Vec<&'a Change>,
}

/// The groups that share no table of the target with another one of the source: by a partition that only
/// the source has, rows can come to a table from several.
fn alone<'g, 'a>(groups: &'g BTreeMap<u32, Group<'a>>) -> impl Iterator<Item = (u32, &'g Group<'a>)> {
    let shared: HashSet<&TableName> =
        groups.values().filter(|g| g.table.through_root).filter_map(|g| g.table.root.as_ref()).collect();
    groups
        .iter()
        .filter(move |(_, g)| {
            !shared.contains(&g.table.target)
                && !g.table.root.as_ref().is_some_and(|root| shared.contains(root))
        })
        .map(|(oid, group)| (*oid, group))
}
