//! What a verification of everything looks at besides the rows.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::ends::Ends;
use crate::config::Config;
use crate::fault::Result;
use crate::integrity::{ForeignKeys, Sequences, foreign_keys, sequences};
use crate::ledger::Ledger;
use crate::schema::{self, SchemaDiff};

/// What a verification of everything looks at besides the rows.
#[derive(Clone, Debug, Serialize)]
pub struct Besides {
    /// The rows of the target refer to rows that are there. One that doesn't is a difference, and a key that
    /// could not be checked was not compared.
    pub foreign_keys: ForeignKeys,
    /// The target's sequences go on behind its rows. One that doesn't is a difference, unless it is still to
    /// be set by the cutover.
    pub sequences: Sequences,
    /// What the target's schema lacks or has differently. Its rows can be the same all the same.
    pub schema: SchemaDiff,
}

impl Besides {
    /// Looks at all of that.
    pub(super) async fn look(config: &Config, ledger: &Ledger) -> Result<Self> {
        let Ends { source, target } = Ends::open(config).await?;
        let schema = schema::diff(&source, &target, config).await?;
        let ledger = ledger.on(Arc::new(target));
        Ok(Self {
            foreign_keys: foreign_keys(&source, &ledger, &config.name).await?,
            sequences: sequences(&source, &ledger).await?,
            schema,
        })
    }

    /// True if there is no difference among what was found.
    pub(super) fn is_same(&self) -> bool {
        self.foreign_keys.is_same() && self.sequences.is_same()
    }

    /// True if everything could be looked at.
    pub(super) fn is_checked(&self) -> bool {
        self.foreign_keys.is_checked()
    }
}

impl fmt::Display for Besides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = format!("{}{}", self.foreign_keys, self.sequences);
        parts.lines().try_for_each(|line| writeln!(f, "  {line}"))?;
        match self.schema.differences.iter().filter(|difference| difference.what.counts()).count() {
            0 => writeln!(f, "  schema: the same"),
            differences => writeln!(f, "  schema: differences {differences}; cdc schema diff shows them"),
        }
    }
}
