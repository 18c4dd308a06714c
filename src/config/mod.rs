//! The configuration: a TOML file, variables and arguments become one validated [`Config`].
//!
//! Nothing is connected to here; what is wrong is refused before anything is touched.

mod copy;
mod cutover;
mod direction;
mod http;
mod notify;
mod pattern;
mod schema;
mod tables;
mod verify;

pub use copy::CopyConfig;
pub use cutover::{CutoverConfig, InPause, PgBouncer};
pub use direction::Direction;
pub use http::HttpConfig;
pub use notify::{Format, NotifyConfig, Webhook};
pub use schema::{Ddl, SchemaConfig};
pub use tables::{ExistingRows, Selection, Tables};
pub use verify::VerifyConfig;

use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use serde::Deserialize;

use crate::connect::{ConnInfo, Environment};
use crate::fault::{Fault, Result, Side};

/// The longest name of a migration: `cdcback_<name>_insert` has to fit into 63 bytes.
const NAME_BYTES: usize = 48;

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The migration's name.
    pub name: String,
    /// Where rows are read.
    pub source: ConnInfo,
    /// Where rows are applied.
    pub target: ConnInfo,
    /// Which way that is: in reverse the two are not as the file names them.
    pub direction: Direction,
    /// Which tables.
    pub tables: Tables,
    /// What of the source's schema is made on the target.
    pub schema: SchemaConfig,
    /// How rows that were there before are copied.
    pub copy: CopyConfig,
    /// When the daemon verifies by itself.
    pub verify: VerifyConfig,
    /// How the switch goes.
    pub cutover: CutoverConfig,
    /// Where the daemon tells how it is.
    pub http: HttpConfig,
    /// Whom the daemon tells what has happened.
    pub notify: NotifyConfig,
}

impl Config {
    /// The slot's name, also that of the publication.
    #[must_use]
    pub fn slot(&self) -> String {
        format!("{}_{}", self.direction.prefix(), self.name)
    }

    /// The name of the publication of tables that are published for INSERT and TRUNCATE only.
    #[must_use]
    pub fn insert_only_publication(&self) -> String {
        format!("{}_insert", self.slot())
    }

    /// The same migration in this direction: what is read from and what is written to, and the names of what is made
    /// for it, are that one's. Nothing else of the code knows two directions.
    #[must_use]
    pub fn facing(&self, direction: Direction) -> Self {
        let mut config = self.clone();
        if direction != self.direction {
            std::mem::swap(&mut config.source, &mut config.target);
            config.direction = direction;
            // What that is, its own ledger knows.
            config.tables.left_alone.clear();
        }
        config
    }

    /// The database that knows which way the rows go, whichever it is: the target that the file names.
    #[must_use]
    pub fn home(&self) -> (&ConnInfo, Side) {
        match self.direction {
            Direction::Forward => (&self.target, Side::Target),
            Direction::Reverse => (&self.source, Side::Source),
        }
    }
}

/// What the command line says about the configuration.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// `--config`.
    pub file: Option<PathBuf>,
    /// `--name`.
    pub name: Option<String>,
    /// `--source`.
    pub source: Option<String>,
    /// `--target`.
    pub target: Option<String>,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: Option<String>,
    source: Option<String>,
    source_file: Option<PathBuf>,
    source_credential: Option<String>,
    target: Option<String>,
    target_file: Option<PathBuf>,
    target_credential: Option<String>,
    #[serde(default)]
    ddl: Ddl,
    #[serde(default)]
    tables: tables::Section,
    #[serde(default)]
    schema: schema::Section,
    #[serde(default)]
    copy: copy::Section,
    #[serde(default)]
    verify: verify::Section,
    #[serde(default)]
    cutover: cutover::Section,
    #[serde(default)]
    http: http::Section,
    #[serde(default)]
    notify: notify::Section,
}

