//! What can be wrong with the bytes, and what that asks of a person.

use super::decode::ProtoVersion;
use crate::fault::{Fault, Side};

/// The server sent something that can't be understood. It carries no row data.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes of a message make no sense.
    #[error("malformed {message} message of pgoutput, at byte {offset}: {problem}")]
    Malformed {
        /// The kind of message, by PostgreSQL's name for it.
        message: &'static str,
        /// The byte, counted from 0, the byte that says the kind.
        offset: usize,
        /// What is wrong there.
        problem: Problem,
    },
    /// A change to a relation that the server hasn't described in this session.
    #[error("a change to the relation with OID {0}, which was not described before")]
    UnknownRelation(u32),
    /// A row that doesn't fit the description of its relation.
    #[error("a row of {found} columns for a relation that was described with {expected}")]
    ColumnsDiffer {
        /// The relation, as `schema.table`.
        table: String,
        /// How many columns it has.
        expected: usize,
        /// How many columns the row has.
        found: usize,
    },
}

/// What is wrong with the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The frame ends inside of a field.
    #[error("it ends in the middle")]
    Ends,
    /// The frame goes on after the message's last field.
    #[error("{0} bytes too many")]
    Trailing(usize),
    /// The frame is longer than a message can be.
    #[error("longer than any message can be")]
    FrameTooLong,
    /// No version of the protocol has this kind of message.
    #[error("no message begins with the byte {0:#04x}")]
    UnknownTag(u8),
    /// A later version of the protocol has this kind of message.
    #[error("protocol version {version} has no such message", version = .0.number())]
    NotInVersion(ProtoVersion),
    /// The message belongs outside of a streamed block.
    #[error("it can't be inside a streamed block")]
    InsideStream,
    /// The message belongs inside of a streamed block.
    #[error("it can't be outside a streamed block")]
    OutsideStream,
    /// A byte that must be one of a few is another one.
    #[error("expected {expected}, found the byte {found:#04x}")]
    Unexpected {
        /// What may be there.
        expected: &'static str,
        /// What is there.
        found: u8,
    },
    /// Flags that nobody has defined.
    #[error("unknown flags {0:#04x}")]
    UnknownFlags(u8),
    /// A number of columns that no table, or not this message, has room for.
    #[error("{0} columns are too many")]
    ColumnCount(usize),
    /// A number of relations that the message has not the size for.
    #[error("{0} relations don't fit the size of the message")]
    RelationCount(u32),
    /// A name that isn't UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// A position is missing (`InvalidXLogRecPtr`).
    #[error("the LSN is missing")]
    NoLsn,
    /// A transaction's id is missing (`InvalidTransactionId`).
    #[error("the transaction id is missing")]
    NoXid,
}

impl From<DecodeError> for Fault {
    /// A person is needed: sent again, the same bytes are as wrong.
    fn from(error: DecodeError) -> Self {
        let fault = Self::person(error.to_string()).on(Side::Source).remedy(
            "the server sent something that this version of cdc doesn't understand, and nothing of it was \
             applied. Check that the connection leads straight to a PostgreSQL server (not to a proxy that \
             alters the stream) of a version that cdc supports, or use a newer cdc; if both are so, report \
             this message",
        );
        match error {
            DecodeError::ColumnsDiffer { table, .. } => fault.table(table),
            DecodeError::Malformed { .. } | DecodeError::UnknownRelation(_) => fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::Reaction;

    #[test]
    fn bytes_that_make_no_sense_need_a_person_who_is_told_what_to_do() {
        let fault =
            Fault::from(DecodeError::Malformed { message: "INSERT", offset: 5, problem: Problem::Ends });
        assert_eq!(fault.reaction(), Reaction::Person);
        assert_eq!(fault.side(), Some(Side::Source));
        assert_eq!(fault.what(), "malformed INSERT message of pgoutput, at byte 5: it ends in the middle");
        assert!(fault.advice().is_some());
    }

    #[test]
    fn a_row_that_does_not_fit_names_its_table() {
        let fault =
            Fault::from(DecodeError::ColumnsDiffer { table: "public.t".into(), expected: 3, found: 2 });
        assert_eq!(fault.table_name(), Some("public.t"));
        assert_eq!(fault.what(), "a row of 2 columns for a relation that was described with 3");
    }
}
