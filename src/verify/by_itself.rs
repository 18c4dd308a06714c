//! The daemon verifies by itself, now and then and gently.

use std::time::Duration;

use tokio::time::sleep;

use super::{Options, Outcome, Progress, verify};
use crate::config::Config;
use crate::fault::Result;
use crate::ledger::Ledger;
use crate::limits;

/// Verifies everything when the copy is complete and again each time after a while, for ever. What comes out is in
/// the ledger, and differences are warnings there.
pub async fn verify_by_itself(config: Config, ledger: Ledger) {
    let Some(every) = config.verify.every else { return };
    let options = Options { max_rate_bytes: Some(config.verify.max_rate_bytes), ..Options::default() };
    loop {
        match is_due(&ledger, every).await {
            Ok(None) => {}
            Ok(Some(pause)) => {
                sleep(pause).await;
                continue;
            }
            // Whoever replicates meets the same fault and tells of it.
            Err(fault) => {
                tracing::debug!("whether to verify is not known: {fault}");
                sleep(limits::HEALTH_INTERVAL).await;
                continue;
            }
        }
        match verify(&config, &options, &Progress::default()).await {
            Ok(report) if report.outcome == Outcome::Same => {
                tracing::info!("verified: {}", report.headline())
            }
            Ok(report) => tracing::warn!("verified: {}; cdc verify names what differs", report.headline()),
            Err(fault) => tracing::error!("not verified: {fault}"),
        }
        sleep(every.min(limits::HEALTH_INTERVAL)).await;
    }
}

/// How long to wait before it is looked at again; `None` if it is time to verify.
async fn is_due(ledger: &Ledger, every: Duration) -> Result<Option<Duration>> {
    if !ledger.copy_is_complete().await? {
        return Ok(Some(limits::HEALTH_INTERVAL.min(every)));
    }
    let left = ledger.since_verification().await?.map_or(Duration::ZERO, |since| every.saturating_sub(since));
    Ok((left > Duration::ZERO).then_some(left.min(limits::LOG_INTERVAL)))
}
