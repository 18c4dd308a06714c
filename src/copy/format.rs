//! In which of COPY's formats rows travel.
//!
//! Binary costs the servers less than text, whatever the type. But it is a type's own business, and means the same
//! on either side only for types that are the same there: what has an oid in it, or may be of another version of
//! an extension, goes as text, which every server reads.

use tokio_postgres::types::{Kind, Type};
use tokio_postgres::{Client, Error};

use crate::catalog::TableName;

/// One of COPY's formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// As the types' output functions print values.
    Text,
    /// As their send functions do.
    Binary,
}

/// Built-in types that every supported version sends in the same form, in which no oid is.
///
/// An interval isn't one of them: 17 has given some of its bits another meaning (infinity).
const SAME_EVERYWHERE: [Type; 24] = [
    Type::BOOL,
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::FLOAT4,
    Type::FLOAT8,
    Type::NUMERIC,
    Type::TEXT,
    Type::VARCHAR,
    Type::BPCHAR,
    Type::BYTEA,
    Type::UUID,
    Type::JSON,
    Type::JSONB,
    Type::DATE,
    Type::TIME,
    Type::TIMETZ,
    Type::TIMESTAMP,
    Type::TIMESTAMPTZ,
    Type::INET,
    Type::CIDR,
    Type::MACADDR,
    Type::BIT,
    Type::VARBIT,
];

impl Format {
    /// For columns of these types on the source and on the target, as [`types`] tells them.
    pub(super) fn of(source: &[u32], target: &[u32]) -> Self {
        // A table without columns has no rows that could be quicker.
        let is_binary = !source.is_empty() && source == target && source.iter().all(|oid| is_the_same(*oid));
        if is_binary { Self::Binary } else { Self::Text }
    }

    /// How many messages the source sends that aren't rows: in binary one ends them. What begins them comes with
    /// the first message.
    pub(super) fn other_messages(self) -> u64 {
        match self {
            Self::Text => 0,
            Self::Binary => 1,
        }
    }

    /// As an option of COPY.
    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Text => "",
            Self::Binary => " (FORMAT binary)",
        }
    }
}

fn is_the_same(oid: u32) -> bool {
    match Type::from_oid(oid) {
        // Its labels.
        Some(Type::ANYENUM) => true,
        // With the oid of the elements' type, which is the same as well.
        Some(ty) => match ty.kind() {
            Kind::Array(element) => SAME_EVERYWHERE.contains(element),
            _ => SAME_EVERYWHERE.contains(&ty),
        },
        None => false,
    }
}

/// The types of these columns of a table: of as many as it has.
pub(super) async fn types(client: &Client, table: &TableName, columns: &[String]) -> Result<Vec<u32>, Error> {
    let sql = include_str!("../../sql/catalog/column_types.sql");
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&table.to_sql(), Type::TEXT), (&columns, Type::TEXT_ARRAY)];
    Ok(client.query_typed_one(sql, &parameters).await?.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_the_same_on_both_sides_is_binary() {
        let of = |source: &[Type], target: &[Type]| {
            let oids = |types: &[Type]| types.iter().map(Type::oid).collect::<Vec<_>>();
            Format::of(&oids(source), &oids(target))
        };
        let all: Vec<Type> = SAME_EVERYWHERE.into_iter().chain([Type::ANYENUM, Type::JSONB_ARRAY]).collect();
        assert_eq!(of(&all, &all), Format::Binary);
        // Another type, another order, a column that the target lacks.
        assert_eq!(of(&[Type::INT4], &[Type::INT8]), Format::Text);
        assert_eq!(of(&[Type::TEXT, Type::UUID], &[Type::UUID, Type::TEXT]), Format::Text);
        assert_eq!(of(&[Type::INT4, Type::TEXT], &[Type::INT4]), Format::Text);
        // With an oid inside, or with another meaning elsewhere.
        for ty in [
            Type::REGCLASS,
            Type::OID,
            Type::INTERVAL,
            Type::INTERVAL_ARRAY,
            Type::REGTYPE_ARRAY,
            Type::MONEY,
            Type::INT4_RANGE,
            Type::ANYARRAY,
            Type::RECORD,
        ] {
            assert_eq!(of(&[Type::INT4, ty.clone()], &[Type::INT4, ty.clone()]), Format::Text, "{ty}");
        }
        // Of an extension or a user's own.
        assert_eq!(Format::of(&[16_500], &[16_500]), Format::Text);
        assert_eq!(of(&[], &[]), Format::Text);
    }
}
