//! What there is already: a migration that is under way, and a slot or publications of our name.

use std::sync::Arc;

use super::finding::Finding;
use super::refuse::{check_slot, compare_origin, unknown_slot};
use super::server::no_create;
use super::{Asked, Check, Wanted};
use crate::config::Config;
use crate::fault::{Fault, Result, Side};
use crate::ledger::{Ledger, Origin, Phase};
use crate::replication::{Publication, Slot, SystemIdentity};

const SIDE: Side = Side::Source;

/// What the ledger says of the migration; nothing if there is none, or it can't be asked.
#[derive(Default)]
pub(super) struct Known {
    pub(super) ledger: Option<Ledger>,
    phase: Option<Phase>,
    origin: Option<Origin>,
}

impl Known {
    /// The slot has been asked for: what there is of our name is ours.
    pub(super) fn is_under_way(&self) -> bool {
        self.origin.is_some()
    }

    /// The phase of a migration that is under way.
    pub(super) fn phase(&self) -> Option<String> {
        self.phase.filter(|_| self.is_under_way()).map(|phase| phase.as_str().to_owned())
    }
}

/// Asks the ledger.
pub(super) async fn known(target: &Asked, config: &Config) -> Result<Known> {
    let ledger = Ledger::new(Arc::clone(&target.session), &config.name);
    let mut known = Known { ledger: Some(ledger.clone()), ..Known::default() };
    if ledger.exists().await? {
        known.phase = ledger.phase().await?;
        known.origin = ledger.origin().await?;
        ledger.refuse_missing_rows().await?;
    }
    Ok(known)
}

/// Looks at the slot: whether it is ours and holds what we need, or whose it is.
pub(super) async fn look(
    check: &mut Check<'_>,
    source: &Asked,
    known: &Known,
    identity: Option<SystemIdentity>,
) -> Result<()> {
    let Some(ledger) = &known.ledger else { return Ok(()) };
    let Some(origin) = &known.origin else {
        if Slot::find(&source.session, &check.config.slot()).await?.is_some() {
            let slot = check.config.slot();
            check.add(Finding::of_fault("slot-exists", &unknown_slot(&slot)).object(slot));
        }
        return Ok(());
    };
    let phase = known.phase().unwrap_or_default();
    let running =
        if ledger.daemon_is_running().await? { "its daemon is running" } else { "no daemon is running" };
    check.add(
        Finding::informs("under-way", Side::Target, format!("the migration is under way (phase {phase}); {running}"))
            .why("its slot, its publications and the rows that it has copied are no findings; cdc status says how it is"),
    );
    let Some(identity) = identity else { return Ok(()) };
    let found = Origin {
        system_id: identity.system_id,
        timeline: identity.timeline,
        database: check.config.source.dbname().to_owned(),
        slot: check.config.slot(),
    };
    let mut fits = compare_origin(origin, &found);
    if let (Ok(()), Some(checkpoint)) = (&fits, ledger.checkpoint().await?) {
        fits = check_slot(&source.session, origin, checkpoint, &identity).await;
    }
    if let Err(fault) = fits {
        check.add(Finding::of_fault("position-lost", &fault));
    }
    Ok(())
}

/// Looks at the publications, and leaves out of `wanted` what those made by hand leave out. True if one has to
/// be made.
pub(super) async fn publications(
    check: &mut Check<'_>,
    source: &Asked,
    wanted: &mut Wanted,
    known: &Known,
) -> Result<bool> {
    let Some(ledger) = &known.ledger else { return Ok(true) };
    let ours = match ledger.exists().await? {
        true => ledger.publications_created().await?,
        false => Vec::new(),
    };
    let (mut has_some, mut lacks_one) = (false, false);
    let mut published = Vec::new();
    for publication in &wanted.publications {
        let name = &publication.name;
        match Publication::find(&source.session, name).await? {
            Some(tables) => {
                has_some = true;
                published.extend(tables);
                if !ours.contains(name) {
                    check.add(by_hand(name));
                } else if let Some((fault, _)) = publication.change(&source.session).await? {
                    check.add(Finding::of_fault("publication-changed", &fault).object(name));
                }
            }
            None if known.is_under_way() && ledger.publications().await?.contains(name) => {
                check.add(Finding::of_fault("publication-gone", &Publication::gone(name)).object(name));
            }
            None => lacks_one = true,
        }
    }
    let to_make = lacks_one && !known.is_under_way();
    if to_make && !source.server.can_create {
        check.add(no_create(&source.server, "a publication, which says what is replicated, has to be made"));
    }
    if has_some && (known.is_under_way() || ours.is_empty()) {
        for table in wanted.publications.iter().flat_map(|publication| &publication.tables) {
            if !published.contains(table) {
                check.add(not_followed(table));
            }
        }
    }
    if let Err(fault) = wanted.narrow(&source.session, ledger).await {
        if fault.code().is_some() || fault.is_unreachable() {
            return Err(fault);
        }
        check.add(Finding::of_fault("publication-generated", &fault));
    }
    Ok(to_make)
}

fn by_hand(name: &str) -> Finding {
    Finding::warns(
        "publication-exists",
        SIDE,
        "there is a publication of this name already, which the ledger knows nothing of",
    )
    .object(name)
    .why("it is used as it is, with its tables, row filters and column lists, as if it was made by hand for this")
    .mend(format!("if it is a left-over: DROP PUBLICATION {};", crate::catalog::quote_identifier(name)))
}

fn not_followed(table: &crate::catalog::TableName) -> Finding {
    let fault: Fault = Publication::lacks(table);
    let mut finding = Finding::warns("not-followed", SIDE, fault.what())
        .table(table)
        .why("its rows are neither copied nor followed, and only a warning says so later");
    finding.mend = fault.advice().map(str::to_owned);
    finding
}
