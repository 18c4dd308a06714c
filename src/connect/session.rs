//! SQL sessions: tokio-postgres on a connection that is ours.
//!
//! The connection is opened and logged in by [`super::open()`], as for the walsender. tokio-postgres
//! then gets it through [`LoggedIn`], which keeps tokio-postgres' own startup message to itself and
//! plays back what the server said to ours.

use std::io;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls, tls::NoTlsStream};

use super::conninfo::ConnInfo;
use super::report::log_session_notice;
use super::transport::Transport;
use super::{Purpose, settings};
use crate::fault::{Fault, Reaction, Result, Side};
use crate::limits;

/// How replicated rows are written, which is up to what the role may do (rule C8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// With `session_replication_role = replica`: only triggers and rules that are ENABLE ALWAYS or ENABLE
    /// REPLICA act on them, and no foreign key.
    Replica,
    /// As any other row: whatever would act on them has to be off.
    Owner,
}

impl Mode {
    /// Makes a session write replicated rows.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Replica => "SET session_replication_role = replica; SET cdc.writes_as = replica",
            Self::Owner => "SET cdc.writes_as = owner",
        }
    }
}

/// What a session is doing that is to write replicated rows.
pub(super) const SWITCHING_OFF: &str = "switching triggers and foreign keys off for replicated rows";

/// What to do about that.
pub(super) fn not_switched_off(fault: Fault) -> Fault {
    if fault.reaction() == Reaction::Retry {
        return fault;
    }
    fault.remedy(
        "start the daemon again: it finds out what the role may do there, and works as an ordinary owner if it may \
         not set session_replication_role",
    )
}

/// A condition, in SQL, that is true in a session that [`Session::write_as`] has prepared. Behind a pooler
/// in transaction mode it can be another backend's.
pub const IS_WRITING: &str = "(pg_catalog.current_setting('session_replication_role') = 'replica' \
     OR pg_catalog.current_setting('cdc.writes_as', true) = 'owner')";

/// A condition, in SQL, that is true in every session that [`Session::write_as`] has prepared, in either mode: the fence
/// lets it through. No application sets this by accident, and any role may.
pub const PASSES_FENCE: &str =
    "coalesce(pg_catalog.current_setting('cdc.writes_as', true), '') IN ('replica', 'owner')";

/// A SQL session with the settings of rule C6. Dropping it closes the socket at once.
pub struct Session {
    client: Client,
    driver: Driver,
    side: Side,
    backend_pid: i32,
    server_version_num: u32,
}

impl Session {
    /// Connects, logs in and pins the session settings.
    ///
    /// # Errors
    ///
    /// Says what to do: see [`super::advice`].
    pub async fn open(info: &ConnInfo, side: Side, application_name: &str) -> Result<Self> {
        let mut session = Self::console(info, side, application_name).await?;
        session.pin().await?;
        // What came with the greeting may be a pooler's own number.
        let row = session.client.query_one("SELECT pg_catalog.pg_backend_pid()", &[]).await;
        session.backend_pid = row.map_err(|e| Fault::sql(side, "setting up the session", &e))?.get(0);
        Ok(session)
    }

    /// Connects and logs in, and nothing else: a pooler's console knows no settings, and takes simple queries only.
    ///
    /// # Errors
    ///
    /// As of [`Session::open`].
    pub async fn console(info: &ConnInfo, side: Side, application_name: &str) -> Result<Self> {
        let (wire, greeting) = super::open(info, side, application_name, Purpose::Sql).await?;
        let server_version_num = greeting.server_version_num();
        let (transport, rest) = wire.into_parts();
        let mut replay = greeting.raw;
        replay.unsplit(rest);
        let stream = LoggedIn { transport, replay, swallowed: false };
        let mut config = Config::new();
        config.user(info.user()).ssl_mode(SslMode::Disable);
        let (client, connection) = config
            .connect_raw(stream, NoTls)
            .await
            .map_err(|e| Fault::sql(side, "taking over the connection", &e))?;
        let driver = Driver(tokio::spawn(drive(connection, side)));
        Ok(Self { client, driver, side, backend_pid: 0, server_version_num })
    }

