//! `[notify]`: whom the daemon tells what has happened.

use std::time::Duration;

use hyper::Uri;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::fault::{Fault, Result};
use crate::limits;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    webhook: Option<String>,
    format: Option<Format>,
    chat: Option<toml::Value>,
    command: Option<String>,
    calm: Option<String>,
    every: Option<String>,
}

/// The shape of what a webhook is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// An object with everything in it.
    #[default]
    Json,
    /// What an incoming webhook of Slack takes, and of what imitates it (Mattermost, Rocket.Chat).
    Slack,
    /// What `sendMessage` of Telegram's bots takes.
    Telegram,
}

/// Where messages are sent. The address is a secret: those of Slack and Telegram have a token in it.
#[derive(Clone, Debug)]
pub struct Webhook {
    url: SecretString,
    /// What of the address may be shown: where it is.
    shown: String,
    /// In which shape.
    pub format: Format,
    /// The chat that Telegram's bot writes to.
    pub chat: Option<String>,
}

/// Whom the daemon tells.
#[derive(Clone, Debug)]
pub struct NotifyConfig {
    /// The webhook.
    pub webhook: Option<Webhook>,
    /// A command for a shell, which is given the same JSON object.
    pub command: Option<String>,
    /// How long the same kind of trouble isn't told again: what comes and goes is summed up.
    pub calm: Duration,
    /// How often it is told how it goes; `None`: only when something happens.
    pub every: Option<Duration>,
}

impl Webhook {
    /// The address, for whoever connects to it.
    #[must_use]
    pub fn uri(&self) -> Uri {
        // It was looked at when it was read.
        self.url.expose_secret().parse().unwrap_or_default()
    }

    /// What of the address may be shown.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// A text that may be shown, whatever it was made from.
    #[must_use]
    pub fn without_secret(&self, text: &str) -> String {
        let uri = self.uri();
        let hidden = [
            Some(self.url.expose_secret()),
            uri.path_and_query().map(|path| path.as_str()),
            Some(uri.path()),
        ];
        hidden
            .into_iter()
            .flatten()
            .filter(|part| part.len() > 1)
            .fold(text.to_owned(), |text, part| text.replace(part, "/..."))
    }
}

impl NotifyConfig {
    pub(super) fn new(section: Section) -> Result<Self> {
        let every = section.every.as_deref().map(|text| duration("every", text, limits::NOTIFY_EVERY_LEAST));
        let calm = section.calm.as_deref().map(|text| duration("calm", text, Duration::ZERO));
        Ok(Self {
            webhook: webhook(section.webhook, section.format, section.chat)?,
            command: section.command,
            calm: calm.unwrap_or(Ok(limits::NOTIFY_CALM))?,
            every: every.transpose()?,
        })
    }

    /// True if there is somebody to tell.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.webhook.is_some() || self.command.is_some()
    }
}

fn webhook(
    url: Option<String>,
    format: Option<Format>,
    chat: Option<toml::Value>,
) -> Result<Option<Webhook>> {
    let Some(url) = url else {
        let needless = [("format", format.is_some()), ("chat", chat.is_some())];
        return match needless.into_iter().find(|(_, is_there)| *is_there) {
            Some((key, _)) => {
                Err(Fault::usage(format!("[notify] {key}: there is no webhook that it is for")))
            }
            None => Ok(None),
        };
    };
    // Never said what it is: there is a token in it.
    let uri: Uri = url.trim().parse().map_err(|_| wrong_webhook("it is no URL"))?;
    let shown = match (uri.scheme_str(), uri.authority()) {
        (Some(scheme @ ("http" | "https")), Some(authority)) if !authority.as_str().contains('@') => {
            format!("{scheme}://{authority}/...")
        }
        (Some("http" | "https"), Some(_)) => {
            return Err(wrong_webhook("a user and a password in it are not supported"));
        }
        _ => return Err(wrong_webhook("it is no URL of https or http")),
    };
    let format = format.unwrap_or_default();
    // The number of a group is written without quotes, too.
    let chat = chat.map(|chat| chat.as_str().map_or_else(|| chat.to_string(), str::to_owned));
    match (format, &chat) {
        (Format::Telegram, None) => {
            return Err(Fault::usage(
                "[notify] chat: Telegram's format needs the chat that the bot writes to",
            )
            .remedy(
                "write chat = \"-1001234567890\", the number of a chat or group, or \"@name\" of a channel",
            ));
        }
        (Format::Json | Format::Slack, Some(_)) => {
            return Err(Fault::usage("[notify] chat: only the format \"telegram\" has one"));
        }
        _ => {}
    }
    Ok(Some(Webhook { url: url.trim().into(), shown, format, chat }))
}

