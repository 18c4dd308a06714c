//! Encodings, locales and collations: what text can be stored, and how it is sorted.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use super::finding::Finding;
use super::server::Server;
use super::{Asked, Check};
use crate::catalog::quote_identifier;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::provider;

/// Compares what the two databases make of text.
pub(super) async fn look(check: &mut Check<'_>, source: &Asked, target: &Asked) -> Result<()> {
    check.findings.extend(encoding(&source.server, &target.server));
    check.findings.extend(locale(&source.server, &target.server));
    let there = collations(&source.session, Side::Source).await?;
    let here = collations(&target.session, Side::Target).await?;
    for (asked, rows) in [(source, &there), (target, &here)] {
        check.findings.extend(rows.iter().filter_map(|row| outdated(asked.server.side, row)));
        check.findings.extend(outdated_database(asked).await?);
    }
    missing(check, target, &there).await
}

fn encoding(source: &Server, target: &Server) -> Option<Finding> {
    let (there, here) = (source.encoding.as_str(), target.encoding.as_str());
    if there == "SQL_ASCII" {
        return Some(
            Finding::warns("encoding", Side::Source, "the source's database has the encoding SQL_ASCII")
                .why(
                    "it holds any bytes, and rows whose text isn't UTF-8 can't be copied: their table fails, with the row's \
                     key",
                )
                .mend("find and mend such text first, or create the target with ENCODING 'SQL_ASCII', too"),
        );
    }
    if here == "UTF8" || here == there {
        return None;
    }
    Some(
        Finding::blocks(
            "encoding",
            Side::Target,
            format!("the target's database has the encoding {here}, the source's {there}"),
        )
        .why("characters that it doesn't have can't be stored there")
        .mend("CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0; and use that"),
    )
}

fn locale(source: &Server, target: &Server) -> Option<Finding> {
    let of = |server: &Server| {
        let (provider, locale) = match (server.locale_provider.as_str(), &server.locale) {
            ("i", Some(locale)) => ("icu", locale.clone()),
            ("b", Some(locale)) => ("builtin", locale.clone()),
            _ => ("libc", server.collate.clone()),
        };
        // The same locale has several spellings.
        let plain = |text: &str| text.to_lowercase().replace('-', "");
        let key = (provider, plain(&locale), plain(&server.ctype));
        (key, format!("{locale} ({provider}, LC_CTYPE {})", server.ctype))
    };
    let ((there, source), (here, target)) = (of(source), of(target));
    (there != here).then(|| {
        Finding::informs(
            "locale-differs",
            Side::Target,
            format!("the database's locale is {target}; the source's is {source}"),
        )
        .why("ORDER BY and indexes of text sort otherwise there, and lower() and upper() may differ; rows don't")
    })
}

async fn collations(session: &Session, side: Side) -> Result<Vec<Row>> {
    session
        .query(include_str!("../../sql/catalog/check_collations.sql"), &[&provider::INTERNAL_SCHEMAS])
        .await
        .map_err(|e| Fault::sql(side, "looking at the collations", &e))
}

/// What a collation that has changed under its indexes means.
const OUTDATED: &str = "indexes that were made before may be in the wrong order: rows aren't found by their key, or are \
                        there twice";

fn outdated(side: Side, row: &Row) -> Option<Finding> {
    let (recorded, actual): (Option<&str>, Option<&str>) = (row.get("recorded"), row.get("actual"));
    let (recorded, actual) = recorded.zip(actual).filter(|(recorded, actual)| recorded != actual)?;
    let name: &str = row.get("name");
    Some(
        Finding::warns(
            "collation-version",
            side,
            format!(
                "it was made with version {recorded} of the sorting rules, and the server has {actual} now"
            ),
        )
        .object(name)
        .why(OUTDATED)
        .mend(format!("REINDEX what is sorted by it, then: ALTER COLLATION {name} REFRESH VERSION;")),
    )
}

/// The same for the database's own collation, which has a version from 15 on.
async fn outdated_database(asked: &Asked) -> Result<Option<Finding>> {
    if asked.server.major() < 15 {
        return Ok(None);
    }
    let row = asked
        .session
        .query_one(
            "SELECT datcollversion, pg_catalog.pg_database_collation_actual_version(oid)
               FROM pg_catalog.pg_database WHERE datname = current_database()",
            &[],
        )
        .await
        .map_err(|e| Fault::sql(asked.server.side, "looking at the database's collation", &e))?;
    let versions: (Option<String>, Option<String>) = (row.get(0), row.get(1));
    let (Some(recorded), Some(actual)) = versions else { return Ok(None) };
    let database = quote_identifier(&asked.server.database);
    Ok((recorded != actual).then(|| {
        Finding::warns(
            "collation-version",
            asked.server.side,
            format!(
                "the database was made with version {recorded} of the sorting rules, and the server has {actual} now"
            ),
        )
        .object(&asked.server.database)
        .why(OUTDATED)
        .mend(format!(
            "REINDEX DATABASE {database}; then: ALTER DATABASE {database} REFRESH COLLATION VERSION;"
        ))
    }))
}

/// Collations of the server that the target's doesn't have; those that users make are part of the schema.
async fn missing(check: &mut Check<'_>, target: &Asked, there: &[Row]) -> Result<()> {
    let wanted: Vec<&str> =
        there.iter().filter(|row| row.get("is_builtin")).map(|row| row.get("bare_name")).collect();
    let rows = target
        .session
        .query(
            "SELECT collname::text FROM pg_catalog.pg_collation
              WHERE collnamespace = 'pg_catalog'::pg_catalog.regnamespace
                AND collencoding IN (-1, (SELECT encoding FROM pg_catalog.pg_database WHERE datname = current_database()))
                AND collname = ANY ($1::text[])",
            &[&wanted],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking for the source's collations", &e))?;
    let here: BTreeSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    for name in wanted.iter().filter(|name| !here.contains(*name)) {
        check.add(
            Finding::blocks("collation-missing", Side::Target, "the target's server has no such collation")
                .object(*name)
                .why("columns of the source are sorted by it, and can't be made as they are")
                .mend(
                    "install the locale on the target's server, then: SELECT pg_import_system_collations('pg_catalog'); \
                     or another COLLATE for these columns",
                ),
        );
    }
    Ok(())
}
