//! The messages that the README explains are those that `cdc` says.

use std::fs;
use std::path::Path;

/// Every line of the sources, with string literals that go on in the next line put together.
fn sources(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).expect("it can be read") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("it is text");
            let mut pieces = source.split("\\\n");
            text.push_str(pieces.next().unwrap_or_default());
            pieces.for_each(|piece| text.push_str(piece.trim_start()));
        }
    }
}

/// The quoted messages in the first column of the README's tables of messages.
fn explained(readme: &str) -> Vec<&str> {
    let (_, section) = readme.split_once("### Troubleshooting by message").expect("it has the section");
    let (section, _) = section.split_once("\n## ").expect("another one follows");
    let (_, tables) = section.split_once("\nAt the start").expect("it begins with the start");
    let cells =
        tables.lines().filter_map(|line| line.strip_prefix("| ")).filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_message_that_the_readme_explains_is_one_that_the_sources_say() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("it is there");
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    // `...` stands for what differs.
    let is_said = |message: &&str| {
        text.lines().any(|line| {
            let mut rest = Some(line);
            message
                .split("...")
                .for_each(|part| rest = rest.and_then(|r| r.split_once(part)).map(|(_, after)| after));
            rest.is_some()
        })
    };
    let explained = explained(&readme);
    assert!(explained.len() > 50, "{explained:?}");
    let unsaid: Vec<_> = explained.into_iter().filter(|message| !is_said(message)).collect();
    assert!(unsaid.is_empty(), "the sources say none of {unsaid:#?}");
}
