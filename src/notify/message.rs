//! A message, and the shapes that a webhook takes it in. Pure.

use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value, json};

use crate::config::{Format, Webhook};
use crate::hook::Variables;
use crate::ledger::{Incident, host};
use crate::limits;
use crate::observe::Verdict;

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Somebody should look now.
    Alarm,
    /// A trouble is over.
    Over,
    /// Good to know.
    Info,
}

impl Level {
    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::Over => "over",
            Self::Info => "info",
        }
    }
}

/// What is told. Its JSON form is what a webhook and a command are given; names and meanings are stable.
#[derive(Clone, Debug, Serialize)]
pub struct Message {
    /// The migration's name.
    pub name: String,
    /// The host of the daemon.
    pub host: String,
    /// When it was noticed, RFC 3339.
    pub at: String,
    /// What has happened, in a word.
    pub event: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What has happened, for a person.
    pub text: String,
    /// How it is now, in a word; null if nobody knows.
    pub verdict: Option<Verdict>,
    /// What stands in the way, if something does.
    pub incident: Option<Incident>,
}

impl Message {
    /// What was noticed at this time.
    #[must_use]
    pub fn new(name: &str, time: SystemTime, event: &'static str, level: Level, text: String) -> Self {
        let at = humantime::format_rfc3339_seconds(time).to_string();
        Self { name: name.to_owned(), host: host(), at, event, level, text, verdict: None, incident: None }
    }

    /// The body of the request to such a webhook.
    #[must_use]
    pub fn body(&self, webhook: &Webhook) -> Value {
        match webhook.format {
            Format::Json => json!(self),
            // Slack's own three characters of control.
            Format::Slack => {
                let text = self.line().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                json!({ "text": text })
            }
            Format::Telegram => json!({
                "chat_id": webhook.chat,
                "text": self.line(),
                "link_preview_options": { "is_disabled": true },
            }),
        }
    }

    /// What a command is told beside the JSON object on its input.
    #[must_use]
    pub fn variables(&self) -> Variables {
        vec![
            ("CDC_NAME", self.name.clone()),
            ("CDC_EVENT", self.event.to_owned()),
            ("CDC_LEVEL", self.level.as_str().to_owned()),
            ("CDC_TEXT", self.line()),
        ]
    }

    /// The text, with what it is about.
    #[must_use]
    pub fn line(&self) -> String {
        let mark = match self.level {
            Level::Alarm => "ALARM: ",
            Level::Over => "over: ",
            Level::Info => "",
        };
        let line = format!("cdc {} on {}: {mark}{}", self.name, self.host, self.text);
        match line.char_indices().nth(limits::NOTIFY_CHARS) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn message(text: &str) -> Message {
        Message {
            name: "salon".to_owned(),
            host: "vps".to_owned(),
            at: "2026-11-22T03:00:00Z".to_owned(),
            event: "blocked",
            level: Level::Alarm,
            text: text.to_owned(),
            verdict: Some(Verdict::Blocked),
            incident: None,
        }
    }

    fn body(format: &str, text: &str) -> Value {
        let text_of = format!("{BOTH}[notify]\nwebhook = \"https://h/x\"\n{format}\n");
        message(text).body(&load(&text_of, &Environment::empty()).unwrap().notify.webhook.unwrap())
    }

    #[test]
    fn each_service_is_sent_what_it_takes() {
        assert_eq!(
            body("format = \"json\"", "a < b"),
            json!({"name": "salon", "host": "vps", "at": "2026-11-22T03:00:00Z", "event": "blocked", "level": "alarm",
                   "text": "a < b", "verdict": "blocked", "incident": null})
        );
        assert_eq!(
            body("format = \"slack\"", "<!channel> a & b"),
            json!({"text": "cdc salon on vps: ALARM: &lt;!channel&gt; a &amp; b"})
        );
        assert_eq!(
            body("format = \"telegram\"\nchat = \"-100\"", "a_b"),
            json!({"chat_id": "-100", "text": "cdc salon on vps: ALARM: a_b",
                   "link_preview_options": {"is_disabled": true}})
        );
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let line = message(&"ё".repeat(5000)).line();
        assert_eq!((line.chars().count(), line.ends_with("ё…")), (limits::NOTIFY_CHARS + 1, true));
    }
}
