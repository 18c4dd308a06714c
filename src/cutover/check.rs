//! What stands in the way of a switch, asked before anything is touched.

use std::sync::Arc;

use crate::catalog::quote_literal;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::observe::{self, Verdict};
use crate::preflight::{Finding, Severity};
use crate::schema;

use super::fence::Fence;
use super::outside::{Outside, names};
use super::pooler::Pooler;
use super::reverse;
use super::sequences::Sequences;

/// Both ends as the migration runs now, and what is asked of them.
pub(super) struct Ends<'a> {
    pub(super) now: &'a Config,
    pub(super) old: &'a Arc<Session>,
    pub(super) new: &'a Session,
    pub(super) ledger: &'a Ledger,
}

fn finding(severity: Severity, code: &'static str, side: Option<Side>, what: impl Into<String>) -> Finding {
    Finding { severity, code, side, object: None, what: what.into(), why: String::new(), mend: None }
}

fn blocks(code: &'static str, side: Option<Side>, what: impl Into<String>, mend: &str) -> Finding {
    Finding { mend: Some(mend.to_owned()), ..finding(Severity::Blocks, code, side, what) }
}

impl Ends<'_> {
    /// Everything that was found. Nothing is changed.
    pub(super) async fn check(&self) -> Result<Vec<Finding>> {
        let mut found = self.stream().await?;
        found.extend(self.schema().await?);
        found.extend(self.fences().await?);
        found.extend(self.outside().await?);
        found.extend(self.writers().await?);
        if self.now.cutover.reverse {
            let back = reverse::check(self.now).await?;
            found.extend(back.into_iter().filter(|finding| finding.severity == Severity::Blocks));
        } else {
            found.push(finding(
                Severity::Warns,
                "no-way-back",
                None,
                "there will be no way back: reverse = false, so nothing that is written after the switch is sent back",
            ));
        }
        if let Some(pgbouncer) = &self.now.cutover.pgbouncer
            // What isn't paused can't be resumed, which only an administrator is told.
            && let Err(fault) = Pooler::resume(pgbouncer, &self.now.name, Side::Source).await
        {
            found.push(blocks("pgbouncer", None, fault.what(), fault.advice().unwrap_or_default()));
        }
        Ok(found)
    }

    /// It flows, and nothing is missing.
    async fn stream(&self) -> Result<Vec<Finding>> {
        let limits = observe::Limits { bytes: None, seconds: limits::CUTOVER_LAG.as_secs_f64() };
        let status = observe::look(self.now, &limits, 1, self.ledger, Ok(self.old)).await?;
        let mut found = Vec::new();
        if status.verdict != Verdict::Streaming {
            let what = format!("the migration is not streaming, or too far behind: {}", status.summary());
            found.push(blocks("not-streaming", None, what, "see cdc status"));
        }
        if !self.ledger.copy_is_complete().await? {
            let what = "the copy is not complete, or something that was held back for it is missing";
            found.push(blocks("not-complete", Some(Side::Target), what, "see cdc status"));
        }
        if !status.repairs.is_empty() {
            let what = "a repair has been asked for that is not over";
            found.push(blocks("repair", Some(Side::Target), what, "see cdc status"));
        }
        if status.skipped.transactions > 0 {
            found.push(finding(
                Severity::Warns,
                "skipped",
                Some(Side::Target),
                format!("transactions were skipped: {}", status.skipped.transactions),
            ));
        }
        Ok(found)
    }

    async fn schema(&self) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        let diff = schema::diff(self.old, self.new, self.now).await?;
        if !diff.is_same() {
            let count = diff.differences.iter().filter(|difference| difference.what.counts()).count();
            let what = format!("the schemas differ: {count} differences");
            let mut finding = blocks(
                "schema",
                Some(Side::Target),
                what,
                "cdc schema diff shows them, cdc schema apply makes what is missing",
            );
            finding.severity = Severity::Warns;
            found.push(finding);
        }
        for sequence in Sequences::find(self.old, self.new).await?.missing {
            let what = format!("there is no sequence {sequence}");
            found.push(blocks("sequence", Some(Side::Target), what, "cdc schema apply"));
        }
        Ok(found)
    }

    async fn fences(&self) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        for (session, side) in [(&**self.old, Side::Source), (self.new, Side::Target)] {
            for (table, lacks) in Fence::new(session, side, &self.now.name).lacks(self.now).await? {
                let mut finding =
                    blocks("not-owner", Some(side), "the role can't fence this table", &format!("{lacks};"));
                finding.object = Some(table.to_string());
                found.push(finding);
            }
        }
        Ok(found)
    }

    /// What doesn't come along.
    async fn outside(&self) -> Result<Vec<Finding>> {
        let outside = Outside::look(self.now, self.old, self.ledger).await?;
        let mut found = Vec::new();
        if !outside.selected.is_empty() {
            let what = format!(
                "their rows would be missing, as they are not replicated: {}",
                names(&outside.selected)
            );
            let mend = "cdc status says why; name them in [tables] exclude if they are not needed";
            found.push(blocks("not-replicated", Some(Side::Source), what, mend));
        }
        if !outside.others.is_empty() {
            let what = format!(
                "they are not replicated, and no fence is around them: both sides take writes to {}",
                names(&outside.others)
            );
            found.push(finding(Severity::Warns, "not-fenced", Some(Side::Source), what));
        }
        Ok(found)
    }

    /// Whoever a fence doesn't stop, or has to wait for.
    async fn writers(&self) -> Result<Vec<Finding>> {
        let mut found = Vec::new();
        let fault = |e| Fault::sql(Side::Source, "looking for what writes", &e);
        let subscriptions = "SELECT subname::text FROM pg_catalog.pg_subscription AS s
              JOIN pg_catalog.pg_database AS d ON d.oid = s.subdbid
             WHERE d.datname = pg_catalog.current_database() AND subenabled";
        for row in self.old.query(subscriptions, &[]).await.map_err(fault)? {
            let name: String = row.get(0);
            let what = "a subscription writes to this database, which no fence stops";
            let mend = format!("ALTER SUBSCRIPTION {} DISABLE;", crate::catalog::quote_identifier(&name));
            found.push(blocks("subscription", Some(Side::Source), what, &mend));
        }
        let sql = include_str!("../../sql/catalog/check_transactions.sql");
        let rows = self.old.query(sql, &[&format!("cdc_{} ", self.now.name)]).await.map_err(fault)?;
        for row in rows {
            let (gid, database): (Option<&str>, Option<&str>) = (row.get("gid"), row.get("database"));
            if database != Some(self.now.source.dbname()) {
                continue;
            }
            let role = row.get::<_, Option<&str>>("role").unwrap_or("?");
            if let Some(gid) = gid {
                let what = format!("the prepared transaction {gid} of {role} is open");
                let gid = quote_literal(gid);
                let mend = format!("COMMIT PREPARED {gid}; or: ROLLBACK PREPARED {gid};");
                found.push(blocks("prepared-transaction", Some(Side::Source), what, &mend));
            } else if row
                .get::<_, Option<f64>>("age")
                .is_some_and(|age| age >= limits::CUTOVER_TRANSACTION.as_secs_f64())
            {
                let pid: Option<i32> = row.get("pid");
                let what = format!(
                    "a transaction of {role} (pid {}) has been open for long",
                    pid.unwrap_or_default()
                );
                found.push(finding(Severity::Warns, "long-transaction", Some(Side::Source), what));
            }
        }
        Ok(found)
    }
}
