//! What a table of the target needs to be as the source's is now. Pure.

use super::shape::{Column, Earlier, Shape, Table, TableColumn};
use super::values::keeps_values;
use crate::catalog::{TableName, quote_identifier};
use crate::lsn::Lsn;
use crate::schema::diff::Kind;
use crate::schema::diff::mend::mend;
use crate::schema::diff::read::{Catalog, Object};

/// What is known of a table.
pub(super) struct Facts<'a> {
    /// As the ledger has it.
    pub(super) recorded: &'a Shape,
    pub(super) source: &'a Table,
    pub(super) target: &'a Table,
    /// The source's objects, as the target would have them; and those of the target.
    pub(super) there: &'a Catalog,
    pub(super) here: &'a Catalog,
    /// A position of the source's log behind everything that has made the table what it is.
    pub(super) at: Lsn,
    /// Rows of the table are being copied, or will be.
    pub(super) is_being_copied: bool,
    /// The target has a table of the name that the source's has now, or its schema.
    pub(super) name_is_taken: bool,
    pub(super) schema_is_there: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Statements that add something and lose nothing.
    pub(super) make: Vec<Make>,
    /// Statements without which the table isn't as the source's.
    pub(super) needed: Vec<String>,
    /// Statements without which it isn't, either, but takes every row.
    pub(super) advised: Vec<String>,
    /// Why rows have to be copied again.
    pub(super) again: Option<String>,
}

/// Statements that add something.
#[derive(Debug)]
pub(super) struct Make {
    pub(super) statements: Vec<String>,
    /// The table takes every row without them.
    pub(super) is_advice: bool,
}

/// What rows have in a new column that were there before it.
enum Before<'a> {
    /// The target computes it by itself.
    Computed,
    Value(&'a str),
    Null,
    /// Nobody has said: the table was rewritten.
    Unknown,
}

/// Compares, and says what the table will be for the ledger when all of it is done.
pub(super) fn plan(facts: &Facts<'_>) -> (Plan, Shape) {
    let Facts { recorded, source, target, .. } = facts;
    let mut planner = Planner { facts, plan: Plan::default(), renames: Vec::new() };
    let mut next = Shape::new(source, target, recorded.is_through_root);
    planner.name();
    if planner.is_held() {
        next.name.clone_from(&recorded.name);
    }
    next.columns = source.columns.iter().filter_map(|column| planner.held_column(column)).collect();
    if planner.is_held() {
        // So that it is found again.
        next.digest.clone_from(&recorded.digest);
        next.filenode = recorded.filenode;
    }
    next.dropped = planner.dropped();
    planner.rename();
    next.lacks_key = planner.key();
    next.earlier.clone_from(&recorded.earlier);
    let names = |columns: &[Column]| -> Vec<(i16, String)> {
        let in_stream = columns.iter().filter(|column| !column.is_generated);
        in_stream.map(|column| (column.number, column.name.clone())).collect()
    };
    if recorded.name != next.name || names(&recorded.columns) != names(&next.columns) {
        next.earlier.push(Earlier {
            until: Some(facts.at),
            name: recorded.name.clone(),
            columns: recorded.columns.clone(),
        });
    }
    (planner.plan, next)
}

/// What a table of the target is named that makes room for another one.
pub(super) fn away(name: &TableName) -> TableName {
    TableName::new(&name.schema, format!("{} before", name.name))
}

struct Planner<'a> {
    facts: &'a Facts<'a>,
    plan: Plan,
    /// Columns of the target by the names that they have, and should have.
    renames: Vec<(String, String)>,
}