fn wrong_webhook(why: &str) -> Fault {
    Fault::usage(format!("[notify] webhook: {why}"))
        .remedy("write webhook = \"https://hooks.example.com/...\", as its service gives it")
}

fn duration(key: &str, text: &str, least: Duration) -> Result<Duration> {
    match humantime::parse_duration(text) {
        Ok(time) if time >= least => Ok(time),
        Ok(_) | Err(_) => {
            let least = humantime::format_duration(least);
            Err(Fault::usage(format!("[notify] {key}: {text:?} is no time of at least {least}"))
                .remedy("write \"30m\", for example, or leave it out"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn notify(text: &str) -> Result<NotifyConfig> {
        load(&format!("{BOTH}[notify]\n{text}"), &Environment::empty()).map(|config| config.notify)
    }

    #[test]
    fn nobody_is_told_unless_the_configuration_says_whom() {
        let nobody = notify("").unwrap();
        assert!(!nobody.tells() && nobody.every.is_none() && nobody.calm == limits::NOTIFY_CALM);
        assert!(notify("command = \"true\"\n").unwrap().tells());
        let telegram = "webhook = \"https://api.telegram.org/bot12:s3cret/sendMessage\"\nformat = \"telegram\"\nchat = -100\n";
        let config = notify(&format!("{telegram}every = \"30m\"\ncalm = \"0s\"\n")).unwrap();
        let webhook = config.webhook.as_ref().unwrap();
        assert_eq!((webhook.format, webhook.chat.as_deref()), (Format::Telegram, Some("-100")));
        assert_eq!((config.every, config.calm), (Some(Duration::from_secs(1800)), Duration::ZERO));
        assert_eq!(webhook.uri().path(), "/bot12:s3cret/sendMessage");
    }

    #[test]
    fn of_the_address_nothing_is_shown_but_where_it_is() {
        let config =
            notify("webhook = \"https://hooks.slack.com:8443/services/T0/s3cret?key=s3cret\"\n").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        let webhook = config.webhook.unwrap();
        assert_eq!(webhook.shown(), "https://hooks.slack.com:8443/...");
        let said =
            "no service at https://hooks.slack.com:8443/services/T0/s3cret?key=s3cret or /services/T0/s3cret";
        assert_eq!(webhook.without_secret(said), "no service at /... or /...");
    }

    #[test]
    fn what_makes_no_sense_is_refused_without_showing_the_address() {
        for (text, wanted) in [
            ("webhook = \"hooks.example.com/s3cret\"", "it is no URL"),
            ("webhook = \"ftp://hooks.example.com/s3cret\"", "no URL of https or http"),
            ("webhook = \"https://u:s3cret@example.com/\"", "a user and a password"),
            ("webhook = \"https://h/s3cret\"\nformat = \"telegram\"", "needs the chat"),
            ("webhook = \"https://h/s3cret\"\nformat = \"xml\"", "unknown variant `xml`"),
            ("webhook = \"https://h/s3cret\"\nchat = \"1\"", "only the format"),
            ("format = \"slack\"", "there is no webhook"),
            ("command = \"true\"\nevery = \"0s\"", "no time of at least"),
            ("calm = \"long\"", "[notify] calm: \"long\" is no time"),
            ("mail = \"a@b\"", "unknown field `mail`"),
        ] {
            let fault = notify(&format!("{text}\n")).unwrap_err();
            assert_eq!(fault.reaction(), crate::fault::Reaction::Usage, "{text}");
            assert!(
                fault.to_string().contains(wanted) && !fault.to_string().contains("s3cret"),
                "{text}: {fault}"
            );
        }
    }
}
