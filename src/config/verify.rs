//! `[verify]`: when the daemon compares the two databases by itself.

use std::time::Duration;

use serde::Deserialize;

use super::rate;
use crate::fault::{Fault, Result};
use crate::limits;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    every: Option<String>,
    max_rate: Option<toml::Value>,
}

/// When the daemon verifies by itself, and how gently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifyConfig {
    /// How long after the end of a verification the next one begins; `None`: never by itself.
    pub every: Option<Duration>,
    /// The most bytes a second that it reads of either database.
    pub max_rate_bytes: u64,
}

impl VerifyConfig {
    pub(super) fn new(section: &Section) -> Result<Self> {
        let every = section.every.as_deref().map(every).transpose()?;
        let max_rate = section.max_rate.as_ref().map(|value| rate("[verify] max_rate", value)).transpose()?;
        Ok(Self { every, max_rate_bytes: max_rate.unwrap_or(limits::VERIFY_RATE_BYTES) })
    }
}

fn every(text: &str) -> Result<Duration> {
    match humantime::parse_duration(text) {
        Ok(every) if every >= limits::VERIFY_EVERY_LEAST => Ok(every),
        Ok(_) | Err(_) => {
            let least = humantime::format_duration(limits::VERIFY_EVERY_LEAST);
            Err(Fault::usage(format!("[verify] every: {text:?} is no time of at least {least}"))
                .remedy("write \"6h\", for example, or leave it out: nothing is verified by itself then"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn verify(text: &str) -> Result<VerifyConfig> {
        load(&format!("{BOTH}{text}"), &Environment::empty()).map(|config| config.verify)
    }

    #[test]
    fn nothing_is_verified_by_itself_unless_told_and_then_gently() {
        let never = VerifyConfig { every: None, max_rate_bytes: 8 << 20 };
        assert_eq!(verify("").unwrap(), never);
        let six_hours = Some(Duration::from_secs(6 * 3600));
        assert_eq!(verify("[verify]\nevery = \"6h\"\n").unwrap(), VerifyConfig { every: six_hours, ..never });
        assert_eq!(verify("[verify]\nmax_rate = \"1MB\"\n").unwrap().max_rate_bytes, 1_000_000);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, wanted) in [
            ("every = \"0s\"", "no time of at least 1s"),
            ("every = \"often\"", "write \"6h\""),
            ("every = 6", "line 4"),
            ("max_rate = 0", "[verify] max_rate: \"0\" is no rate"),
            ("at = \"6h\"", "unknown field `at`"),
        ] {
            let fault = verify(&format!("[verify]\n{text}\n")).unwrap_err();
            assert_eq!(fault.reaction(), crate::fault::Reaction::Usage, "{text}");
            assert!(fault.to_string().contains(wanted), "{text}: {fault}");
        }
    }
}
