//! What the catalogs of one database say of its schema.

use std::collections::BTreeMap;

use tokio_postgres::types::Json;

use super::{Kind, tokens};
use crate::catalog::TableName;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};

const QUERIES: &[&str] = &[
    include_str!("../../../sql/catalog/schema_extensions.sql"),
    include_str!("../../../sql/catalog/schema_types.sql"),
    include_str!("../../../sql/catalog/schema_sequences.sql"),
    include_str!("../../../sql/catalog/schema_functions.sql"),
    include_str!("../../../sql/catalog/schema_tables.sql"),
    include_str!("../../../sql/catalog/schema_constraints.sql"),
    include_str!("../../../sql/catalog/schema_views.sql"),
    include_str!("../../../sql/catalog/schema_triggers.sql"),
    include_str!("../../../sql/catalog/schema_grants.sql"),
];
const MEMBERS: &str = include_str!("../../../sql/catalog/schema_members.sql");

/// What an object is and its qualified, quoted name.
pub(in crate::schema) type Id = (Kind, String);

/// Everything that is compared, of one database.
pub(in crate::schema) type Catalog = BTreeMap<Id, Object>;

/// Something in the schema; `sql/catalog/schema_extensions.sql` says more.
#[derive(Clone, Debug)]
pub(in crate::schema) struct Object {
    pub(in crate::schema) kind: Kind,
    pub(in crate::schema) name: String,
    /// The table or view that it is part of.
    pub(in crate::schema) table: Option<TableName>,
    /// In the order in which they were made.
    pub(in crate::schema) oid: u32,
    /// What is compared.
    pub(in crate::schema) facets: BTreeMap<String, String>,
    /// What makes it; none if it comes with something else.
    pub(in crate::schema) make: Option<Vec<String>>,
    /// What takes it away.
    pub(in crate::schema) take: Option<String>,
}

impl Object {
    /// A facet, if there is such a one.
    pub(in crate::schema) fn facet(&self, name: &str) -> Option<&str> {
        self.facets.get(name).map(String::as_str)
    }

    /// What it is like, for people.
    pub(super) fn describe(&self) -> String {
        self.facet("definition").map_or_else(
            || {
                self.facets
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            },
            str::to_owned,
        )
    }
}

/// Reads these schemas.
pub(in crate::schema) async fn catalog(session: &Session, side: Side, schemas: &[String]) -> Result<Catalog> {
    let mut catalog = Catalog::new();
    for query in QUERIES {
        let rows = session.query(*query, &[&schemas]).await;
        for row in rows.map_err(|e| Fault::sql(side, "reading the schema", &e))? {
            let text: &str = row.get("kind");
            let kind = Kind::parse(text)
                .ok_or_else(|| Fault::bug(format!("unknown kind {text:?} in the catalog query")))?;
            let table: Option<Vec<String>> = row.get("table_name");
            let Json(facets) = row.get("facets");
            let mut object = Object {
                kind,
                name: row.get("name"),
                table: table.and_then(|name| Some(TableName::new(name.first()?, name.get(1)?))),
                oid: row.get("oid"),
                facets,
                make: row.get("make"),
                take: row.get("take"),
            };
            if matches!(kind, Kind::View | Kind::MaterializedView) {
                object
                    .facets
                    .entry("definition".to_owned())
                    .and_modify(|query| *query = tokens::unqualified(query));
            }
            catalog.insert((kind, object.name.clone()), object);
        }
    }
    Ok(catalog)
}

/// What follows a table's name where FORCE ROW LEVEL SECURITY is held back.
pub(super) const FORCED: &str = " FORCE ROW LEVEL SECURITY";

/// The names of what is held back on the target, as an [`Id`] has them, and until when; of what is a facet of
/// its table, the table's name and [`FORCED`].
pub(super) async fn held_back(target: &Session, name: &str) -> Result<BTreeMap<String, String>> {
    let fault = |e| Fault::sql(Side::Target, "reading what is held back (cdc.held_back)", &e);
    let exists = "SELECT pg_catalog.to_regclass('cdc.held_back') IS NOT NULL";
    if !target.query_one(exists, &[]).await.map_err(fault)?.get::<_, bool>(0) {
        return Ok(BTreeMap::new());
    }
    let rows = target
        .query(
            "SELECT CASE kind WHEN 'index' THEN format('%I.%I', schema_name, object_name)
                              WHEN 'setting' THEN format('%I.%I', schema_name, table_name) || $2
                              ELSE format('%I.%I.%I', schema_name, table_name, object_name) END,
                    until
               FROM cdc.held_back WHERE name = $1 AND put_back_at IS NULL",
            &[&name, &FORCED],
        )
        .await
        .map_err(fault)?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// The source's catalog as it would be if its extensions were in the schemas that they are in on the target:
/// Supabase has them in one named `extensions`, others in `public`.
pub(in crate::schema) async fn relocate(
    source: &Session,
    catalog: Catalog,
    target: &Catalog,
) -> Result<Catalog> {
    let (mut names, mut schemas) = (Vec::new(), Vec::new());
    for (id, extension) in catalog.iter().filter(|(id, _)| id.0 == Kind::Extension) {
        if let Some(there) = target.get(id).filter(|there| there.facet("schema") != extension.facet("schema"))
        {
            names.push(id.1.clone());
            schemas.extend(there.facet("schema").map(str::to_owned));
        }
    }
    if names.is_empty() {
        return Ok(catalog);
    }
    let moved = moved(source, &names, &schemas).await?;
    let there = |text: &mut String| *text = tokens::relocate(text, &moved);
    let relocated = catalog.into_values().map(|mut object| {
        there(&mut object.name);
        object.facets.values_mut().chain(object.make.iter_mut().flatten()).for_each(there);
        object.take.iter_mut().for_each(there);
        ((object.kind, object.name.clone()), object)
    });
    Ok(relocated.collect())
}

/// The schemas that the members of these extensions are in there, quoted, by their schemas and names on the source;
/// only of those that are in others.
pub(in crate::schema) async fn moved(
    source: &Session,
    extensions: &[String],
    schemas: &[String],
) -> Result<BTreeMap<(String, String), String>> {
    let rows = source.query(MEMBERS, &[&extensions, &schemas]).await;
    let rows = rows.map_err(|e| Fault::sql(Side::Source, "reading what is in the extensions", &e))?;
    let moved = rows.iter().map(|row| {
        let name: String = row.get("name");
        // Each character of an operator is a token.
        let is_operator = !name.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '"');
        let key = if is_operator { name.chars().take(1).collect() } else { name };
        ((row.get("schema"), key), row.get("other_schema"))
    });
    Ok(moved.collect())
}