impl Planner<'_> {
    /// How much has to be done before the table takes every row.
    fn weight(&self) -> usize {
        let makes = self.plan.make.iter().filter(|make| !make.is_advice).count();
        self.plan.needed.len() + self.renames.len() + makes
    }

    fn is_held(&self) -> bool {
        self.weight() > 0
    }

    fn make(&mut self, statements: Vec<String>) {
        self.plan.make.push(Make { statements, is_advice: false });
    }

    fn advise(&mut self, statement: String) {
        self.plan.advised.push(statement);
    }

    fn again(&mut self, column: &TableColumn, what: &str) {
        self.plan.again.get_or_insert_with(|| format!("the source's column {} {what}", column.name));
    }

    fn alter(&self, action: &str) -> String {
        format!("ALTER TABLE {} {action}", self.facts.target.altered_as().to_sql())
    }

    fn alter_column(&self, column: &str, action: &str) -> String {
        self.alter(&format!("ALTER COLUMN {} {action}", quote_identifier(column)))
    }

    /// The column as an object of the source, and of the target.
    fn there(&self, column: &TableColumn) -> Option<&Object> {
        self.facts.there.get(&(Kind::Column, column.object.clone()))
    }

    fn here(&self, column: &TableColumn) -> Option<&Object> {
        self.facts.here.get(&(Kind::Column, column.object.clone()))
    }

    /// The table's own name.
    fn name(&mut self) {
        let Facts { recorded, source, target, .. } = self.facts;
        let (now, wanted) = (&target.name, &source.name);
        if recorded.is_through_root || recorded.name == *wanted || now == wanted {
            return;
        }
        if self.facts.name_is_taken {
            // Two tables that trade names.
            let away = quote_identifier(&away(wanted).name);
            self.plan.needed.push(format!("ALTER TABLE {} RENAME TO {away}", wanted.to_sql()));
        }
        let mut current = now.clone();
        if now.schema != wanted.schema {
            let schema = quote_identifier(&wanted.schema);
            if self.facts.schema_is_there {
                self.plan.needed.push(format!("ALTER TABLE {} SET SCHEMA {schema}", now.to_sql()));
            } else {
                let before = quote_identifier(&now.schema);
                self.plan.needed.push(format!("ALTER SCHEMA {before} RENAME TO {schema}"));
            }
            current = TableName::new(&wanted.schema, &now.name);
        }
        if now.name != wanted.name {
            let name = quote_identifier(&wanted.name);
            self.plan.needed.push(format!("ALTER TABLE {} RENAME TO {name}", current.to_sql()));
        }
    }

    /// A column as it will be for the ledger: as before, as long as something has to be done to it.
    fn held_column(&mut self, column: &TableColumn) -> Option<Column> {
        let before = self.weight();
        let next = self.column(column);
        if self.weight() == before {
            return Some(next);
        }
        self.facts.recorded.columns.iter().find(|known| known.number == column.number).cloned()
    }

    fn column(&mut self, column: &TableColumn) -> Column {
        let Facts { recorded, target, .. } = self.facts;
        let known = recorded.columns.iter().find(|known| known.number == column.number);
        let there = match known.and_then(|known| known.target) {
            Some(number) => target.by_number(number),
            None => target.by_name(&column.name).filter(|there| !self.is_taken(there.number)),
        };
        let mut next = Column::new(column, there.map(|there| there.number));
        match (known, there) {
            (None, None) => self.add(column),
            (None, Some(there)) => {
                self.compare_values(column, there);
                self.fit_type(column, there);
                let is_plain = !column.is_generated && !column.is_identity;
                let is_finished = !column.has_default
                    && column.missing.is_none()
                    && (!column.is_not_null || there.is_not_null);
                next.unfinished = (is_plain && !is_finished).then_some(self.facts.at);
            }
            (Some(known), Some(there)) => {
                next.unfinished = known.unfinished;
                self.change(known, column, there);
                let has_become = column.is_not_null && (!known.is_not_null || known.lacks_not_null);
                if has_become && !there.is_not_null && known.unfinished.is_none() {
                    self.advise(self.alter_column(&there.name, "SET NOT NULL"));
                    next.lacks_not_null = true;
                }
            }
            // Somebody has dropped it on the target.
            (Some(_), None) => {}
        }
        next
    }

    /// True if this column of the target belongs to one that the source has.
    fn is_taken(&self, number: i16) -> bool {
        let Facts { recorded, source, .. } = self.facts;
        let lives = |known: &Column| source.by_number(known.number).is_some();
        recorded.columns.iter().any(|known| known.target == Some(number) && lives(known))
    }

    /// The old rows' value of a column that the ledger doesn't know.
    fn before<'c>(&self, column: &'c TableColumn) -> Before<'c> {
        let Facts { recorded, source, .. } = self.facts;
        let was_rewritten = match source.filenode {
            // Its partitions would know.
            0 => column.has_default || column.is_identity,
            filenode => filenode != recorded.filenode,
        };
        match &column.missing {
            _ if column.is_generated => Before::Computed,
            Some(value) => Before::Value(value),
            None if was_rewritten => Before::Unknown,
            None => Before::Null,
        }
    }

    fn add(&mut self, column: &TableColumn) {
        let Some(object) = self.there(column) else { return };
        if column.is_generated || column.is_identity {
            return self.make(object.make.clone().unwrap_or_default());
        }
        let mut add = format!(
            "ADD COLUMN {} {}",
            quote_identifier(&column.name),
            object.facet("type").unwrap_or(&column.type_name)
        );
        if let Some(collation) = object.facet("collation") {
            add.push_str(&format!(" COLLATE {collation}"));
        }
        // Not its default, which can be another one by now.
        if let Before::Value(value) = self.before(column) {
            let type_name = object.facet("type").unwrap_or(&column.type_name);
            let not_null = if column.is_not_null { " NOT NULL" } else { "" };
            add.push_str(&format!(
                " DEFAULT {}::{type_name}{not_null}",
                crate::catalog::quote_literal(value).trim_start()
            ));
        }
        self.make(vec![self.alter(&add)]);
    }

    /// The source's column is new, and the target has one of its name.
    fn compare_values(&mut self, column: &TableColumn, there: &TableColumn) {
        if self.takes_anothers_name(column) {
            return self.again(column, "was dropped and added again");
        }
        let is_same = match self.before(column) {
            Before::Computed => true,
            Before::Value(value) => there.missing.as_deref() == Some(value),
            Before::Null => there.missing.is_none() && !there.has_default,
            Before::Unknown => false,
        };
        if !is_same {
            self.again(column, "was added with values for the rows that were there");
        }
    }

    /// True if the source had another column of this name.
    fn takes_anothers_name(&self, column: &TableColumn) -> bool {
        let Facts { recorded, source, .. } = self.facts;
        let is_another =
            |known: &Column| known.name == column.name && source.by_number(known.number).is_none();
        recorded.columns.iter().any(is_another)
    }

    fn fit_type(&mut self, column: &TableColumn, there: &TableColumn) {
        let type_of = |object: Option<&Object>| object.and_then(|o| o.facet("type")).map(str::to_owned);
        let (wanted, has) = (type_of(self.there(column)), type_of(self.here(there)));
        let (wanted, has) =
            (wanted.unwrap_or(column.type_name.clone()), has.unwrap_or(there.type_name.clone()));
        if wanted == has {
            return;
        }
        if keeps_values(&has, &wanted) && !column.is_generated {
            return self.make(vec![self.alter_column(&there.name, &format!("TYPE {wanted}"))]);
        }
        let mends = match (self.there(column), self.here(there)) {
            // Its values come from the source again.
            (Some(source), Some(_)) if self.takes_anothers_name(column) => {
                let drop = self.alter(&format!("DROP COLUMN {}", quote_identifier(&there.name)));
                std::iter::once(drop).chain(source.make.clone().unwrap_or_default()).collect()
            }
            (Some(source), Some(target)) => mend(source, target, &["type"]),
            _ => Vec::new(),
        };
        match column.is_generated {
            true => self.plan.advised.extend(mends),
            false => self.plan.needed.extend(mends),
        }
    }

    /// The column is known on both sides.
    fn change(&mut self, known: &Column, column: &TableColumn, there: &TableColumn) {
        if known.name != column.name && there.name != column.name {
            self.renames.push((there.name.clone(), column.name.clone()));
        }
        if known.version == column.version {
            return;
        }
        if known.is_generated && !column.is_generated {
            if there.is_generated {
                self.make(vec![self.alter_column(&there.name, "DROP EXPRESSION")]);
            }
            return self.again(column, "is computed no more");
        }
        if column.is_generated {
            if let (Some(source), Some(target)) = (self.there(column), self.here(there))
                && source.facet("generated") != target.facet("generated")
            {
                self.plan.advised.extend(mend(source, target, &["generated"]));
            }
            return;
        }
        if known.type_name != column.type_name {
            self.fit_type(column, there);
        }
        let was_rewritten = match self.facts.source.filenode {
            0 => known.type_name != column.type_name,
            filenode => filenode != self.facts.recorded.filenode,
        };
        if was_rewritten {
            self.again(column, "was rewritten");
        }
        if known.is_not_null && !column.is_not_null && there.is_not_null {
            self.make(vec![self.alter_column(&there.name, "DROP NOT NULL")]);
        }
    }

    /// The columns of the target that the source has dropped. They stay, but must not refuse rows.
    fn dropped(&mut self) -> Vec<i16> {
        let Facts { recorded, source, target, .. } = self.facts;
        let gone = recorded.columns.iter().filter(|known| source.by_number(known.number).is_none());
        let numbers: Vec<i16> =
            recorded.dropped.iter().copied().chain(gone.filter_map(|known| known.target)).collect();
        let mut dropped = Vec::new();
        for number in numbers {
            let Some(there) = target.by_number(number) else { continue };
            // The one that the source has under its name now takes its place.
            if source
                .by_name(&there.name)
                .is_some_and(|new| !recorded.columns.iter().any(|known| known.number == new.number))
            {
                continue;
            }
            let drop = self.alter(&format!("DROP COLUMN {}", quote_identifier(&there.name)));
            let has_value = there.has_default || there.is_identity || there.is_generated;
            if there.is_not_null && !has_value {
                let statements = vec![self.alter_column(&there.name, "DROP NOT NULL")];
                self.plan.make.push(Make { statements, is_advice: true });
            }
            self.advise(drop);
            dropped.push(number);
        }
        dropped
    }

    /// Puts the renames into an order in which no name is taken.
    fn rename(&mut self) {
        let renames = std::mem::take(&mut self.renames);
        let rename = |from: &str, to: &str| {
            self.alter(&format!("RENAME COLUMN {} TO {}", quote_identifier(from), quote_identifier(to)))
        };
        let (mut first, mut then) = (Vec::new(), Vec::new());
        for (from, to) in &renames {
            let is_wanted_by_another = renames.iter().any(|(_, other)| other == from);
            if is_wanted_by_another {
                let away = format!("{from} before");
                first.push(rename(from, &away));
                then.push(rename(&away, to));
            } else {
                then.push(rename(from, to));
            }
        }
        let is_in_the_way = |name: &String| {
            self.facts.target.by_name(name).is_some() && !renames.iter().any(|(from, _)| from == name)
        };
        let drops = renames.iter().map(|(_, to)| to).filter(|to| is_in_the_way(to));
        let drops: Vec<String> =
            drops.map(|to| self.alter(&format!("DROP COLUMN {}", quote_identifier(to)))).collect();
        self.plan.advised.retain(|statement| !drops.contains(statement));
        self.plan.needed.extend(drops.into_iter().chain(first).chain(then));
    }

    /// True if the source's table has another key since the target was brought to it.
    fn key(&mut self) -> bool {
        let Facts { recorded, source, target, there, here, .. } = self.facts;
        let has_changed = recorded.identity != source.identity;
        if has_changed && self.facts.is_being_copied {
            self.plan.again.get_or_insert_with(|| "the source's table has another key".to_owned());
        }
        if !has_changed && !recorded.lacks_key {
            return false;
        }
        let key = |catalog: &Catalog, table: &Table| {
            let is_key = |object: &&Object| {
                object.kind == Kind::PrimaryKey && object.table.as_ref() == Some(&table.name)
            };
            catalog.values().find(is_key).cloned()
        };
        let (wanted, has) = (key(there, source), key(here, target));
        let definition =
            |object: &Option<Object>| object.as_ref().and_then(|o| o.facet("definition").map(str::to_owned));
        if definition(&wanted) == definition(&has) {
            return false;
        }
        let take = has.and_then(|key| key.take);
        let make = wanted.and_then(|key| key.make).unwrap_or_default();
        self.plan.advised.extend(take.into_iter().chain(make));
        true
    }
}

/// True if the stream's rows of this table are told apart from those of before: names, or what they mean, differ.
pub(super) fn is_new_to_the_stream(before: &Shape, now: &Shape) -> bool {
    let fitted = |shape: &Shape| {
        let columns: Vec<_> =
            shape.columns.iter().map(|c| (c.number, c.name.clone(), c.target, c.is_generated)).collect();
        (shape.name.clone(), shape.target, columns, shape.identity.clone())
    };
    fitted(before) != fitted(now)
}
