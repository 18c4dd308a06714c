//! Who still uses the database that the applications have left.
//!
//! Nobody can write to its fenced tables; but a service that was forgotten reads there, and fails. The daemon that sends
//! everything back looks every few seconds, so it is known for how long nobody was there.

use serde::Serialize;

use crate::catalog::{User, users};
use crate::connect::Session;
use crate::fault::Result;
use crate::ledger::Ledger;
use crate::limits;

/// The old side after a switch.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OldSide {
    /// Which database, as `user@host:port/database`.
    pub database: String,
    /// Who is there now.
    pub users: Vec<User>,
    /// For how many days nobody was there; null if no daemon has looked.
    pub quiet_days: Option<f64>,
}

impl OldSide {
    /// Looks at it; `None` if the applications have not moved to the target.
    ///
    /// # Errors
    /// If a database can't be asked.
    pub async fn look(old: &Session, database: String, home: &Ledger) -> Result<Option<Self>> {
        let is_moved = |way: &str, outcome: Option<&str>| way == "cutover" && outcome == Some("switched");
        let switch = home.last_switch().await?.filter(|last| is_moved(&last.way, last.outcome.as_deref()));
        if switch.is_none() {
            return Ok(None);
        }
        Ok(Some(Self { database, users: users(old).await?, quiet_days: home.quiet_days().await? }))
    }

    /// Why it is not to be given up yet.
    #[must_use]
    pub fn in_use(&self) -> Option<String> {
        if let Some(user) = self.users.first() {
            return Some(format!(
                "{} ({}) is still connected to {}",
                user.role, user.application, self.database
            ));
        }
        let days = limits::QUIET.as_secs_f64() / 86_400.0;
        let quiet = self.quiet_days.filter(|quiet| *quiet < days)?;
        Some(format!("nobody has used {} for {quiet:.1} days, which are less than {days:.0}", self.database))
    }
}
