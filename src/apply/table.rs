//! A relation of the source fitted to a table of the target: columns are matched by name, whatever
//! their order and whatever else the target's table has.

use std::sync::Arc;

use tokio_postgres::Client;

use crate::catalog::{Bounds, TableName, TargetColumn, TargetTable, destination, quote_identifier};
use crate::fault::{Fault, Result, Side};
use crate::pgoutput::Relation;
use crate::schema::drift::Known;

/// How two values of a type are compared to find a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Equality {
    /// The type's own `=` says "equal" only of values that print the same, so it can be used (and
    /// an index with it).
    Exact,
    /// The type has no equality, or one that calls different values equal (numeric 1.0 and 1.00,
    /// citext, -0): the printed values are compared.
    Printed,
}

/// A column of the source, fitted.
#[derive(Clone, Debug)]
pub(super) struct FittedColumn {
    /// Its name on the target, unquoted.
    pub(super) name: String,
    /// Both sides have dropped it since: nothing is done with it.
    pub(super) is_gone: bool,
    /// It belongs to the replica identity.
    pub(super) is_key: bool,
    /// An UPDATE can't write it.
    pub(super) is_identity_always: bool,
    /// The target's type, for a cast.
    pub(super) type_name: String,
    /// The schema of the type's equality operator.
    pub(super) equality_schema: String,
    /// How a whole old row is compared.
    pub(super) equality: Equality,
}

/// A relation of the source and the table of the target that its changes go to.
#[derive(Debug)]
pub(super) struct Fitted {
    /// The source's relation, with columns in the order of its tuples.
    pub(super) relation: Arc<Relation>,
    /// Its name.
    pub(super) source: TableName,
    /// The target's table.
    pub(super) target: TableName,
    /// Rows go to the target table's own partitions.
    pub(super) is_partitioned: bool,
    /// The source's columns, in the order of its tuples.
    pub(super) columns: Vec<FittedColumn>,
    /// Columns that only the target has and that can be written.
    pub(super) only_on_target: Vec<String>,
    /// The target has an identity column, so values for it have to be insisted on.
    pub(super) has_identity: bool,
    /// The relation is a partition whose topmost parent takes its rows, as the target lacks it.
    pub(super) through_root: bool,
    /// The target's topmost partitioned table (or the table without partitions that stands for the
    /// source's) that holds these rows, if it holds others too.
    pub(super) root: Option<TableName>,
}

impl Fitted {
    /// Fits a relation to the table of its name, or, if the target has no such partition, to the
    /// topmost parent that `root` names.
    ///
    /// # Errors
    /// If the table or a column is missing on the target, or can't be written there.
    pub(super) async fn new(
        target: &Client,
        relation: Arc<Relation>,
        root: Option<&TableName>,
        known: Option<&Known>,
    ) -> Result<Self> {
        let name = TableName::new(&relation.schema, &relation.name);
        if known.is_some_and(|known| !known.is_named(&name)) {
            return Err(Fault::retry("the source's table has another name now")
                .on(Side::Target)
                .table(name.to_string())
                .unfit());
        }
        let there = known.map_or(&name, |known| known.there(&name));
        let (table, through_root) = destination(target, there, root, Bounds::LeftOut).await?;
        let places = places(&relation, &table, known)?;
        Self::fit(Arc::clone(&relation), &table, through_root, &places)
    }

    /// Matches the columns with those of the target of these names.
    fn fit(
        relation: Arc<Relation>,
        table: &TargetTable,
        through_root: bool,
        places: &[Option<&str>],
    ) -> Result<Self> {
        let fault = |what: String, remedy: String| {
            Fault::person(what).on(Side::Target).table(table.name.to_string()).remedy(remedy)
        };
        let columns = relation
            .columns
            .iter()
            .zip(places)
            .map(|(column, place)| {
                let Some(name) = place else { return Ok(FittedColumn::gone(&column.name)) };
                let quoted = quote_identifier(name);
                let found = table.columns.iter().find(|c| c.name == *name).ok_or_else(|| {
                    fault(
                        format!("the column {name} of the source's table is missing"),
                        format!(
                            "on the target: ALTER TABLE {} ADD COLUMN {quoted} with the source's type, or if it was \
                             renamed, rename it there; the stream goes on by itself",
                            table.name.to_sql()
                        ),
                    )
                })?;
                if found.is_generated {
                    return Err(fault(
                        format!("the column {} is generated there but an ordinary one on the source", column.name),
                        format!(
                            "on the target: ALTER TABLE {} ALTER COLUMN {quoted} DROP EXPRESSION",
                            table.name.to_sql()
                        ),
                    ));
                }
                Ok(FittedColumn {
                    name: found.name.clone(),
                    is_gone: false,
                    is_key: column.is_key,
                    is_identity_always: found.is_identity_always,
                    type_name: found.type_name.clone(),
                    equality_schema: found.equality_schema.clone(),
                    equality: equality_of(found),
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let only_on_target = table
            .columns
            .iter()
            .filter(|c| !c.is_generated && !places.contains(&Some(c.name.as_str())))
            .map(|c| c.name.clone())
            .collect();
        Ok(Self {
            source: TableName::new(&relation.schema, &relation.name),
            target: table.name.clone(),
            is_partitioned: table.is_partitioned,
            columns,
            only_on_target,
            has_identity: table.columns.iter().any(|c| c.is_identity),
            root: if through_root { Some(table.name.clone()) } else { table.root.clone() },
            through_root,
            relation,
        })
    }

    /// The target's table for SQL that must not touch tables which inherit from it.
    pub(super) fn only(&self) -> String {
        self.target.only(self.is_partitioned)
    }
}

impl FittedColumn {
    fn gone(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            is_gone: true,
            is_key: false,
            is_identity_always: false,
            type_name: String::new(),
            equality_schema: String::new(),
            equality: Equality::Printed,
        }
    }
}

/// The names of the target's columns for those of the relation: by what is known of the table, or else the same.
fn places<'a>(
    relation: &'a Relation,
    table: &TargetTable,
    known: Option<&'a Known>,
) -> Result<Vec<Option<&'a str>>> {
    let names: Vec<&str> = relation.columns.iter().map(|column| column.name.as_str()).collect();
    let Some(known) = known else { return Ok(names.into_iter().map(Some).collect()) };
    known.places(&names).ok_or_else(|| {
        let missing = names.iter().find(|name| !table.columns.iter().any(|column| column.name == **name));
        let what = match missing {
            Some(name) => format!("the column {name} of the source's table is missing"),
            None => "the source's table has other columns now".to_owned(),
        };
        let table = format!("{}.{}", relation.schema, relation.name);
        Fault::retry(what).on(Side::Target).table(table).unfit()
    })
}

/// The types whose `=` says "equal" only of values that print the same.
fn equality_of(column: &TargetColumn) -> Equality {
    use tokio_postgres::types::Type;
    let exact = [
        Type::BOOL,
        Type::BYTEA,
        Type::CHAR,
        Type::NAME,
        Type::INT8,
        Type::INT2,
        Type::INT4,
        Type::OID,
        Type::DATE,
        Type::TIME,
        Type::TIMESTAMP,
        Type::TIMESTAMPTZ,
        Type::UUID,
    ];
    let text = [Type::TEXT, Type::VARCHAR];
    let is = |types: &[Type]| types.iter().any(|t| t.oid() == column.type_oid);
    if is(&exact) || (is(&text) && column.is_deterministic) { Equality::Exact } else { Equality::Printed }
}
