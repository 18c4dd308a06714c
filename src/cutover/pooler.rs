//! `PgBouncer` in front of the applications: it holds their transactions back instead of letting them fail.
//!
//! `PAUSE` waits until the transactions in progress have ended and gives no connection to the next ones; these wait until
//! `RESUME`. In between the hook `switch` gives it the other host (and a `RELOAD`).

use std::time::Duration;

use tokio::time::timeout;

use crate::config::PgBouncer;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// The admin console.
pub struct Pooler {
    session: Session,
    databases: Vec<String>,
    side: Side,
}

impl Pooler {
    /// Connects to the console.
    ///
    /// # Errors
    /// If it can't be reached, or isn't one.
    pub async fn open(config: &PgBouncer, name: &str, side: Side) -> Result<Self> {
        let session = Session::console(&config.console, side, &format!("cdc_{name} cutover"))
            .await
            .map_err(|fault| told(&fault))?;
        let pooler = Self { session, databases: config.databases.clone(), side };
        pooler.run("SHOW VERSION").await?;
        Ok(pooler)
    }

    /// Holds back what comes, and waits until what is under way has ended.
    ///
    /// # Errors
    /// If that takes too long, or `PgBouncer` refuses: [`Pooler::resume`] has to be called all the same.
    pub async fn pause(&self, deadline: Duration) -> Result<()> {
        match timeout(deadline, self.all("PAUSE")).await {
            Ok(paused) => paused,
            Err(_) => Err(Fault::person(format!(
                "PgBouncer could not pause within {} s: a transaction goes on, or its pool_mode is session",
                deadline.as_secs_f64()
            ))
            .on(self.side)
            .remedy("look at SHOW CLIENTS in its console; end what has been in a transaction for long, and run this again")),
        }
    }

    async fn all(&self, command: &str) -> Result<()> {
        if self.databases.is_empty() {
            return self.run(command).await;
        }
        for database in &self.databases {
            self.run(&format!("{command} \"{}\"", database.replace('"', "\"\""))).await?;
        }
        Ok(())
    }

    /// Lets go on what was held back. Nothing if nothing was.
    ///
    /// # Errors
    /// If the console can't be reached.
    pub async fn resume(config: &PgBouncer, name: &str, side: Side) -> Result<()> {
        // The session that has paused may still wait.
        let pooler = Self::open(config, name, side).await?;
        match timeout(limits::SILENCE, pooler.all("RESUME")).await {
            Ok(Err(fault)) if fault.what().contains("not paused") => Ok(()),
            Ok(resumed) => resumed,
            Err(_) => Err(Fault::unreachable(side, "PgBouncer's console doesn't answer")),
        }
    }

    async fn run(&self, command: &str) -> Result<()> {
        match self.session.simple_query(command).await {
            Ok(_) => Ok(()),
            Err(error) => Err(told(&Fault::sql(self.side, &format!("PgBouncer's {command}"), &error))),
        }
    }
}

fn told(fault: &Fault) -> Fault {
    let what = format!("PgBouncer's console: {}", fault.what());
    if let Some(side) = fault.side().filter(|_| fault.is_unreachable()) {
        return Fault::unreachable(side, what)
            .remedy("start PgBouncer, or take [cutover] pgbouncer out of the configuration");
    }
    Fault::person(what).remedy(
        "check [cutover] pgbouncer: it is the URL of the database \"pgbouncer\" there, as a user of its admin_users",
    )
}
