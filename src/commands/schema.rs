//! `cdc schema`.

use super::{Exit, json, print};
use crate::cli::SchemaDiff as Arguments;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Result, Side};
use crate::schema;

/// Prints how the target's schema differs; the exit status says whether it does.
pub(super) async fn diff(config: &Config, arguments: &Arguments) -> Result<Exit> {
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
