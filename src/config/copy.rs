//! `[copy]`: how rows that were there before are copied.

use serde::Deserialize;

use super::rate;
use crate::fault::{Fault, Result};
use crate::limits;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    readers: Option<usize>,
    max_rate: Option<toml::Value>,
}

/// How rows are copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyConfig {
    /// How many chunks are copied at a time; each has a session on either side.
    pub readers: usize,
    /// The most bytes a second that the whole copy reads; `None` without a limit.
    pub max_rate_bytes: Option<u64>,
}

impl CopyConfig {
    pub(super) fn new(section: &Section) -> Result<Self> {
        let readers = section.readers.unwrap_or(limits::COPY_READERS);
        if !(1..=limits::COPY_READERS_MOST).contains(&readers) {
            return Err(Fault::usage(format!(
                "[copy] readers: {readers} is not between 1 and {}",
                limits::COPY_READERS_MOST
            )));
        }
        Ok(Self {
            readers,
            max_rate_bytes: section
                .max_rate
                .as_ref()
                .map(|value| rate("[copy] max_rate", value))
                .transpose()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn copy(text: &str) -> Result<CopyConfig> {
        load(&format!("{BOTH}{text}"), &Environment::empty()).map(|config| config.copy)
    }

    #[test]
    fn four_readers_copy_without_a_limit_unless_told_otherwise() {
        assert_eq!(copy("").unwrap(), CopyConfig { readers: 4, max_rate_bytes: None });
        assert_eq!(copy("[copy]\nreaders = 32\n").unwrap().readers, 32);
        for (rate, bytes) in [
            ("\"20MB\"", 20_000_000),
            ("\"1.5 MiB\"", 1_572_864),
            ("\"65536\"", 65_536),
            ("20_000_000", 20_000_000),
        ] {
            let text = format!("[copy]\nmax_rate = {rate}\n");
            assert_eq!(copy(&text).unwrap().max_rate_bytes, Some(bytes), "{rate}");
        }
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        for (text, wanted) in [
            ("readers = 0", "between 1 and 32"),
            ("readers = 33", "between 1 and 32"),
            ("readers = -1", "line 4"),
            ("reader = 1", "unknown field `reader`"),
            ("max_rate = 0", "\"0\" is no rate"),
            ("max_rate = \"0.1B\"", "no rate"),
            ("max_rate = -5", "no rate"),
            ("max_rate = \"20MB/s\"", "write \"20MB\""),
            ("max_rate = true", "no rate"),
        ] {
            let fault = copy(&format!("[copy]\n{text}\n")).unwrap_err();
            assert_eq!(fault.reaction(), crate::fault::Reaction::Usage, "{text}");
            assert!(fault.to_string().contains(wanted), "{text}: {fault}");
        }
    }
}