impl Config {
    /// Reads the configuration: arguments before variables before the file.
    ///
    /// The file is `--config`, `$CDC_CONFIG`, `./cdc.toml` or `/etc/cdc/cdc.toml`. With both
    /// connection strings given elsewhere, none is needed.
    ///
    /// # Errors
    /// A usage fault that names the key or the variable.
    pub fn load(arguments: &Arguments, environment: &Environment) -> Result<Self> {
        for (option, value) in [("--source", &arguments.source), ("--target", &arguments.target)] {
            if value.as_ref().is_some_and(|text| ConnInfo::has_password(text)) {
                return Err(Fault::usage(format!("{option} contains a password, which every user of this host can see"))
                    .remedy(
                        "put the connection string into the configuration file or into CDC_SOURCE_URL / CDC_TARGET_URL, \
                         or the password into a passfile (~/.pgpass)",
                    ));
            }
        }
        let path = find_file(arguments, environment)?;
        let text = match &path {
            Some(path) => std::fs::read_to_string(path).map_err(|e| {
                Fault::usage(format!("the configuration {} can't be read: {e}", path.display()))
            })?,
            None => String::new(),
        };
        Self::from_text(&text, path.as_deref(), arguments, environment)
    }

    /// As [`Config::load`], with the file's text as it was read from `path`.
    ///
    /// # Errors
    /// A usage fault that names the key or the variable.
    pub fn from_text(
        text: &str,
        path: Option<&Path>,
        arguments: &Arguments,
        environment: &Environment,
    ) -> Result<Self> {
        let file = parse_file(text, path)?;
        let variable = environment.variable("CDC_NAME")?.map(str::to_owned);
        let name = arguments.name.clone().or(variable).or(file.name).unwrap_or_else(|| "default".to_owned());
        check_name(&name)?;
        let source = Setting {
            side: Side::Source,
            argument: arguments.source.clone(),
            inline: file.source,
            file: file.source_file,
            credential: file.source_credential,
        };
        let target = Setting {
            side: Side::Target,
            argument: arguments.target.clone(),
            inline: file.target,
            file: file.target_file,
            credential: file.target_credential,
        };
        Ok(Self {
            name,
            source: source.resolve(environment, path)?,
            target: target.resolve(environment, path)?,
            direction: Direction::Forward,
            tables: Tables::new(&file.tables)?,
            schema: SchemaConfig::new(&file.schema, file.ddl)?,
            copy: CopyConfig::new(&file.copy)?,
            verify: VerifyConfig::new(&file.verify)?,
            cutover: CutoverConfig::new(file.cutover, environment)?,
            http: HttpConfig::new(&file.http)?,
            notify: NotifyConfig::new(file.notify)?,
        })
    }
}

fn find_file(arguments: &Arguments, environment: &Environment) -> Result<Option<PathBuf>> {
    let variable = environment.variable("CDC_CONFIG")?.map(PathBuf::from);
    let usual = || ["cdc.toml", "/etc/cdc/cdc.toml"].iter().map(PathBuf::from).find(|path| path.exists());
    Ok(arguments.file.clone().or(variable).or_else(usual))
}

fn parse_file(text: &str, path: Option<&Path>) -> Result<File> {
    toml::from_str(text).map_err(|e: toml::de::Error| {
        let start = e.span().map_or(0, |span| span.start);
        let line = text.bytes().take(start).filter(|byte| *byte == b'\n').count() + 1;
        Fault::usage(format!(
            "the configuration {}, line {line}: {}",
            path.unwrap_or(Path::new("")).display(),
            without_values(e.message())
        ))
    })
}

/// An error's text without the strings that it quotes: they can hold a password, as the line itself
/// can, which is why that isn't shown either.
fn without_values(message: &str) -> String {
    message.split('"').enumerate().map(|(i, part)| if i % 2 == 0 { part } else { "..." }).collect()
}

