//! What of the source's entries is to be run on the target. Touches no socket.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::archive::Entry;
use super::objects::{Identity, Moved, There};
use super::report::{Object, Omission};
use crate::catalog::TableName;
use crate::config::Config;
use crate::schema::Scope;
use crate::schema::diff::{Difference, Kind, tokens};

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
    pub(super) scope: &'a Scope,
    /// The provider's roles on the source.
    pub(super) providers: &'a [String],
    pub(super) source: &'a HashMap<(u32, u32), Identity>,
    pub(super) moved: &'a Moved,
    pub(super) there: &'a There,
    /// The target's `server_version_num`.
    pub(super) target_version: u32,
    /// Extensions that nothing of the user's needs.
    pub(super) unused: &'a HashSet<String>,
    /// What is added to objects that are there, by what mends it.
    pub(super) added: &'a [&'a Difference],
}

/// Decides.
pub(super) fn plan(entries: &[Entry], known: &Known<'_>) -> Plan {
    // Within a table with the table's name before it, a function without its arguments.
    let parts = |name: &String| tokens::words(name.split('(').next().unwrap_or_default());
    let mut planner = Planner {
        known,
        left_out: known.scope.left_out.iter().map(|(name, why)| (parts(name), why.as_str())).collect(),
        tables: tables(entries),
        owned: entries.iter().filter(|e| e.kind == "SEQUENCE OWNED BY").map(name).collect(),
        needed: entries.iter().filter(|e| e.kind != "COMMENT").flat_map(|e| e.needs.clone()).collect(),
        coming: HashSet::new(),
        omitted: HashMap::new(),
        plan: Plan::default(),
    };
    // What others may need comes first.
    let is_needed = |difference: &&&Difference| matches!(difference.kind, Kind::Column | Kind::Enum);
    known.added.iter().filter(is_needed).for_each(|difference| planner.add(difference));
    entries.iter().for_each(|entry| planner.take(entry));
    known.added.iter().filter(|d| !is_needed(d)).for_each(|difference| planner.add(difference));
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
            false => {
                let needed = || entry.needs.iter().filter_map(|need| tables.get(need));
                let is_part_of = |table: &&TableName| entry.tag.starts_with(&format!("{} ", table.name));
                // A foreign key needs another table, too.
                needed().find(is_part_of).or_else(|| needed().next()).cloned()
            }
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
    /// What can't be on the target, by the parts of its name, and why.
    left_out: HashMap<Vec<String>, &'a str>,
    tables: BTreeMap<i64, TableName>,
    /// Sequences that go with a column.
    owned: HashSet<TableName>,
    /// The entries that others need.
    needed: HashSet<i64>,
    /// The entries that are to be made.
    coming: HashSet<i64>,
    /// The entries that are left out, and their names.
    omitted: HashMap<i64, String>,
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
            "USER MAPPING" => self.omit(entry, "it holds a password, and is made by hand"),
            "EXTENSION" if self.known.unused.contains(&entry.tag) && !self.needed.contains(&entry.id) => {}
            kind if NO_OBJECTS.contains(&kind) => {}
            _ if self.is_there(entry) || self.comes_with_a_column(entry) => {}
            kind => match self.why_not(entry) {
                Some(why) => self.omit(entry, &why),
                None if kind == "TABLE" => self.table(entry),
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

    /// Why it is left out, if it is. A table that isn't selected is not among the entries, nor are its parts.
    fn why_not(&self, entry: &Entry) -> Option<String> {
        let kind = entry.kind.as_str();
        if let Some(name) = entry.needs.iter().find_map(|need| self.omitted.get(need)) {
            let is = if matches!(kind, "VIEW" | "MATERIALIZED VIEW") { "is a view on" } else { "needs" };
            return Some(format!("it {is} {name}, which is left out"));
        }
        if matches!(kind, "VIEW" | "MATERIALIZED VIEW" | "FK CONSTRAINT")
            && let Some(why) = self.known.scope.on_other(&entry.sql)
        {
            return Some(why);
        }
        // Event triggers and the like; tables can be made as one of these roles.
        if entry.schema.is_empty() && kind != "SCHEMA" && self.known.providers.contains(&entry.owner) {
            return Some("it is the provider's own".to_owned());
        }
        let plain = entry.tag.split('(').next().unwrap_or_default();
        let mut parts = vec![entry.schema.clone(), plain.to_owned()];
        let is_part = !LOCK_NOTHING.contains(&kind) && self.tables.contains_key(&entry.id);
        if let Some(table) = self.tables.get(&entry.id).filter(|_| is_part) {
            let part = entry.tag.strip_prefix(&format!("{} ", table.name)).unwrap_or(plain);
            parts = vec![table.schema.clone(), table.name.clone(), part.to_owned()];
        }
        if let Some(why) = self.left_out.get(&parts) {
            return Some((*why).to_owned());
        }
        let name = TableName::new(&entry.schema, plain);
        let is_named = !is_part && !entry.schema.is_empty() && !self.owned.contains(&name);
        self.known.scope.why_not(&name).filter(|_| is_named).map(str::to_owned)
    }

    /// A table without those defaults that can't be on the target.
    fn table(&mut self, entry: &Entry) {
        let mut sql = entry.sql.clone();
        let table = [entry.schema.clone(), entry.tag.clone()];
        for (parts, why) in &self.left_out {
            let Some((column, of)) = parts.split_last() else { continue };
            if let Some(without) = tokens::without_default(&sql, column).filter(|_| of == table) {
                sql = without;
                let name = format!("{}.{}.{column}", entry.schema, entry.tag);
                let object = Object { kind: "default".to_owned(), name };
                self.plan.omissions.push(Omission::new(object, (*why).to_owned()));
            }
        }
        if self.known.target_version < 180_000 {
            let (without, columns) = tokens::without_not_null(&sql);
            let name = name(entry).to_sql();
            let set = |column: &&str| format!("\nALTER TABLE {name} ALTER COLUMN {column} SET NOT NULL;");
            sql = without + &columns.iter().map(set).collect::<String>();
        }
        self.step(entry, sql);
    }

    /// A column or a check of a table, the labels of an enum, the owner of a sequence, a grant.
    fn add(&mut self, difference: &Difference) {
        let named = tokens::qualified_names(&difference.mend.concat()).into_iter().next();
        let named = named.map(|(schema, name)| TableName::new(schema, name));
        let object = Object { kind: difference.kind.as_str().to_owned(), name: difference.name.clone() };
        let is_made = |step: &Step| {
            let (schema, name) = (&step.name.schema, step.name.name.split('(').next().unwrap_or_default());
            named.as_ref().is_some_and(|named| named.schema == *schema && named.name == name)
                || object.kind == step.object.kind
                    && tokens::words(&object.name) == tokens::words(&step.object.name)
        };
        // It comes with what it is about, or by an entry of its own.
        if difference.kind != Kind::Column && self.plan.steps.iter().any(is_made) {
            return;
        }
        let changes_table = matches!(difference.kind, Kind::Column | Kind::CheckConstraint);
        self.plan.steps.push(Step {
            object,
            name: TableName::new("", &difference.name),
            oid: 0,
            sql: difference.mend.iter().map(|sql| format!("{sql};\n")).collect(),
            tables: named.filter(|_| changes_table).into_iter().collect(),
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

    fn omit(&mut self, entry: &Entry, why: &str) {
        let object = Object::of(entry);
        self.omitted.insert(entry.id, object.name.clone());
        self.plan.omissions.push(Omission::new(object, why.to_owned()));
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
        let object = Object { kind: "grants".to_owned(), name: format!("of {role}") };
        if !self.plan.omissions.iter().any(|omission| omission.object == object) {
            self.plan.omissions.push(Omission::new(object, format!("the target has no role {role}")));
        }
    }
}

/// As `pg_dump` quotes it: only if it must.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { crate::catalog::quote_identifier(name) }
}
