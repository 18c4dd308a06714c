//! What a migration has on the source.

use super::part::Known;
use super::report::{OnSource, State, Thing};
use crate::catalog::quote_identifier;
use crate::config::Config;
use crate::connect::Session;
use crate::engine::{end_leftovers, free_slot};
use crate::fault::{Fault, Result, Side};
use crate::replication::{Publication, Slot};

/// The source, and what of it is ours.
pub(super) struct Source {
    session: Session,
    /// Our slot.
    pub(super) slot: Option<Slot>,
    /// Our publications that are there.
    pub(super) publications: Vec<String>,
    /// Publications that would be ours by their names, but the ledger doesn't say so.
    pub(super) kept: Vec<String>,
}

/// What is to be run on a source that can't be used now.
pub(super) fn statements(config: &Config, known: Option<&Known>) -> Vec<String> {
    let slot = config.slot();
    let mut statements = vec![format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{slot}'"
    )];
    let publications = match known {
        Some(known) => known.publications_created.clone(),
        None => vec![slot, config.insert_only_publication()],
    };
    let drop = |name: &String| format!("DROP PUBLICATION IF EXISTS {}", quote_identifier(name));
    statements.extend(publications.iter().map(drop));
    statements
}

/// Connects to the source that the migration has begun with.
pub(super) async fn open(config: &Config, known: Option<&Known>) -> Result<Session> {
    let session = Session::open(&config.source, Side::Source, &format!("cdc_{} drop", config.name)).await?;
    let Some(origin) = known.and_then(|known| known.origin.as_ref()) else { return Ok(session) };
    let row = session
        .query_one("SELECT system_identifier::text FROM pg_catalog.pg_control_system()", &[])
        .await
        .map_err(|e| Fault::sql(Side::Source, "asking which server this is", &e))?;
    if row.get::<_, &str>(0) == origin.system_id.to_string() && config.source.dbname() == origin.database {
        return Ok(session);
    }
    Err(Fault::person(format!(
        "this is not the database that the migration began with: that is {} on the server with the system \
         identifier {}",
        origin.database, origin.system_id
    ))
    .on(Side::Source)
    .remedy("connect to that one"))
}

impl Source {
    /// Looks what is there and whether all of it may go.
    pub(super) async fn look(
        session: Session,
        config: &Config,
        known: Option<&Known>,
        is_forced: bool,
    ) -> Result<Self> {
        let name = config.slot();
        let slot = Slot::find(&session, &name).await?.filter(|slot| {
            slot.database.as_deref() == Some(config.source.dbname())
                && slot.plugin.as_deref() == Some("pgoutput")
        });
        let (mut publications, mut kept) = (Vec::new(), Vec::new());
        for name in [name.clone(), config.insert_only_publication()] {
            if Publication::find(&session, &name).await?.is_some() {
                let is_ours = known.map_or(is_forced, |known| known.publications_created.contains(&name));
                if is_ours { &mut publications } else { &mut kept }.push(name);
            }
        }
        let is_known = known.is_some_and(|known| known.origin.is_some());
        if slot.is_some() && !is_known && !is_forced {
            let also = kept.iter().map(|name| format!(" and the publication {name}")).collect::<String>();
            return Err(Fault::person(format!(
                "there is the replication slot {name}{also}, of which the target's ledger knows nothing"
            ))
            .on(Side::Source)
            .remedy(
                "if that is left of this migration (its target was wiped), remove it: cdc drop --force",
            ));
        }
        let source = Self { session, slot, publications, kept };
        source.refuse_foreign_user(config)?;
        Ok(source)
    }

    /// Who uses the slot is a walsender that has outlived its daemon, or the start that makes the slot; or
    /// it isn't ours.
    fn refuse_foreign_user(&self, config: &Config) -> Result<()> {
        let Some(Slot { active_pid: Some(pid), active_application, .. }) = &self.slot else { return Ok(()) };
        let who = active_application.as_deref().unwrap_or_default();
        if ["walsender", "monitor"].iter().any(|part| who == format!("cdc_{} {part}", config.name)) {
            return Ok(());
        }
        Err(Fault::person(format!(
            "the replication slot {} is in use by pid {pid} ({who:?}), which isn't ours",
            config.slot()
        ))
        .on(Side::Source)
        .remedy(format!("stop what uses it, or: SELECT pg_terminate_backend({pid})")))
    }

    /// True if it has the ledger of a way back of this name, or one that was left empty when such a way was given up.
    pub(super) async fn has_ledger_of(&self, name: &str) -> Result<bool> {
        let fault = |e| Fault::sql(Side::Source, "looking for the ledger of the way back", &e);
        let there = "SELECT pg_catalog.to_regclass('cdc.migration') IS NOT NULL";
        if !self.session.query_one(there, &[]).await.map_err(fault)?.get::<_, bool>(0) {
            return Ok(false);
        }
        let sql =
            "SELECT coalesce(bool_or(name = $1 AND pg_catalog.to_jsonb(m) ->> 'direction' = 'reverse'), true)
                     FROM cdc.migration AS m";
        Ok(self.session.query_one(sql, &[&name]).await.map_err(fault)?.get(0))
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// Removes the slot, then the publications.
    pub(super) async fn remove(&self, config: &Config) -> Result<()> {
        let slot = config.slot();
        end_leftovers(&self.session, Side::Source, config, &["copy", "monitor"]).await?;
        if self.slot.is_some() {
            free_slot(&self.session, &slot, &format!("cdc_{} walsender", config.name)).await?;
            // One that was still being made is gone with its session.
            if Slot::find(&self.session, &slot).await?.is_some() {
                Slot::remove(&self.session, &slot).await?;
            }
        }
        for name in &self.publications {
            self.session
                .batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", quote_identifier(name)))
                .await
                .map_err(|e| Fault::sql(Side::Source, &format!("dropping the publication {name}"), &e))?;
        }
        Ok(())
    }

    /// What is there now.
    pub(super) async fn now(&self, slot: &str) -> Result<OnSource> {
        let mut publications = Vec::new();
        for name in &self.publications {
            let is_there = Publication::find(&self.session, name).await?.is_some();
            publications.push(Thing { name: name.clone(), state: State::of(is_there) });
        }
        let is_there = match &self.slot {
            Some(_) => Slot::find(&self.session, slot).await?.is_some(),
            None => false,
        };
        Ok(OnSource {
            slot: Some(Thing { name: slot.to_owned(), state: State::of(is_there) }),
            publications,
            publications_kept: self.kept.clone(),
            ..OnSource::default()
        })
    }
}