/// A rate in bytes per second: a number, or a text like "20MB".
fn rate(key: &str, value: &toml::Value) -> Result<u64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.parse() {
        Ok(ByteSize(bytes)) if bytes > 0 => Ok(bytes),
        Ok(_) | Err(_) => Err(Fault::usage(format!("{key}: {text:?} is no rate in bytes per second"))
            .remedy("write \"20MB\" or 20000000, for example, or leave it out")),
    }
}

fn check_name(name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if name.is_empty() || name.len() > NAME_BYTES || !name.bytes().all(fits) {
        return Err(Fault::usage(format!(
            "the name {name:?} can't be part of a replication slot's name: use 1 to {NAME_BYTES} lower-case letters, \
             digits and underscores"
        )));
    }
    Ok(())
}

/// Where one connection string may come from.
struct Setting {
    side: Side,
    argument: Option<String>,
    inline: Option<String>,
    file: Option<PathBuf>,
    credential: Option<String>,
}

impl Setting {
    fn resolve(self, environment: &Environment, config: Option<&Path>) -> Result<ConnInfo> {
        let side = self.side;
        let variable = format!("CDC_{}_URL", side.to_string().to_uppercase());
        let text = match self.argument.or(environment.variable(&variable)?.map(str::to_owned)) {
            Some(text) => text,
            None => match (self.inline, self.file, self.credential) {
                (Some(text), None, None) => text,
                (None, Some(path), None) => read_secret(side, &path)?,
                (None, None, Some(name)) => {
                    let directory = environment.variable("CREDENTIALS_DIRECTORY")?.ok_or_else(|| {
                        Fault::usage(format!(
                            "{side}_credential is set, but systemd has passed no credentials"
                        ))
                        .remedy(format!("add LoadCredential={name}:FILE to the unit, or use {side}_file"))
                    })?;
                    read_secret(side, &Path::new(directory).join(name))?
                }
                (None, None, None) => {
                    let where_ =
                        config.map_or("a configuration file".to_owned(), |path| path.display().to_string());
                    return Err(Fault::usage(format!("no {side} database is given"))
                        .remedy(format!("set {variable}, or {side} = \"postgres://...\" in {where_}")));
                }
                _ => {
                    return Err(Fault::usage(format!(
                        "more than one of {side}, {side}_file and {side}_credential is set; keep one"
                    )));
                }
            },
        };
        ConnInfo::parse(text.trim(), environment).map_err(|fault| fault.on(side))
    }
}

