//! `[cutover]`: how the switch goes.

use std::time::Duration;

use serde::Deserialize;

use crate::connect::{ConnInfo, Environment};
use crate::fault::{Fault, Result};
use crate::limits;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    reverse: Option<bool>,
    pause: Option<String>,
    patience: Option<String>,
    end_sessions: Option<bool>,
    verify: Option<String>,
    verified_within: Option<String>,
    sequence_margin: Option<i64>,
    before: Option<String>,
    switch: Option<String>,
    smoke: Option<String>,
    hook_timeout: Option<String>,
    pgbouncer: Option<String>,
    pgbouncer_databases: Option<Vec<String>>,
}

/// How much is compared while writes rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InPause {
    /// Nothing.
    Nothing,
    /// What has changed since the verification before, as far as there is time for it.
    Within(Duration),
    /// Everything.
    Everything,
}

/// `PgBouncer`'s admin console, and the databases whose transactions it holds back.
#[derive(Clone, Debug)]
pub struct PgBouncer {
    /// The console.
    pub console: ConnInfo,
    /// The databases by their names there; all of them if there are none.
    pub databases: Vec<String>,
}

/// How the switch goes.
#[derive(Clone, Debug)]
pub struct CutoverConfig {
    /// What is written after the switch goes back to the old side, so that there is a way back. With `false` nothing
    /// is ever sent back.
    pub reverse: bool,
    /// How long writes may rest before everything is undone.
    pub pause: Duration,
    /// How long transactions that have written are waited for.
    pub patience: Duration,
    /// Whether their sessions are ended then.
    pub end_sessions: bool,
    /// What is compared while writes rest.
    pub verify: InPause,
    /// How long ago everything may have been compared; otherwise that is done before.
    pub verified_within: Duration,
    /// How far sequences are set beyond where they are on the other side, in steps of theirs.
    pub sequence_margin: i64,
    /// The command that runs before anything rests.
    pub before: Option<String>,
    /// The command that brings the applications to the new side.
    pub switch: Option<String>,
    /// The command that looks whether they work.
    pub smoke: Option<String>,
    /// How long each of them may take.
    pub hook_timeout: Duration,
    /// The pooler in front of the applications' database.
    pub pgbouncer: Option<PgBouncer>,
}

impl CutoverConfig {
    pub(super) fn new(section: Section, environment: &Environment) -> Result<Self> {
        let time = |key: &str, text: Option<&String>, default: Duration| {
            text.map_or(Ok(default), |text| duration(key, text))
        };
        let databases = section.pgbouncer_databases.unwrap_or_default();
        let console = section.pgbouncer.map(|url| ConnInfo::parse(url.trim(), environment)).transpose()?;
        if console.is_none() && !databases.is_empty() {
            return Err(Fault::usage(
                "[cutover] pgbouncer_databases: pgbouncer, the admin console, is missing",
            ));
        }
        let sequence_margin = section.sequence_margin.unwrap_or(0);
        if sequence_margin < 0 {
            return Err(Fault::usage("[cutover] sequence_margin: it must be 0 or more"));
        }
        Ok(Self {
            reverse: section.reverse.unwrap_or(true),
            pause: time("pause", section.pause.as_ref(), limits::CUTOVER_PAUSE)?,
            patience: time("patience", section.patience.as_ref(), limits::CUTOVER_PATIENCE)?,
            end_sessions: section.end_sessions.unwrap_or(true),
            verify: match section.verify.as_deref() {
                None => InPause::Within(limits::CUTOVER_VERIFY),
                Some("none") => InPause::Nothing,
                Some("full") => InPause::Everything,
                Some(text) => InPause::Within(duration("verify", text)?),
            },
            verified_within: time(
                "verified_within",
                section.verified_within.as_ref(),
                limits::CUTOVER_VERIFIED_WITHIN,
            )?,
            sequence_margin,
            before: section.before,
            switch: section.switch,
            smoke: section.smoke,
            hook_timeout: time("hook_timeout", section.hook_timeout.as_ref(), limits::HOOK_TIMEOUT)?,
            pgbouncer: console.map(|console| PgBouncer { console, databases }),
        })
    }
}

fn duration(key: &str, text: &str) -> Result<Duration> {
    humantime::parse_duration(text).map_err(|_| {
        Fault::usage(format!("[cutover] {key}: {text:?} is no time"))
            .remedy("write \"500ms\" or \"10s\", for example")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};

    fn cutover(text: &str) -> Result<CutoverConfig> {
        load(&format!("{BOTH}[cutover]\n{text}"), &Environment::empty()).map(|config| config.cutover)
    }

    #[test]
    fn there_is_a_way_back_unless_it_is_switched_off() {
        let config = cutover("").unwrap();
        assert!(config.reverse && config.end_sessions && config.pgbouncer.is_none());
        assert_eq!(
            (config.pause, config.verify),
            (Duration::from_secs(10), InPause::Within(limits::CUTOVER_VERIFY))
        );
        let config =
            cutover("reverse = false\nverify = \"full\"\npause = \"2s\"\nswitch = \"true\"\n").unwrap();
        assert_eq!((config.reverse, config.pause), (false, Duration::from_secs(2)));
        assert_eq!((config.verify, config.switch.as_deref()), (InPause::Everything, Some("true")));
        let config =
            cutover("verify = \"300ms\"\npgbouncer = \"postgres://a:s3cret@h:6432/pgbouncer\"\n").unwrap();
        assert_eq!(config.verify, InPause::Within(Duration::from_millis(300)));
        assert!(!format!("{config:?}").contains("s3cret"));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, wanted) in [
            ("pause = \"soon\"", "[cutover] pause: \"soon\" is no time"),
            ("verify = \"some\"", "[cutover] verify: \"some\" is no time"),
            ("sequence_margin = -1", "0 or more"),
            ("pgbouncer_databases = [\"app\"]", "the admin console, is missing"),
            ("undo = true", "unknown field `undo`"),
        ] {
            let fault = cutover(&format!("{text}\n")).unwrap_err();
            assert_eq!(fault.reaction(), crate::fault::Reaction::Usage, "{text}");
            assert!(fault.to_string().contains(wanted), "{text}: {fault}");
        }
    }
}
