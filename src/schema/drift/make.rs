//! Runs DDL on the target beside the stream.

use tokio::time::sleep;
use tokio_postgres::Error;

use crate::catalog::TableName;
use crate::connect::Session;
use crate::limits;
use crate::retry::Delays;
use crate::schema::diff::Kind;
use crate::schema::diff::read::{Catalog, Object};
use crate::schema::locks;

/// Runs these statements in one transaction of a few moments, tried again while somebody else is at the table.
pub(super) async fn make(session: &Session, table: &TableName, statements: &[String]) -> Result<(), Error> {
    let mut delays = Delays::default();
    for _ in 1..limits::DDL_ATTEMPTS {
        match transaction(session, table, statements).await {
            Err(error) if matches!(error.code().map(|c| c.code()), Some("55P03" | "40P01")) => {
                sleep(delays.next_delay()).await;
            }
            outcome => return outcome,
        }
    }
    transaction(session, table, statements).await
}

async fn transaction(session: &Session, table: &TableName, statements: &[String]) -> Result<(), Error> {
    let begin = locks::begin_ddl(&**session, &[table.to_sql()]).await?;
    let outcome = session.batch_execute(&format!("BEGIN; {begin}{}; COMMIT", statements.join("; "))).await;
    if outcome.is_err() && !session.is_closed() {
        session.batch_execute("ROLLBACK").await?;
    }
    outcome
}

/// What the statements need and the target lacks: types, the extensions of such, sequences, functions.
pub(super) fn needed(statements: &[String], there: &Catalog, here: &Catalog) -> Vec<String> {
    let can_be_needed = |object: &&Object| {
        matches!(
            object.kind,
            Kind::Schema
                | Kind::Extension
                | Kind::Enum
                | Kind::CompositeType
                | Kind::RangeType
                | Kind::Domain
                | Kind::DomainConstraint
                | Kind::Sequence
                | Kind::Function
        )
    };
    let mut missing: Vec<&Object> = there
        .values()
        .filter(can_be_needed)
        .filter(|object| !here.contains_key(&(object.kind, object.name.clone())))
        .collect();
    let mut texts: Vec<String> = statements.to_vec();
    let mut found: Vec<&Object> = Vec::new();
    loop {
        let is_named = |object: &&Object| match object.kind {
            Kind::Extension => object.facet("used").is_some(),
            // It belongs to the domain that is made.
            Kind::DomainConstraint => found
                .iter()
                .any(|f| f.kind == Kind::Domain && object.name.starts_with(&format!("{}.", f.name))),
            _ => texts.iter().any(|text| names(text, object)),
        };
        let (more, rest): (Vec<&Object>, Vec<&Object>) = missing.into_iter().partition(is_named);
        missing = rest;
        if more.is_empty() {
            break;
        }
        texts.extend(more.iter().flat_map(|object| object.make.clone().unwrap_or_default()));
        found.extend(more);
    }
    found.sort_by_key(|object| (object.kind, object.oid));
    found.into_iter().flat_map(|object| object.make.clone().unwrap_or_default()).collect()
}

/// True if the name is in the text, and not a part of another one.
fn names(text: &str, object: &Object) -> bool {
    let name = object.name.split('(').next().unwrap_or_default();
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '"' | '$');
    text.match_indices(name)
        .any(|(at, _)| !text[..at].ends_with(is_part) && !text[at + name.len()..].starts_with(is_part))
}
