//! What of the source's entries is to be run on the target. Touches no socket.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::archive::Entry;
use super::objects::{Identity, Moved, There};
use super::report::{Object, Omission};
use crate::catalog::TableName;
use crate::config::Config;
use crate::schema::diff::{Difference, Kind, tokens};
use crate::schema::left_out::LeftOut;

/// Entries that are no object of a schema's: how the archive is to be read, the database itself, rows.
const NO_OBJECTS: &[&str] = &[
    "ENCODING",
    "STDSTRINGS",
    "SEARCHPATH",
    "DATABASE",
    "DATABASE PROPERTIES",
    "BLOB",
    "BLOBS",
    "BLOB METADATA",
    "LARGE OBJECT",
    "TABLE DATA",
    "SEQUENCE SET",
    "MATERIALIZED VIEW DATA",
];

/// Kinds that lock no table that others use, whatever they need.
const LOCK_NOTHING: &[&str] = &[
    "VIEW",
    "MATERIALIZED VIEW",
    "FUNCTION",
    "PROCEDURE",
    "AGGREGATE",
    "TYPE",
    "SHELL TYPE",
    "DOMAIN",
    "TABLE",
    "FOREIGN TABLE",
    "OPERATOR",
    "CAST",
];

/// One thing to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// What it is.
    pub(super) object: Object,
    /// The schema and name by which others refer to it.
    pub(super) name: TableName,
    /// Its oid in its catalog on the source.
    pub(super) oid: u32,
    pub(super) sql: String,
    /// The tables among those that it changes which were there before.
    pub(super) tables: BTreeSet<TableName>,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Settings under which the SQL is to be read.
    pub(super) settings: String,
    /// In an order in which they can be made.
    pub(super) steps: Vec<Step>,
    pub(super) omissions: Vec<Omission>,
}

/// What is known of both sides.
pub(super) struct Known<'a> {
    pub(super) config: &'a Config,
    pub(super) source: &'a HashMap<(u32, u32), Identity>,
    pub(super) moved: &'a Moved,
    pub(super) there: &'a There,
    /// Extensions that nothing of the user's needs.
    pub(super) unused: &'a HashSet<String>,
    /// What is added to objects that are there, by what mends it.
    pub(super) added: &'a [&'a Difference],
}

/// Decides.
pub(super) fn plan(entries: &[Entry], known: &Known<'_>, left_out: &mut LeftOut) -> Plan {
    let mut planner = Planner {
        known,
        left_out,
        tables: tables(entries),
        owned: entries.iter().filter(|e| e.kind == "SEQUENCE OWNED BY").map(name).collect(),
        needed: entries.iter().filter(|e| e.kind != "COMMENT").flat_map(|e| e.needs.clone()).collect(),
        coming: HashSet::new(),
        plan: Plan::default(),
    };
    known.added.iter().for_each(|difference| planner.add(difference));
    entries.iter().for_each(|entry| planner.take(entry));
    planner.plan
}

/// Only the entries about these tables (`schema.table`), and what they need but other tables.
pub(super) fn of_tables(mut entries: Vec<Entry>, wanted: &[String]) -> Vec<Entry> {
    let tables = tables(&entries);
    let mut kept: HashSet<i64> = HashSet::new();
    let mut schemas: HashSet<String> = HashSet::new();
    // What is needed comes before.
    for entry in entries.iter().rev() {
        let is_wanted = match tables.get(&entry.id) {
            Some(table) => wanted.contains(&table.to_string()),
            None => kept.contains(&entry.id),
        };
        if is_wanted {
            kept.insert(entry.id);
            kept.extend(&entry.needs);
            schemas.insert(entry.schema.clone());
        }
    }
    entries.retain(|entry| match (tables.get(&entry.id), entry.kind.as_str()) {
        (Some(table), _) => wanted.contains(&table.to_string()),
        (None, "SCHEMA") => schemas.contains(&entry.tag),
        (None, "STDSTRINGS") => true,
        (None, _) => kept.contains(&entry.id),
    });
    entries
}

