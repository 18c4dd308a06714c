//! `cdc schema`.

use super::{Exit, json, print};
use crate::cli::{SchemaApply, SchemaDiff};
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Result, Side};
use crate::schema::{self, apply};

/// Prints how the target's schema differs; the exit status says whether it does.
pub(super) async fn diff(config: &Config, arguments: &SchemaDiff) -> Result<Exit> {
    let application = format!("cdc_{} schema diff", config.name);
    let (source, target) = tokio::try_join!(
        Session::open(&config.source, Side::Source, &application),
        Session::open(&config.target, Side::Target, &application)
    )?;
    let mut diff = schema::diff(&source, &target, config).await?;
    if !arguments.tables.is_empty() {
        diff = diff.of_tables(&arguments.tables)?;
    }
    print(&if arguments.json { json(&diff)? } else { diff.to_string() })?;
    Ok(if diff.is_same() { Exit::Yes } else { Exit::No })
}

/// Makes what the target lacks; the exit status says whether it has everything now.
pub(super) async fn apply(config: &Config, arguments: &SchemaApply) -> Result<Exit> {
    let options = apply::Options { dry_run: arguments.dry_run, tables: arguments.tables.clone() };
    let application = format!("cdc_{} schema apply", config.name);
    let applied = apply::apply(config, &options, &application).await?;
    print(&match &applied.script {
        Some(script) => script.clone(),
        None if arguments.json => json(&applied)?,
        None => applied.text(arguments.verbose),
    })?;
    Ok(if applied.complete { Exit::Yes } else { Exit::No })
}
