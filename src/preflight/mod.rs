//! What stands in the way of a migration, looked for before anything is touched: `cdc check`.
//!
//! ```text
//! source ─► server, replication ─► tables ─► WAL, transactions ─┐
//!                                    │                          ├─► findings ─► Report
//! target ─► server ─► ledger ─► where the tables go, extensions ┘
//! ```
//!
//! Each module below looks at one group of things and adds what it finds. Nothing is set, made or locked on
//! either database, and the catalogs are asked for all tables at once, however many there are. What can't be
//! looked at is a finding, too; and if one end can't be reached, the other one is examined all the same.
//!
//! A start refuses what [`refuse`] and [`Wanted`] say, and a preflight asks them as well, so that both say
//! the same.

mod collations;
mod connection;
mod extensions;
mod finding;
mod migration;
mod provider;
pub(crate) mod refuse;
mod report;
mod room;
mod server;
mod source;
mod source_tables;
mod target;
mod target_tables;
mod transactions;
mod wanted;
mod way_back;

use std::sync::Arc;

pub use finding::{Finding, Severity};
pub use report::{End, Outcome, Report};
pub(crate) use wanted::Wanted;
pub use way_back::way_back;

use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Reaction, Result, Side};
use migration::Known;
use server::Server;

/// One end that can be asked.
struct Asked {
    session: Arc<Session>,
    server: Server,
}

/// A preflight as far as it has got.
struct Check<'a> {
    config: &'a Config,
    /// Hears what is looked at now.
    tell: &'a (dyn Fn(&'static str) + Sync),
    findings: Vec<Finding>,
    /// Why an end could not be examined: the source, the target.
    errors: [Option<Fault>; 2],
}

/// Looks at both ends. `tell` hears what it looks at.
pub async fn check(config: &Config, tell: &(dyn Fn(&'static str) + Sync)) -> Report {
    let mut check = Check { config, tell, findings: Vec::new(), errors: [None, None] };
    tell("connecting");
    let (source, target) = tokio::join!(
        connection::open(&config.source, Side::Source, &config.name),
        connection::open(&config.target, Side::Target, &config.name)
    );
    let source = check.opened(Side::Source, source);
    let target = check.opened(Side::Target, target);
    let mut known = Known::default();
    if let Some(target) = &target {
        known = check.known(target).await;
        target::look(&mut check, target, &known).await;
    }
    if let Some(source) = &source {
        let identity = source::look(&mut check, source, &known).await;
        let looked = migration::look(&mut check, source, &known, identity).await;
        check.looked(Side::Source, looked);
        if let Some(target) = &target {
            check.of_both(source, target).await;
        }
        check.tables(source, target.as_ref(), &known).await;
    }
    check.report(&source, &target, &known)
}

impl Check<'_> {
    fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// Takes what an end was found to be; why it could not be had is a finding.
    fn opened(&mut self, side: Side, opened: Result<Asked>) -> Option<Asked> {
        match opened {
            Ok(asked) => {
                connection::look(self, &asked);
                Some(asked)
            }
            Err(fault) => {
                let code = if fault.is_unreachable() { "unreachable" } else { "cannot-connect" };
                self.add(Finding::of_fault(code, &fault).why("without a connection there is no migration"));
                self.errors[side_index(side)] = Some(fault);
                None
            }
        }
    }

    /// Takes what was looked at; that it could not be is a finding, too.
    fn looked<T>(&mut self, side: Side, result: Result<T>) -> Option<T> {
        let fault = match result {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        if fault.is_unreachable() {
            self.errors[side_index(fault.side().unwrap_or(side))].get_or_insert(fault);
            return None;
        }
        let severity = if fault.reaction() == Reaction::Person { Severity::Blocks } else { Severity::Warns };
        let finding = Finding::of_fault("not-examined", &fault).severity(severity);
        self.add(finding.why("what could not be looked at here may stand in the way later"));
        None
    }

    /// What the ledger says. One that can't be used stands in the way.
    async fn known(&mut self, target: &Asked) -> Known {
        let foreign = target::ledger_schema(target).await;
        if let Some(Some(finding)) = self.looked(Side::Target, foreign) {
            self.add(finding);
            return Known::default();
        }
        match migration::known(target, self.config).await {
            Err(fault) if !fault.is_unreachable() => {
                self.add(Finding::of_fault("ledger", &fault).object("cdc"));
                Known::default()
            }
            known => self.looked(Side::Target, known).unwrap_or_default(),
        }
    }

    /// What is asked of both ends together.
    async fn of_both(&mut self, source: &Asked, target: &Asked) {
        (self.tell)("comparing the servers");
        if let Err(fault) = refuse::refuse_target(&target.session, &source.session).await {
            // That it is a standby is said already.
            if !target.server.is_standby {
                self.add(Finding::of_fault("same-database", &fault));
            }
        }
        target::compare(self, &source.server, &target.server);
        let looked = collations::look(self, source, target).await;
        self.looked(Side::Target, looked);
    }

    /// What is asked of the tables, and of what the source is doing meanwhile.
    async fn tables(&mut self, source: &Asked, target: Option<&Asked>, known: &Known) {
        (self.tell)("looking at the source's tables");
        let wanted = Wanted::on(&source.session, self.config).await;
        let Some(mut wanted) = self.looked(Side::Source, wanted) else { return };
        let looked = migration::publications(self, source, &mut wanted, known).await;
        let makes_publication = self.looked(Side::Source, looked).unwrap_or_default();
        let began = room::Measure::begin(source, &self.config.name).await;
        let looked = source_tables::look(self, source, &wanted, makes_publication).await;
        let tables = self.looked(Side::Source, looked).unwrap_or_default();
        if let Some(target) = target {
            (self.tell)("looking at the target's tables");
            let looked = target_tables::look(self, (source, target), &wanted, &tables, known).await;
            self.looked(Side::Target, looked);
            (self.tell)("comparing the extensions");
            let looked = extensions::look(self, source, target, &wanted).await;
            self.looked(Side::Target, looked);
            (self.tell)("looking for references to the provider's parts");
            let looked = provider::look(self, source, target).await;
            self.looked(Side::Source, looked);
        }
        (self.tell)("measuring how much the source writes");
        if let Some(began) = self.looked(Side::Source, began) {
            let looked = room::look(self, source, began, &tables, known).await;
            self.looked(Side::Source, looked);
        }
    }

    fn report(self, source: &Option<Asked>, target: &Option<Asked>, known: &Known) -> Report {
        let is_unreachable = self.errors.iter().flatten().any(Fault::is_unreachable);
        let [source_error, target_error] = self.errors;
        let end = |info: &crate::connect::ConnInfo, asked: &Option<Asked>, error: Option<Fault>| End {
            database: info.to_string(),
            version: asked.as_ref().map(|asked| asked.server.version.clone()),
            error: error.map(|fault| fault.to_string()),
        };
        let ends =
            [end(&self.config.source, source, source_error), end(&self.config.target, target, target_error)];
        Report::new(&self.config.name, known.phase(), ends, is_unreachable, self.findings)
    }
}

fn side_index(side: Side) -> usize {
    match side {
        Side::Source => 0,
        Side::Target => 1,
    }
}