    /// The process that serves this session.
    #[must_use]
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// The server's version: 150013 for 15.13.
    #[must_use]
    pub fn server_version_num(&self) -> u32 {
        self.server_version_num
    }

    /// Says goodbye, so that the backend is gone when this returns; gives up after
    /// [`limits::CLOSE_TIMEOUT`].
    pub async fn close(self) {
        let Self { client, mut driver, .. } = self;
        drop(client);
        // Whatever it ends with, the socket is closed when the driver is dropped.
        let _ = timeout(limits::CLOSE_TIMEOUT, &mut driver.0).await;
    }

    /// How the role may write replicated rows here. Changes nothing.
    ///
    /// # Errors
    /// If the server can't be asked.
    pub async fn mode(&self) -> Result<Mode> {
        // Until the end of this statement, which is its transaction.
        let try_it = "SELECT pg_catalog.set_config('session_replication_role', 'replica', true)";
        match self.client.execute(try_it, &[]).await {
            Ok(_) => Ok(Mode::Replica),
            Err(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(Mode::Owner),
            Err(error) => Err(self.not_switched_off(&error)),
        }
    }

    /// Makes the session write replicated rows from now on. What it sets is what [`IS_WRITING`] and
    /// [`PASSES_FENCE`] ask for.
    ///
    /// # Errors
    /// If the role may not do that (any more), with what to do.
    pub async fn write_as(&self, mode: Mode) -> Result<()> {
        self.client.batch_execute(mode.sql()).await.map_err(|e| self.not_switched_off(&e))
    }

    fn not_switched_off(&self, error: &tokio_postgres::Error) -> Fault {
        not_switched_off(Fault::sql(self.side, SWITCHING_OFF, error))
    }

    async fn pin(&self) -> Result<()> {
        let pins = settings::pins(self.server_version_num);
        let pinned = self.client.batch_execute(&pins);
        let Some(watch) = settings::watch_the_client(self.server_version_num) else {
            return pinned.await.map_err(|e| Fault::sql(self.side, "setting up the session", &e));
        };
        let (pinned, watching) = tokio::join!(pinned, self.client.batch_execute(&watch));
        if let Err(error) = watching {
            tracing::debug!(side = %self.side, "the server doesn't watch its clients: {error}");
        }
        pinned.map_err(|e| Fault::sql(self.side, "setting up the session", &e))
    }
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// The task that moves a session's bytes; it ends when this is dropped.
struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn drive(mut connection: Connection<LoggedIn, NoTlsStream>, side: Side) {
    loop {
        match std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notice(notice))) => log_session_notice(side, &notice),
            Some(Ok(_)) => {}
            // Whoever uses the session gets the failure too.
            Some(Err(error)) => {
                tracing::debug!(%side, "a session ended: {error}");
                return;
            }
            None => return,
        }
    }
}

/// A connection that is logged in already, for a client that wants to log in.
struct LoggedIn {
    transport: Transport,
    /// What the server said to our login.
    replay: BytesMut,
    /// True once the client's startup message was kept from the server.
    swallowed: bool,
}

impl AsyncRead for LoggedIn {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.replay.is_empty() {
            return Pin::new(&mut self.transport).poll_read(cx, buf);
        }
        let replayed_bytes = self.replay.len().min(buf.remaining());
        buf.put_slice(&self.replay[..replayed_bytes]);
        self.replay.advance(replayed_bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LoggedIn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.swallowed {
            return Pin::new(&mut self.transport).poll_write(cx, buf);
        }
        // A client says nothing else before it is answered, so this is that message, whole.
        let whole = buf.first_chunk().is_some_and(|length| u32::from_be_bytes(*length) as usize == buf.len());
        if !whole {
            return Poll::Ready(Err(io::Error::other("a startup message was expected")));
        }
        self.swallowed = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(cx)
    }
}
