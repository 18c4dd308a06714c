//! `[http]`: where the daemon serves its status page, its metrics and its health.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::fault::{Fault, Result};
use crate::limits;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    listen: Option<String>,
}

/// Where the daemon tells how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The address; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

impl HttpConfig {
    pub(super) fn new(section: &Section) -> Result<Self> {
        let listen = match section.listen.as_deref() {
            None => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, limits::HTTP_PORT))),
            Some("off") => None,
            Some(text) => Some(text.parse().map_err(|_| {
                Fault::usage(format!("[http] listen: {text:?} is no address with a port")).remedy(format!(
                    "write \"127.0.0.1:{port}\" or \"[::1]:{port}\", for example, or \"off\"",
                    port = limits::HTTP_PORT
                ))
            })?),
        };
        Ok(Self { listen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn listen(text: &str) -> Result<Option<String>> {
        let config = load(&format!("{BOTH}{text}"), &Environment::empty())?;
        Ok(config.http.listen.map(|address| address.to_string()))
    }

    #[test]
    fn it_listens_on_this_host_only_unless_told_otherwise() {
        assert_eq!(listen("").unwrap().as_deref(), Some("127.0.0.1:7432"));
        assert_eq!(listen("[http]\n").unwrap().as_deref(), Some("127.0.0.1:7432"));
        assert_eq!(listen("[http]\nlisten = \"off\"\n").unwrap(), None);
        for address in ["0.0.0.0:80", "[::]:7432", "10.1.2.3:9000"] {
            assert_eq!(listen(&format!("[http]\nlisten = {address:?}\n")).unwrap().as_deref(), Some(address));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, wanted) in [
            ("listen = \"localhost:7432\"", "no address with a port"),
            ("listen = \"7432\"", "write \"127.0.0.1:7432\""),
            ("listen = 7432", "line 4"),
            ("port = 7432", "unknown field `port`"),
        ] {
            let fault = listen(&format!("[http]\n{text}\n")).unwrap_err();
            assert_eq!(fault.reaction(), crate::fault::Reaction::Usage, "{text}");
            assert!(fault.to_string().contains(wanted), "{text}: {fault}");
        }
    }
}
