//! A configuration file of any text.

#![no_main]

use cdc::config::{Arguments, Config};
use cdc::connect::{ConnInfo, Environment};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    // A file that it names is read; none that never ends.
    if text.contains("/dev") {
        return;
    }
    match Config::from_text(text, None, &Arguments::default(), &Environment::empty()) {
        Ok(config) => {
            assert!(config.insert_only_publication().len() <= 63);
            for end in [&config.source, &config.target] {
                assert!(!end.hosts().is_empty() && !end.user().is_empty() && !end.dbname().is_empty());
            }
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
    // What is seldom reached through a whole file.
    let _ = ConnInfo::has_password(text);
    let _ = ConnInfo::parse(text, &Environment::empty());
});
