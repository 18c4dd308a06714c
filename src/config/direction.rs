//! Which way the rows go.

use serde::Serialize;

/// Which way the rows go between the two databases of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the source to the target.
    #[default]
    Forward,
    /// Back, after the switch: the target's to the source.
    Reverse,
}

impl Direction {
    /// Its name in the ledger and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        }
    }

    /// The other way.
    #[must_use]
    pub fn turned(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }

    /// What the names of its slot and its publications begin with. Both databases can be of one server, where slots
    /// have one name only; and no name of another migration makes the one of the other.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Forward => "cdc",
            Self::Reverse => "cdcback",
        }
    }
}
