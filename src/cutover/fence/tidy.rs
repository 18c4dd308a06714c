//! What a fence needs no longer, and what becomes of the database behind it.

use tokio::time::{Instant, sleep};

use super::{ABANDONED, Fence, is_busy};
use crate::catalog::quote_identifier;
use crate::fault::Result;
use crate::limits;
use crate::schema::locks::begin_ddl;

impl Fence<'_> {
    /// Switches the triggers of an open fence off, where nobody withholds the lock that it takes. Elsewhere they stay
    /// on and do nothing.
    pub async fn switch_off(&self) {
        let tables = match self.state().await {
            Ok(Some(_)) => self.fenced().await,
            Ok(None) | Err(_) => return,
        };
        for table in tables.iter().flatten().filter(|table| table.is_on()) {
            // Somebody may be closing it again.
            let off = format!(
                "DO $cdc$ BEGIN
                   PERFORM FROM cdc.fence WHERE name = '{}' AND state = 'open' FOR SHARE;
                   IF FOUND THEN {} END IF;
                 END $cdc$;",
                self.name,
                self.switch(table, "DISABLE")
            );
            let switched = async {
                let begin = begin_ddl(&**self.session, &[table.name.to_sql()]).await?;
                self.session.batch_execute(&format!("BEGIN; {ABANDONED} {begin} {off} COMMIT")).await
            };
            if let Err(error) = switched.await {
                self.roll_back().await;
                tracing::debug!(table = %table.name, "the fence's trigger stays on, and does nothing: {error}");
            }
        }
    }

    /// Makes read-only the default of the database, if we own it; or what it was before.
    ///
    /// # Errors
    /// If the database can't be asked.
    pub async fn set_read_only(&self, is_read_only: bool) -> Result<()> {
        let fault = self.fault("setting default_transaction_read_only");
        let owns = "SELECT pg_catalog.pg_has_role(datdba, 'USAGE') AND f.read_only <> $2,
                           pg_catalog.format('%I', datname)
                      FROM pg_catalog.pg_database, cdc.fence AS f
                     WHERE datname = pg_catalog.current_database() AND f.name = $1";
        let row = self.session.query_opt(owns, &[&self.name, &is_read_only]).await.map_err(&fault)?;
        let Some(row) = row.filter(|row| row.get(0)) else { return Ok(()) };
        let change = if is_read_only {
            "SET default_transaction_read_only = on"
        } else {
            "RESET default_transaction_read_only"
        };
        let sql = format!(
            "BEGIN; UPDATE cdc.fence SET read_only = {is_read_only} WHERE name = '{}'; ALTER DATABASE {} {change}; COMMIT",
            self.name,
            row.get::<_, &str>(1)
        );
        let changed = self.session.batch_execute(&sql).await;
        if changed.is_err() {
            self.roll_back().await;
        }
        changed.map_err(&fault)
    }

    /// Takes everything away that the fence has made here, and the schema with it if nothing else is in it.
    ///
    /// # Errors
    /// If a lock isn't to be had, or the database can't be asked.
    pub async fn remove(&self) -> Result<()> {
        if self.state().await?.is_none() {
            return Ok(());
        }
        self.set_read_only(false).await?;
        let fault = self.fault("removing the fence");
        for table in self.fenced().await.map_err(&fault)? {
            let name = table.name.to_sql();
            let drop = format!("DROP TRIGGER IF EXISTS {} ON {name};", quote_identifier(&self.trigger()));
            let begin = begin_ddl(&**self.session, std::slice::from_ref(&name)).await.map_err(&fault)?;
            let deadline = Instant::now() + limits::FENCE_DDL;
            while let Err(error) = self.session.batch_execute(&format!("BEGIN; {begin} {drop} COMMIT")).await
            {
                self.roll_back().await;
                if !is_busy(&error) || Instant::now() > deadline {
                    return Err(fault(error).table(table.name.to_string()));
                }
                sleep(limits::FENCE_RETRY).await;
            }
        }
        let function = format!("DROP FUNCTION IF EXISTS cdc.{}()", quote_identifier(&self.trigger()));
        self.session.batch_execute(&function).await.map_err(&fault)?;
        self.session.execute("DELETE FROM cdc.fence WHERE name = $1", &[&self.name]).await.map_err(&fault)?;
        self.session
            .batch_execute(
                "DO $$ BEGIN
                   IF NOT EXISTS (SELECT FROM cdc.fence) THEN
                     DROP TABLE cdc.fence;
                     DROP SEQUENCE cdc.written;
                     IF NOT EXISTS (SELECT FROM pg_catalog.pg_class
                                     WHERE relnamespace = 'cdc'::pg_catalog.regnamespace) THEN
                       DROP SCHEMA cdc;
                     END IF;
                   END IF;
                 END $$",
            )
            .await
            .map_err(&fault)
    }
}
