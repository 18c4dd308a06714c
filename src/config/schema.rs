//! `[schema]` and `ddl`: what of the source's schema is made on the target.

use serde::Deserialize;

use super::pattern::Pattern;
use crate::catalog::TableName;
use crate::fault::Result;

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Section {
    copy: Option<bool>,
    include: Option<Vec<String>>,
    #[serde(default)]
    exclude: Vec<String>,
    #[serde(default)]
    stand_ins: bool,
}

/// Which changes of the source's schema are made on the target while it streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ddl {
    /// Those that add something and lose nothing; the others stop the stream.
    #[default]
    Additive,
    /// None: the stream stops, and says what is to be run.
    None,
}

/// What of the source's schema is made on the target.
#[derive(Clone, Debug)]
pub struct SchemaConfig {
    /// The first start makes what the target lacks.
    pub copy: bool,
    /// Stand-ins are made for those parts of the provider that the schema refers to.
    pub stand_ins: bool,
    /// Which changes of the schema are made while it streams.
    pub ddl: Ddl,
    include: Vec<Pattern>,
    exclude: Vec<Pattern>,
}

impl SchemaConfig {
    pub(super) fn new(section: &Section, ddl: Ddl) -> Result<Self> {
        let patterns = |key: &str, texts: &[String]| -> Result<Vec<Pattern>> {
            texts.iter().map(|text| Pattern::new(&format!("[schema] {key}"), text)).collect()
        };
        let everything = ["*.*".to_owned()];
        Ok(Self {
            copy: section.copy.unwrap_or(true),
            stand_ins: section.stand_ins,
            ddl,
            include: patterns("include", section.include.as_deref().unwrap_or(&everything))?,
            exclude: patterns("exclude", &section.exclude)?,
        })
    }

    /// True if an object of this name is to be made. Which tables are, `[tables]` says too.
    #[must_use]
    pub fn selects(&self, name: &TableName) -> bool {
        let matches = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        matches(&self.include) && !matches(&self.exclude)
    }

    /// True if anything in this schema can be selected.
    #[must_use]
    pub fn selects_schema(&self, schema: &str) -> bool {
        self.include.iter().any(|pattern| pattern.matches_schema(schema))
            && !self.exclude.iter().any(|pattern| pattern.matches_all_of(schema))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{BOTH, load};
    use crate::connect::Environment;

    fn schema(text: &str) -> Result<SchemaConfig> {
        load(&format!("{BOTH}{text}"), &Environment::empty()).map(|config| config.schema)
    }

    #[test]
    fn everything_is_copied_and_additions_follow_unless_told_otherwise() {
        let schema = schema("").unwrap();
        assert!(schema.copy && !schema.stand_ins);
        assert_eq!(schema.ddl, Ddl::Additive);
        assert!(schema.selects(&TableName::new("any", "thing")));
    }

    #[test]
    fn patterns_select_objects() {
        let text = "[schema]\ncopy = false\nstand_ins = true\ninclude = [\"public.*\", \"crm.*\"]\nexclude = [\"*.old_*\"]\n";
        let schema = schema(text).unwrap();
        assert!(!schema.copy && schema.stand_ins);
        for (name, is_selected) in [("public.a", true), ("crm.old_a", false), ("other.a", false)] {
            let (namespace, name) = name.split_once('.').unwrap();
            assert_eq!(schema.selects(&TableName::new(namespace, name)), is_selected, "{namespace}.{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (text, wanted) in [
            ("ddl = \"all\"\n", "unknown variant"),
            ("[schema]\nexclude = [\"legacy\"]\n", "[schema] exclude: \"legacy\" is no pattern"),
            ("[schema]\ncopy = \"yes\"\n", "line 4"),
        ] {
            let fault = schema(text).unwrap_err();
            assert!(fault.to_string().contains(wanted), "{text}: {fault}");
        }
        assert_eq!(schema("ddl = \"none\"\n").unwrap().ddl, Ddl::None);
    }
}
