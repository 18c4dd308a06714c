//! Exit statuses: the same meaning everywhere.

use crate::fault::{Fault, Reaction};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: yes.
    Yes,
    /// 1: no.
    No,
    /// 2: a person is needed.
    Person,
    /// 3: a database can't be reached.
    Unreachable,
    /// 64: wrong usage or configuration (`EX_USAGE` of sysexits.h).
    Usage,
    /// 70: a bug of ours (`EX_SOFTWARE`).
    Bug,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Person => 2,
            Self::Unreachable => 3,
            Self::Usage => 64,
            Self::Bug => 70,
        }
    }
}

impl From<&Fault> for Exit {
    fn from(fault: &Fault) -> Self {
        match fault.reaction() {
            Reaction::Usage => Self::Usage,
            Reaction::Bug => Self::Bug,
            Reaction::Retry if fault.is_unreachable() => Self::Unreachable,
            Reaction::Retry | Reaction::Person | Reaction::CopyAgain => Self::Person,
        }
    }
}
