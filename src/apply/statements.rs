//! Statements that the target has prepared.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_postgres::types::Type;

use super::encoded::Encoded;
use super::set::SetShape;
use super::statement::{Shape, Statement};
use crate::fault::Result;
use crate::limits;

/// What a statement depends on; tables by the source's oid.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// One change of a table.
    Change(u32, Shape),
    /// Many changes of a table.
    Set(u32, SetShape),
    /// Writes the checkpoint.
    Checkpoint,
    /// Sends a chunk back.
    SendBack,
}

/// A statement that the target has prepared.
pub(super) struct Prepared {
    number: u64,
    pub(super) name: String,
    /// What it is.
    pub(super) statement: Statement,
}

/// All of them.
#[derive(Default)]
pub(super) struct Statements {
    known: HashMap<Kind, Arc<Prepared>>,
    /// How many the server has, those of tables that have changed since included.
    prepared: usize,
    /// How many there have been, for their names.
    named: u64,
}

impl Statements {
    /// The statement of a kind, prepared if it isn't yet; parameters have these types, the others those that the
    /// server finds.
    pub(super) fn get(
        &mut self,
        encoded: &mut Encoded,
        kind: Kind,
        types: &[Type],
        make: impl FnOnce(&Kind) -> Statement,
    ) -> Result<Arc<Prepared>> {
        if let Some(prepared) = self.known.get(&kind) {
            return Ok(Arc::clone(prepared));
        }
        if self.prepared >= limits::PREPARED_STATEMENTS {
            encoded.frame(DEALLOCATE)?;
            self.forget_all();
        }
        let (statement, name) = (make(&kind), format!("s{}", self.named));
        encoded.script.prepare(&name, &statement.sql, types)?;
        let prepared = Arc::new(Prepared { number: self.named, name, statement });
        self.named += 1;
        self.prepared += 1;
        self.known.insert(kind, Arc::clone(&prepared));
        Ok(prepared)
    }

    /// A relation is not what it was.
    pub(super) fn forget(&mut self, relation: u32) {
        self.known
            .retain(|kind, _| !matches!(kind, Kind::Change(oid, _) | Kind::Set(oid, _) if *oid == relation));
    }

    /// How many there have been.
    pub(super) fn count(&self) -> u64 {
        self.named
    }

    /// The script that would have prepared all but so many isn't sent.
    pub(super) fn forget_since(&mut self, count: u64) {
        self.known.retain(|_, prepared| prepared.number < count);
    }

    /// The server has forgotten all of them, or never got them.
    pub(super) fn forget_all(&mut self) {
        self.known.clear();
        self.prepared = 0;
    }
}

/// Has the server forget all of them.
pub(super) const DEALLOCATE: &str = "DEALLOCATE ALL";