/// The table that each entry is about, by the entry's number.
fn tables(entries: &[Entry]) -> BTreeMap<i64, TableName> {
    let mut tables = BTreeMap::new();
    for entry in entries {
        let own = matches!(entry.kind.as_str(), "TABLE" | "FOREIGN TABLE" | "VIEW" | "MATERIALIZED VIEW");
        let table = match own {
            true => Some(name(entry)),
            // A function or a type that needs a table is about none.
            false if LOCK_NOTHING.contains(&entry.kind.as_str()) => None,
            false => entry.needs.iter().find_map(|need| tables.get(need).cloned()),
        };
        if let Some(table) = table {
            tables.insert(entry.id, table);
        }
    }
    tables
}

fn name(entry: &Entry) -> TableName {
    TableName::new(&entry.schema, &entry.tag)
}

struct Planner<'a> {
    known: &'a Known<'a>,
    left_out: &'a mut LeftOut,
    tables: BTreeMap<i64, TableName>,
    /// Sequences that go with a column.
    owned: HashSet<TableName>,
    /// The entries that others need.
    needed: HashSet<i64>,
    /// The entries that are to be made.
    coming: HashSet<i64>,
    plan: Plan,
}

impl Planner<'_> {
    fn take(&mut self, entry: &Entry) {
        match entry.kind.as_str() {
            "STDSTRINGS" => self.plan.settings.push_str(&entry.sql),
            "COMMENT" if entry.tag.starts_with("DATABASE ") || entry.tag.starts_with("EXTENSION ") => {}
            "ACL" if entry.tag.starts_with("DATABASE ") => {}
            "ACL" if self.is_with_something(entry) => self.rights(entry),
            "DEFAULT ACL" if !self.is_there(entry) => self.rights(entry),
            "USER MAPPING" => self.omit(entry, "it holds a password, and is made by hand", true),
            "EXTENSION" if self.known.unused.contains(&entry.tag) && !self.needed.contains(&entry.id) => {}
            kind if NO_OBJECTS.contains(&kind) => {}
            _ if self.is_there(entry) || self.comes_with_a_column(entry) => {}
            _ => match self.not_selected(entry) {
                Some(why) => self.omit(entry, &why, true),
                None => self.step(entry, entry.sql.clone()),
            },
        }
    }

    /// Nothing is to be done for it: it is on the target, or what it goes with isn't made now.
    fn is_there(&self, entry: &Entry) -> bool {
        match entry.kind.as_str() {
            "TABLE ATTACH" | "INDEX ATTACH" => self.known.there.is_attached(&entry.schema, &entry.tag),
            "COMMENT" | "ACL" | "SEQUENCE OWNED BY" | "ROW SECURITY" => !self.is_with_something(entry),
            // The definition of a view that others go round in a circle with; there is one as soon as there is
            // the view.
            "RULE" if entry.sql.starts_with("CREATE OR REPLACE VIEW") => !self.is_with_something(entry),
            _ => self.known.source.get(&entry.object).is_some_and(|identity| self.known.there.has(identity)),
        }
    }

    /// What it goes with is made.
    fn is_with_something(&self, entry: &Entry) -> bool {
        entry.needs.iter().any(|need| self.coming.contains(need))
    }

    /// Parts go with their table, and a table that isn't selected is not among the entries.
    fn not_selected(&self, entry: &Entry) -> Option<String> {
        let name = name(entry);
        let is_named = !entry.schema.is_empty() || entry.kind == "SCHEMA";
        let is_part = match LOCK_NOTHING.contains(&entry.kind.as_str()) {
            true => matches!(entry.kind.as_str(), "TABLE" | "FOREIGN TABLE"),
            false => self.tables.contains_key(&entry.id) || self.owned.contains(&name),
        };
        if entry.kind == "SCHEMA" || !is_named || is_part {
            return None;
        }
        let plain = entry.tag.split('(').next().unwrap_or_default();
        LeftOut::configured(self.known.config, &TableName::new(&entry.schema, plain))
    }

    /// A column, the labels of an enum, the owner of a sequence.
    fn add(&mut self, difference: &Difference) {
        let table = tokens::qualified_names(&difference.mend.concat()).into_iter().next();
        let table = table.filter(|_| difference.kind == Kind::Column);
        self.plan.steps.push(Step {
            object: Object { kind: difference.kind.as_str().to_owned(), name: difference.name.clone() },
            name: TableName::new("", &difference.name),
            oid: 0,
            sql: difference.mend.iter().map(|sql| format!("{sql};\n")).collect(),
            tables: table.map(|(schema, name)| TableName::new(schema, name)).into_iter().collect(),
        });
    }

    /// A default, an identity: a column that is added comes with it.
    fn comes_with_a_column(&self, entry: &Entry) -> bool {
        let Some(table) = self.tables.get(&entry.id) else { return false };
        self.known.added.iter().filter(|added| added.kind == Kind::Column).any(|added| {
            let (parent, column) = tokens::last_name(&added.name);
            tokens::qualified_names(parent).contains(&(table.schema.clone(), table.name.clone()))
                && entry.sql.contains(&format!(" ALTER COLUMN {column} "))
        })
    }

    fn omit(&mut self, entry: &Entry, why: &str, is_on_purpose: bool) {
        self.left_out.add(&entry.schema, &entry.tag, why);
        let object = Object::of(entry);
        self.plan.omissions.push(Omission { object, why: why.to_owned(), is_on_purpose, sqlstate: None });
    }

    fn step(&mut self, entry: &Entry, sql: String) {
        self.coming.insert(entry.id);
        let sql = match entry.kind.as_str() {
            // Every database has had one once.
            "SCHEMA" if sql.starts_with("--") => format!("CREATE SCHEMA {};", quoted(&entry.tag)),
            "EXTENSION" => self.in_its_schema(sql),
            _ => tokens::relocate(&sql, self.known.moved),
        };
        let locks = !LOCK_NOTHING.contains(&entry.kind.as_str());
        let about = entry.needs.iter().filter_map(|need| self.tables.get(need));
        let tables = about.filter(|table| locks && self.known.there.has_table(table)).cloned();
        self.plan.steps.push(Step {
            tables: tables.collect(),
            object: Object::of(entry),
            name: name(entry),
            oid: entry.object.1,
            sql,
        });
    }

    /// Statement by statement: one that names a role which isn't there doesn't keep the others from being run.
    fn rights(&mut self, entry: &Entry) {
        let mine = self.known.config.source.user();
        let of_owner = format!("FOR ROLE {} ", quoted(mine));
        for statement in tokens::statements(&entry.sql) {
            // What the owner has of its own, its heir has; and what it has given, the heir gives.
            if statement.starts_with("SET SESSION") || statement.starts_with("RESET SESSION") {
                continue;
            }
            let statement = statement.replacen(&of_owner, "", 1);
            let grantor = statement.split_once("FOR ROLE ").map(|(_, rest)| rest);
            let grantor = grantor.and_then(|rest| tokens::words(rest).into_iter().next());
            let roles = tokens::roles(&statement);
            if roles.contains(&entry.owner) {
                continue;
            }
            match roles.iter().chain(&grantor).find(|role| !self.known.there.has_role(role)) {
                Some(role) => self.role_is_missing(role),
                None => self.step(entry, statement + ";"),
            }
        }
    }

    /// Its schema can be one of the provider's, which are not among the entries.
    fn in_its_schema(&self, sql: String) -> String {
        let schema = tokens::words(&sql).pop().unwrap_or_default();
        match self.known.there.has_schema(&schema) {
            true => sql,
            false => format!("CREATE SCHEMA IF NOT EXISTS {};\n{sql}", quoted(&schema)),
        }
    }

    /// Once for each.
    fn role_is_missing(&mut self, role: &str) {
        let is_on_purpose = crate::provider::INTERNAL_ROLES.contains(&role);
        let object = Object { kind: "grants".to_owned(), name: format!("of {role}") };
        if !self.plan.omissions.iter().any(|omission| omission.object == object) {
            let why = format!("there is no role {role} on the target");
            self.plan.omissions.push(Omission { object, why, is_on_purpose, sqlstate: None });
        }
    }
}

/// As `pg_dump` quotes it: only if it must.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { crate::catalog::quote_identifier(name) }
}
