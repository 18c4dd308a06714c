//! Keeping the tables that are in the stream silent: at each start, and while it runs.

use tokio_postgres::{Client, Error, GenericClient};

use super::Until;
use super::hold_back::{foreign_keys, silence_now, switches};
use crate::catalog::{Published, TableName};
use crate::connect::Mode;
use crate::fault::{Fault, Result, Side};

/// True if something would act on replicated rows on one of the tables of the target that take the rows of
/// `published` and are in the stream already.
///
/// # Errors
/// If the target can't be asked.
pub async fn is_stirring(
    client: &impl GenericClient,
    name: &str,
    published: &[Published],
    mode: Mode,
) -> Result<bool> {
    let tables = adopted(client, name, published).await.map_err(|e| looking(&e))?;
    stirs(client, &tables, mode).await
}

/// Refuses to write to a table of the target on which something would act, for as long as it does.
///
/// # Errors
/// If it is so, or if the target can't be asked.
pub async fn refuse_stirring(client: &impl GenericClient, table: &TableName, mode: Mode) -> Result<()> {
    if !stirs(client, std::slice::from_ref(table), mode).await? {
        return Ok(());
    }
    Err(Fault::retry("a trigger, a rule or a foreign key has come that would act on replicated rows")
        .on(Side::Target)
        .table(table.to_string())
        .remedy("nothing: it is held back until the cutover before the stream goes on"))
}

/// Silences all of them, each in a transaction of its own, and tells the log what is held back since.
///
/// # Errors
/// As of [`super::silence()`], of the first that failed; the others are silent.
pub async fn silence_all(client: &Client, name: &str, published: &[Published], mode: Mode) -> Result<()> {
    if mode == Mode::Owner {
        stay_without_foreign_keys(client, name).await?;
    }
    let tables = adopted(client, name, published).await.map_err(|e| looking(&e))?;
    if !stirs(client, &tables, mode).await? {
        return Ok(());
    }
    let mut failed = None;
    for table in &tables {
        match silence_now(client, name, table, mode).await {
            Ok(held) if held.is_empty() => {}
            Ok(held) => {
                let held: Vec<String> = held.iter().map(|h| format!("{} {}", h.kind, h.object)).collect();
                tracing::warn!(
                    %table,
                    "held back until the cutover, as it would act on replicated rows: {}", held.join(", ")
                );
            }
            Err(fault) if fault.is_unreachable() => return Err(fault),
            Err(fault) => {
                client.batch_execute("ROLLBACK").await.map_err(|e| looking(&e))?;
                failed = failed.or(Some(fault));
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn stirs(client: &impl GenericClient, tables: &[TableName], mode: Mode) -> Result<bool> {
    let has_switches = !switches(client, tables, mode).await.map_err(|e| looking(&e))?.is_empty();
    if has_switches || mode == Mode::Replica {
        return Ok(has_switches);
    }
    Ok(!foreign_keys(client, tables, &[], mode).await.map_err(|e| looking(&e))?.is_empty())
}

fn looking(error: &Error) -> Fault {
    Fault::sql(Side::Target, "looking for triggers and foreign keys that would act on rows", error)
}

/// Foreign keys that a life before has held back until the copy, when its role was allowed more, stay so.
async fn stay_without_foreign_keys(client: &Client, name: &str) -> Result<()> {
    client
        .execute(
            "UPDATE cdc.held_back SET until = $2
              WHERE name = $1 AND kind = 'foreign key' AND until <> $2 AND put_back_at IS NULL",
            &[&name, &Until::Cutover.as_str()],
        )
        .await
        .map_err(|e| Fault::sql(Side::Target, "using the ledger (cdc.held_back)", &e))?;
    Ok(())
}

/// The tables of the target that take the rows of those that are in the stream: a partition that the target
/// lacks goes through its topmost parent.
async fn adopted(
    client: &impl GenericClient,
    name: &str,
    published: &[Published],
) -> Result<Vec<TableName>, Error> {
    let oids: Vec<u32> = published.iter().map(|table| table.oid).collect();
    let (schemas, tables): (Vec<&str>, Vec<&str>) =
        published.iter().map(|table| (&*table.name.schema, &*table.name.name)).unzip();
    let root = |of: fn(&TableName) -> &str| -> Vec<Option<&str>> {
        published.iter().map(|table| table.root.as_ref().map(of)).collect()
    };
    // By their names: to_regclass() fails where the role may not look into the schema.
    let rows = client
        .query(
            "SELECT DISTINCT CASE WHEN is_there THEN p.schema_name ELSE p.root_schema END,
                    CASE WHEN is_there THEN p.table_name ELSE p.root_name END
               FROM unnest($2::oid[], $3::text[], $4::text[], $5::text[], $6::text[])
                      AS p (relation, schema_name, table_name, root_schema, root_name)
               JOIN cdc.copy AS a ON a.name = $1 AND a.relation = p.relation
              CROSS JOIN LATERAL (SELECT EXISTS (
                      SELECT FROM pg_catalog.pg_class AS c
                        JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                       WHERE n.nspname = p.schema_name AND c.relname = p.table_name)) AS t (is_there)
              WHERE is_there OR p.root_name IS NOT NULL",
            &[&name, &oids, &schemas, &tables, &root(|root| &root.schema), &root(|root| &root.name)],
        )
        .await?;
    Ok(rows.iter().map(|row| TableName::new(row.get::<_, &str>(0), row.get::<_, &str>(1))).collect())
}
