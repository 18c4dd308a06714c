//! What changes tables that were there before, while others may be using them: no lock is waited for longer than a
//! moment, and nothing reads a whole table while writers wait.

use tokio::time::sleep;

use super::make::explain;
use super::plan::Step;
use crate::catalog::{TableName, rows_exist};
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};
use crate::limits;
use crate::retry::Delays;
use crate::schema::diff::tokens;
use crate::schema::locks;

/// Makes it; `source` knows of the index below a constraint.
///
/// # Errors
/// With what the target says.
pub(super) async fn beside((source, target): (&Session, &Session), step: &Step) -> Result<()> {
    let mut statements: Vec<String> = tokens::statements(&step.sql).into_iter().map(str::to_owned).collect();
    let Some(first) = statements.first_mut() else { return Ok(()) };
    let mut validate = None;
    let kind = step.object.kind.as_str();
    if matches!(kind, "index" | "constraint" | "foreign key" | "check constraint")
        && has_rows(target, step).await?
    {
        match kind {
            "index" => {
                if let Some(index) = concurrently(first) {
                    build(target, step, &index).await?;
                    statements.remove(0);
                }
            }
            "constraint" => {
                if let Some((index, constraint)) = by_index(source, step).await? {
                    build(target, step, &index).await?;
                    *first = constraint;
                }
            }
            _ => validate = not_valid(first),
        }
    }
    if !statements.is_empty() {
        short(target, step, &statements.join("; ")).await?;
    }
    match validate {
        Some(validate) => target.batch_execute(&validate).await.map_err(|e| explain(step, &e)),
        None => Ok(()),
    }
}

async fn has_rows(target: &Session, step: &Step) -> Result<bool> {
    let tables: Vec<TableName> = step.tables.iter().cloned().collect();
    Ok(!rows_exist(target, &tables).await?.is_empty())
}

/// The statement that builds an index while rows are written. A partitioned table's own is no work.
fn concurrently(statement: &str) -> Option<String> {
    let (before, after) = statement.split_once("INDEX ")?;
    (!after.contains(" ON ONLY ")).then(|| format!("{before}INDEX CONCURRENTLY {after}"))
}

/// The statement that builds the index of a unique or primary key constraint, and that which makes the constraint
/// from it.
async fn by_index(source: &Session, step: &Step) -> Result<Option<(String, String)>> {
    let row = source
        .query_opt(
            "SELECT pg_catalog.pg_get_indexdef(k.conindid),
                    format('ALTER TABLE ONLY %s ADD CONSTRAINT %I %s USING INDEX %I%s%s', k.conrelid::pg_catalog.regclass,
                           k.conname, CASE k.contype WHEN 'p' THEN 'PRIMARY KEY' ELSE 'UNIQUE' END, k.conname,
                           CASE WHEN k.condeferrable THEN ' DEFERRABLE' END,
                           CASE WHEN k.condeferred THEN ' INITIALLY DEFERRED' END)
               FROM pg_catalog.pg_constraint k WHERE k.oid = $1 AND k.contype IN ('p', 'u')",
            &[&step.oid],
        )
        .await
        .map_err(|e| Fault::sql(Side::Source, "looking for the index of a constraint", &e))?;
    Ok(row.and_then(|row| Some((concurrently(row.get(0))?, row.get(1)))))
}

/// Makes a foreign key or a check hold for new rows only; gives the statement that makes it hold for all. A foreign key
/// of a partitioned table can't be made in two steps.
fn not_valid(statement: &mut String) -> Option<String> {
    let (table, constraint) = statement.split_once("ADD CONSTRAINT ")?;
    let is_partitioned = !table.contains("TABLE ONLY ") && constraint.contains(" FOREIGN KEY ");
    if statement.ends_with(" NOT VALID") || is_partitioned {
        return None;
    }
    let validate = format!("{table}VALIDATE CONSTRAINT {}", tokens::first(constraint));
    statement.push_str(" NOT VALID");
    Some(validate)
}

async fn build(target: &Session, step: &Step, statement: &str) -> Result<()> {
    let index = match step.object.kind.as_str() {
        "index" => step.name.clone(),
        // After the name of its table.
        _ => TableName::new(
            &step.name.schema,
            tokens::first(statement.rsplit("CONCURRENTLY ").next().unwrap_or("")),
        ),
    };
    // A killed attempt, or this one, has left it behind: it would go on refusing rows.
    let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS {}", index.to_sql());
    target.batch_execute(&drop).await.map_err(|e| explain(step, &e))?;
    let built = target.batch_execute(statement).await;
    if built.is_err() && !target.is_closed() {
        target.batch_execute(&drop).await.map_err(|e| explain(step, &e))?;
    }
    built.map_err(|e| explain(step, &e))
}

/// In one transaction, tried until its locks can be had in a moment.
async fn short(target: &Session, step: &Step, statements: &str) -> Result<()> {
    let tables: Vec<String> = step.tables.iter().map(TableName::to_sql).collect();
    let mut delays = Delays::default();
    for attempt in 1.. {
        let begin = locks::begin_ddl(&**target, &tables).await.map_err(|e| explain(step, &e))?;
        let outcome = target.batch_execute(&format!("BEGIN; {begin}{statements}; COMMIT")).await;
        if outcome.is_err() && !target.is_closed() {
            target.batch_execute("ROLLBACK").await.map_err(|e| explain(step, &e))?;
        }
        let Err(error) = outcome else { return Ok(()) };
        let is_locked = matches!(error.code().map(|code| code.code()), Some("55P03" | "40P01"));
        if !is_locked || attempt == limits::DDL_ATTEMPTS {
            return Err(explain(step, &error));
        }
        sleep(delays.next_delay()).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_a_whole_table_is_done_beside_its_writers() {
        assert_eq!(
            concurrently("CREATE UNIQUE INDEX i ON public.t USING btree (a)").unwrap(),
            "CREATE UNIQUE INDEX CONCURRENTLY i ON public.t USING btree (a)"
        );
        assert_eq!(concurrently("CREATE INDEX i ON ONLY public.p USING btree (a)"), None);
        let mut foreign_key =
            "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"a b\" FOREIGN KEY (u) REFERENCES public.u(id)"
                .to_owned();
        assert_eq!(
            not_valid(&mut foreign_key).unwrap(),
            "ALTER TABLE ONLY public.t\n    VALIDATE CONSTRAINT \"a b\""
        );
        assert!(foreign_key.ends_with("REFERENCES public.u(id) NOT VALID"));
        assert_eq!(not_valid(&mut foreign_key), None);
        assert_eq!(not_valid(&mut "ALTER TABLE public.p ADD CONSTRAINT c FOREIGN KEY (a)".to_owned()), None);
    }
}