fn read_secret(side: Side, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        Fault::usage(format!("the {side}'s connection string can't be read from {}: {e}", path.display()))
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Loads a file of this text.
    pub(crate) fn load(text: &str, environment: &Environment) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let arguments = Arguments { file: Some(file.path().to_owned()), ..Arguments::default() };
        Config::load(&arguments, environment)
    }

    pub(crate) const BOTH: &str = "source = \"postgres://a@s/d\"\ntarget = \"postgres://a@t/d\"\n";

    #[test]
    fn variables_come_before_the_file_and_arguments_before_both() {
        let environment =
            Environment::empty().set("CDC_NAME", "second").set("CDC_SOURCE_URL", "postgres://b@s2/d2");
        let config = load(&format!("name = \"first\"\n{BOTH}"), &environment).unwrap();
        assert_eq!(
            (config.name.as_str(), config.source.dbname(), config.target.dbname()),
            ("second", "d2", "d")
        );
        let arguments = Arguments {
            name: Some("third".into()),
            source: Some("host=s3 user=c dbname=d3".into()),
            target: Some("host=t3 user=c dbname=d3".into()),
            file: None,
        };
        let config = Config::load(&arguments, &environment).unwrap();
        assert_eq!((config.slot().as_str(), config.source.dbname()), ("cdc_third", "d3"));
        assert_eq!(config.insert_only_publication(), "cdc_third_insert");
    }

    #[test]
    fn the_other_direction_has_the_ends_swapped_and_names_of_its_own() {
        let config = load(
            "name = \"a\"\nsource = \"postgres://u@s/d\"\ntarget = \"postgres://u@t/d\"\n",
            &Environment::empty(),
        );
        let config = config.unwrap();
        let back = config.facing(Direction::Reverse);
        assert_eq!(
            (back.source.to_string(), back.target.to_string()),
            (config.target.to_string(), config.source.to_string())
        );
        assert_eq!(
            (back.slot().as_str(), back.insert_only_publication().as_str()),
            ("cdcback_a", "cdcback_a_insert")
        );
        assert_eq!((config.home().0.to_string(), config.home().1), (config.target.to_string(), Side::Target));
        assert_eq!((back.home().0.to_string(), back.home().1), (config.target.to_string(), Side::Source));
        let again = back.facing(Direction::Forward);
        assert_eq!((again.source.to_string(), again.slot()), (config.source.to_string(), config.slot()));
        assert_eq!(again.facing(Direction::Forward).source.to_string(), config.source.to_string());
    }

    #[test]
    fn connection_strings_can_come_from_files_and_credentials() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("source-url"), "postgres://a:pw@s/fromcredential\n").unwrap();
        let target = directory.path().join("target-url");
        std::fs::write(&target, "postgres://a:pw@t/fromfile").unwrap();
        let environment = Environment::empty().set("CREDENTIALS_DIRECTORY", directory.path());
        let text = format!("source_credential = \"source-url\"\ntarget_file = {:?}\n", target);
        let config = load(&text, &environment).unwrap();
        assert_eq!((config.source.dbname(), config.target.dbname()), ("fromcredential", "fromfile"));
        let fault = load(&text, &Environment::empty()).unwrap_err();
        assert!(fault.to_string().contains("LoadCredential"), "{fault}");
    }

    #[test]
    fn bad_configurations_are_refused_with_their_place_and_without_their_secrets() {
        let cases = [
            ("source = \"postgres://a:s3cret@s/d\"\n".to_owned(), "no target database is given"),
            (format!("{BOTH}sorce = 1\n"), "line 3: unknown field `sorce`"),
            (format!("{BOTH}[tables]\nincluded = []\n"), "line 4: unknown field `included`"),
            (format!("{BOTH}[tables]\nexisting_rows = \"keep\"\n"), "line 4: unknown variant `keep`"),
            (format!("{BOTH}name = \"Upper\"\n"), "lower-case"),
            (format!("name = \"{}\"\n{BOTH}", "a".repeat(49)), "1 to 48"),
            (format!("{BOTH}source_file = \"/x\"\n"), "keep one"),
            (format!("{BOTH}[tables]\ninclude = [\"users\"]\n"), "public.users"),
            ("source = \"postgres://a:s3cret@s/d\ntarget = 1\n".to_owned(), "line 1"),
            ("name = \"a\"\ntables = \"postgres://a:s3cret@s/d\"\n".to_owned(), "line 2: invalid type"),
            ("source = \"postgres://a:s3cret@s:port/d\"\ntarget = \"postgres://t\"\n".to_owned(), "source"),
        ];
        for (text, wanted) in cases {
            let fault = load(&text, &Environment::empty()).unwrap_err();
            assert_eq!(fault.reaction(), crate::fault::Reaction::Usage, "{text}");
            assert!(fault.to_string().contains(wanted), "{text}: {fault}");
            assert!(!fault.to_string().contains("s3cret"), "{fault}");
        }
    }

    #[test]
    fn a_password_in_an_argument_is_refused() {
        for source in ["postgres://a:s3cret@s/d", "host=s password=s3cret"] {
            let arguments = Arguments { source: Some(source.into()), ..Arguments::default() };
            let fault = Config::load(&arguments, &Environment::empty()).unwrap_err();
            assert!(fault.to_string().contains("--source"), "{fault}");
            assert!(!fault.to_string().contains("s3cret"), "{fault}");
        }
    }
}
