//! Which objects a database has.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::catalog::TableName;
use crate::config::Config;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::schema::diff::{read, tokens};

const OBJECTS: &str = include_str!("../../../sql/catalog/objects.sql");

/// What is the same on every server: an object's type, its name in parts, and what else tells it apart.
pub(super) type Identity = (String, Vec<String>, Vec<String>);

/// The schemas that members of extensions are in on the target, by the schema and the name here.
pub(super) type Moved = BTreeMap<(String, String), String>;

/// Where extensions of the source are on the target, if they are somewhere else there.
pub(super) async fn moved(source: &Session, target: &Session) -> Result<Moved> {
    let rows = target
        .query(
            "SELECT quote_ident(extname), quote_ident(nspname)
               FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace",
            &[],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "looking for the extensions", &e))?;
    let (names, schemas): (Vec<String>, Vec<String>) =
        rows.iter().map(|row| (row.get(0), row.get(1))).unzip();
    read::moved(source, &names, &schemas).await
}

/// The source's objects by catalog and oid, named as they would be on the target.
pub(super) async fn of_source(
    source: &Session,
    config: &Config,
    moved: &Moved,
) -> Result<HashMap<(u32, u32), Identity>> {
    let mut objects: HashMap<_, _> = all(source, Side::Source).await?.into_iter().collect();
    for (kind, names, args) in objects.values_mut() {
        args.iter_mut().for_each(|arg| *arg = tokens::relocate(arg, moved));
        // Default privileges of whoever owns everything.
        if kind == "default acl" && names.first().is_some_and(|role| role == config.source.user()) {
            names[0] = config.target.user().to_owned();
        }
    }
    Ok(objects)
}

/// What the target has, or will have again.
#[derive(Debug, Default)]
pub(super) struct There {
    objects: HashSet<Identity>,
    roles: HashSet<String>,
}

impl There {
    /// Asks the target; what is held back for this migration is there.
    pub(super) async fn on(target: &Session, name: &str) -> Result<Self> {
        let fault = |e| Fault::sql(Side::Target, "looking for what is there", &e);
        let mut objects: HashSet<Identity> =
            all(target, Side::Target).await?.into_iter().map(|(_, identity)| identity).collect();
        let has_ledger = "SELECT pg_catalog.to_regclass('cdc.held_back') IS NOT NULL";
        if target.query_one(has_ledger, &[]).await.map_err(fault)?.get(0) {
            let held = "SELECT kind, schema_name, table_name, object_name FROM cdc.held_back
                         WHERE name = $1 AND put_back_at IS NULL";
            for row in target.query(held, &[&name]).await.map_err(fault)? {
                let (kind, schema, table, object): (&str, String, String, String) =
                    (row.get(0), row.get(1), row.get(2), row.get(3));
                objects.insert(match kind {
                    "index" => ("index".to_owned(), vec![schema, object], Vec::new()),
                    _ => ("table constraint".to_owned(), vec![schema, table, object], Vec::new()),
                });
            }
        }
        let roles = target.query("SELECT rolname FROM pg_catalog.pg_roles", &[]).await.map_err(fault)?;
        Ok(Self { objects, roles: roles.iter().map(|row| row.get(0)).collect() })
    }

    pub(super) fn has(&self, identity: &Identity) -> bool {
        self.objects.contains(identity)
    }

    /// True if the table or index is a partition.
    pub(super) fn is_attached(&self, schema: &str, name: &str) -> bool {
        self.has(&("attached".to_owned(), vec![schema.to_owned(), name.to_owned()], Vec::new()))
    }

    pub(super) fn has_table(&self, table: &TableName) -> bool {
        let is = |kind: &str| {
            self.has(&(kind.to_owned(), vec![table.schema.clone(), table.name.clone()], Vec::new()))
        };
        is("table") || is("foreign table") || is("view") || is("materialized view")
    }

    pub(super) fn has_schema(&self, schema: &str) -> bool {
        self.has(&("schema".to_owned(), vec![schema.to_owned()], Vec::new()))
    }

    pub(super) fn has_role(&self, role: &str) -> bool {
        role == "PUBLIC" || self.roles.contains(role)
    }
}

async fn all(session: &Session, side: Side) -> Result<Vec<((u32, u32), Identity)>> {
    let rows = session.query(OBJECTS, &[]).await.map_err(|e| Fault::sql(side, "listing the objects", &e))?;
    let identity = |row: &tokio_postgres::Row| (row.get("type"), row.get("names"), row.get("args"));
    Ok(rows.iter().map(|row| ((row.get("classid"), row.get("objid")), identity(row))).collect())
}
