//! Four example databases: three like those of the people who use this, and a bank whose money
//! only moves.

use tokio_postgres::Client;

use crate::fault::{Fault, Result, Side};

const COMMON: &str = include_str!("../../sql/generate/common.sql");

/// One of the example databases. Each needs a database of its own: some table names recur.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Example {
    /// A booking bot for beauty salons: jsonb, arrays, a partitioned table, keys upserted all day.
    Salon,
    /// A shop bot: vectors where the server has pgvector, enums, bytea checkpoints.
    Shop,
    /// An agent platform: uuid keys, a table that refers to itself, GIN indexes, policies per user.
    Agent,
    /// Accounts of which every transaction keeps the sum.
    Bank,
}

impl Example {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Salon, Self::Shop, Self::Agent, Self::Bank];

    /// A name that is fit for a database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Salon => "salon",
            Self::Shop => "shop",
            Self::Agent => "agent",
            Self::Bank => "bank",
        }
    }

    /// The schema as SQL for one `batch_execute`, which may be run again. It needs the right to
    /// create roles where `anon`, `authenticated` and `service_role` are missing.
    #[must_use]
    pub fn schema(self) -> &'static str {
        match self {
            Self::Salon => include_str!("../../sql/schema/salon.sql"),
            Self::Shop => include_str!("../../sql/schema/shop.sql"),
            Self::Agent => include_str!("../../sql/schema/agent.sql"),
            Self::Bank => include_str!("../../sql/schema/bank.sql"),
        }
    }

    /// The rows at scale 1, of all tables together.
    #[must_use]
    pub fn rows_per_scale(self) -> u32 {
        match self {
            Self::Salon => 5_452,
            Self::Shop => 10_960,
            Self::Agent => 4_280,
            Self::Bank => 1_000,
        }
    }

    /// Fills the tables of a fresh schema in one transaction, made on the server from nothing but
    /// the scale: the same scale gives the same rows.
    ///
    /// # Errors
    /// Whatever the server says; most likely that the rows are there already.
    pub async fn load(self, client: &Client, scale: u32) -> Result<()> {
        let generator = match self {
            Self::Salon => include_str!("../../sql/generate/salon.sql"),
            Self::Shop => include_str!("../../sql/generate/shop.sql"),
            Self::Agent => include_str!("../../sql/generate/agent.sql"),
            Self::Bank => include_str!("../../sql/generate/bank.sql"),
        };
        client
            .batch_execute(&format!("SET demo.scale = {scale}; {COMMON} {generator}"))
            .await
            .map_err(|e| Fault::sql(Side::Source, &format!("can't fill the {} example", self.name()), &e))
    }
}
