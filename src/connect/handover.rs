//! A connection that is logged in, for a program that knows libpq only.
//!
//! ```text
//! pg_dump ──► socket in a directory that only we can enter ──► Handover ──► Transport ──► server
//!    its startup message gets the greeting that the server gave us
//! ```
//!
//! So the program needs no password, no certificate and none of the settings that a connection string has: what
//! this process understands by it is what counts, for whatever version of libpq.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytes::{Buf, BufMut, BytesMut};
use postgres_protocol::message::backend;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::conninfo::ConnInfo;
use super::login::Greeting;
use super::report::Report;
use super::transport::Transport;
use super::wire::Wire;
use super::{Purpose, advice};
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// The number in the socket's name: the port that the program is told.
pub(crate) const PORT: u16 = 5432;

/// Requests that come instead of a startup message (PostgreSQL documentation, chapter "Message Formats"): for
/// TLS and for GSSAPI encryption, neither of which a socket needs.
const ENCRYPTION_REQUESTS: [u32; 2] = [80_877_103, 80_877_104];

/// A connection that waits for its program.
pub(crate) struct Handover {
    side: Side,
    wire: Wire<Transport>,
    greeting: Greeting,
    listener: UnixListener,
    directory: TempDir,
}

/// How the program got on with the server.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// The last error that the server reported.
    pub(crate) error: Option<Fault>,
    /// Why the connection to the server was lost before the program had ended it.
    pub(crate) lost: Option<Fault>,
}

impl Handover {
    /// Connects and logs in.
    ///
    /// # Errors
    ///
    /// As of [`super::open()`], and if there can be no socket.
    pub(crate) async fn open(info: &ConnInfo, side: Side, application_name: &str) -> Result<Self> {
        let (wire, greeting) = super::open(info, side, application_name, Purpose::Sql).await?;
        let broken = |e: io::Error| {
            Fault::person(format!("a socket can't be made in {}: {e}", std::env::temp_dir().display()))
                .remedy("name a directory with a short path that can be written to in TMPDIR")
        };
        // Nobody else may enter it: whoever gets to the socket is logged in.
        let directory = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir();
        let directory = directory.map_err(broken)?;
        let listener =
            UnixListener::bind(directory.path().join(format!(".s.PGSQL.{PORT}"))).map_err(broken)?;
        Ok(Self { side, wire, greeting, listener, directory })
    }

    /// The directory of the socket: the program's `PGHOST`.
    pub(crate) fn host(&self) -> &Path {
        self.directory.path()
    }

    /// Passes on what both say until one of them ends. `doing` is for the faults.
    pub(crate) async fn serve(mut self, mut program: UnixStream, doing: &str) -> Served {
        let mut served = Served::default();
        let mut said = BytesMut::new();
        loop {
            tokio::select! {
                message = self.wire.read(limits::MESSAGE_BYTES) => match message {
                    Ok(message) => {
                        if message.tag == backend::ERROR_RESPONSE_TAG {
                            served.error = Some(Report::parse(&message.body).fault(self.side, doing));
                        }
                        let mut header = BytesMut::with_capacity(5);
                        header.put_u8(message.tag);
                        // The length came from such a word.
                        header.put_u32(u32::try_from(message.body.len() + 4).unwrap_or(u32::MAX));
                        // What is wrong with its end of the socket, the program says.
                        if program.write_all_buf(&mut header.chain(message.body)).await.is_err() {
                            return served;
                        }
                    }
                    Err(error) => {
                        served.lost = Some(advice::lost(self.side, doing, &error));
                        return served;
                    }
                },
                read_bytes = program.read_buf(&mut said) => {
                    if read_bytes.unwrap_or(0) == 0 {
                        return served;
                    }
                    self.wire.outbox().unsplit(said.split());
                    if let Err(error) = self.wire.flush().await {
                        served.lost = Some(advice::lost(self.side, doing, &error));
                        return served;
                    }
                }
            }
        }
    }

    /// Waits for the program, and answers its startup message as the server has answered ours.
    ///
    /// # Errors
    ///
    /// What the socket says.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (mut program, _) = self.listener.accept().await?;
        while ENCRYPTION_REQUESTS.contains(&startup(&mut program).await?) {
            program.write_all(b"N").await?;
        }
        program.write_all(&self.greeting.raw).await?;
        Ok(program)
    }
}

/// Reads a startup message; gives its code.
async fn startup(program: &mut (impl AsyncRead + Unpin)) -> io::Result<u32> {
    let bytes = usize::try_from(program.read_u32().await?).unwrap_or(usize::MAX);
    if !(8..=limits::LOGIN_MESSAGE_BYTES).contains(&bytes) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let code = program.read_u32().await?;
    let mut rest = vec![0; bytes - 8];
    program.read_exact(&mut rest).await?;
    Ok(code)
}
