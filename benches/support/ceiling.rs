//! How fast the source can send: a reader that throws everything away.
//!
//! It reads what is there and then rests, long enough that the source finds the line full. Where that takes each
//! message as it comes, the walsender uses up to twice the CPU to send them one by one.

use std::time::{Duration, Instant};

use cdc::connect::{ConnInfo, Environment};
use cdc::fault::Side;
use cdc::lsn::Lsn;
use cdc::replication::{Feedback, Frame, ReplicationStream, Walsender};
use futures_util::FutureExt;

use super::backlog::Backlog;
use super::process::cpu_seconds;
use super::way::{Drain, PUBLICATION, walsender};
use super::{Servers, connect};

/// How long it rests.
const REST: Duration = Duration::from_millis(20);

/// A slot that nothing is applied from.
pub struct Ceiling<'a> {
    servers: &'a Servers,
    database: String,
    slot: String,
}

impl<'a> Ceiling<'a> {
    pub async fn new(servers: &'a Servers, database: &str) -> Self {
        let slot = format!("{database}_ceiling");
        let sql = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')");
        connect(&servers.source.url(database)).await.batch_execute(&sql).await.unwrap();
        Self { servers, database: database.to_owned(), slot }
    }

    pub async fn drain(&self, backlog: &Backlog) -> Drain {
        let looker = connect(&self.servers.source.url("postgres")).await;
        let url = self.servers.source.url(&self.database);
        let info = ConnInfo::parse(&url, &Environment::empty()).unwrap();
        let connection = Walsender::connect(&info, Side::Source, "ceiling").await.unwrap();
        let publications = [PUBLICATION.to_owned()];
        let mut stream = connection.start_replication(&self.slot, Lsn::ZERO, &publications).await.unwrap();
        let pid = walsender(&looker, &self.slot).await;
        let [first, last] = backlog.positions;
        let reading = async move {
            read_past(&mut stream, first).await;
            let (began, before) = (Instant::now(), cpu_seconds(pid));
            let end = read_past(&mut stream, last).await;
            (stream, end, began.elapsed().as_secs_f64(), cpu_seconds(pid) - before)
        };
        let (mut stream, end, seconds, walsender) = tokio::spawn(reading).await.unwrap();
        confirm(&mut stream, end).await;
        stream.finish().await.unwrap();
        Drain { seconds, cpu: [walsender, 0.0, 0.0], peak_mib: 0.0 }
    }

    pub async fn end(self) {
        let sql = format!("SELECT pg_drop_replication_slot('{}')", self.slot);
        connect(&self.servers.source.url(&self.database)).await.batch_execute(&sql).await.unwrap();
    }
}

/// Reads up to the first commit that ends behind this position, and gives its end.
async fn read_past(stream: &mut ReplicationStream, position: Lsn) -> Lsn {
    loop {
        let Some(frame) = stream.next().now_or_never() else {
            tokio::time::sleep(REST).await;
            continue;
        };
        match frame.unwrap() {
            Frame::XLogData { payload, .. } => {
                if let Some(end) = end_of_commit(&payload).filter(|end| *end > position) {
                    return end;
                }
            }
            Frame::Keepalive { reply_requested: true, .. } => confirm(stream, Lsn::ZERO).await,
            Frame::Keepalive { .. } => {}
        }
    }
}

/// The end of the transaction, if this is a Commit message: its tag, flags, the commit's position, its end.
fn end_of_commit(payload: &[u8]) -> Option<Lsn> {
    let end = payload.strip_prefix(b"C")?.get(9..17)?;
    Some(u64::from_be_bytes(end.try_into().unwrap()).into())
}

async fn confirm(stream: &mut ReplicationStream, lsn: Lsn) {
    let feedback = Feedback { written: lsn, flushed: lsn, applied: lsn, reply_requested: false };
    stream.send_feedback(&feedback).await.unwrap();
}
