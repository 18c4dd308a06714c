//! Tells the service manager how it is: what `cdc status` says, in a line.

use std::sync::Arc;

use super::lag::Limits;
use super::status::look;
use crate::config::Config;
use crate::connect::Session;
use crate::ledger::Ledger;
use crate::limits;
use crate::service::Service;

/// Tells it now and then, on sessions that others use too, for ever.
pub async fn tell_service(config: Config, ledger: Ledger, source: Arc<Session>, service: Service) {
    if !service.listens() {
        return;
    }
    let mut told = None;
    loop {
        match look(&config, &Limits::default(), 1, &ledger, Ok(&source)).await {
            Ok(status) => {
                let line = status.summary();
                if told.as_ref() != Some(&line) {
                    service.status(&line);
                    told = Some(line);
                }
            }
            // Whoever replicates meets the same fault and tells of it.
            Err(fault) => tracing::debug!("the status is not known: {fault}"),
        }
        tokio::time::sleep(limits::STATUS_INTERVAL).await;
    }
}
