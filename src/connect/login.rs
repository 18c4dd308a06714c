//! From an open connection to an authenticated one: startup message, authentication, greeting.
//!
//! SQL sessions and the walsender connection log in through here, so that both have one set of
//! rules for passwords and one set of messages for what can go wrong. (PostgreSQL documentation,
//! chapter "Message Flow", "Start-up" and "SASL Authentication".)
#![deny(clippy::wildcard_enum_match_arm)]

use std::collections::HashMap;
use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::{backend, frontend};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::{AsyncRead, AsyncWrite};

use super::conninfo::ChannelBinding as Binding;
use super::report::Report;
use super::wire::{Message, Wire};
use crate::fault::Side;
use crate::limits;

/// `AuthenticationOk` as the server sends it.
const AUTHENTICATION_OK: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 0];

/// Who logs in, and what may be said to the server.
#[derive(Debug)]
pub(crate) struct Credentials<'a> {
    /// The role.
    pub user: &'a str,
    /// Its password, if there is one.
    pub password: Option<&'a SecretString>,
    /// Whether channel binding is used.
    pub binding: Binding,
    /// The `tls-server-end-point` hash of the server's certificate (RFC 5929).
    pub end_point: Option<&'a [u8]>,
    /// Whether the password itself may be sent: over TLS, a unix socket, or where no TLS was asked for.
    pub cleartext: bool,
}

/// Why a login failed.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The connection broke.
    Io(io::Error),
    /// The server said no.
    Server {
        /// What it said.
        report: Box<Report>,
        /// True once something made from the password was sent.
        credentials_sent: bool,
    },
    /// We said no: what happened, and what to do.
    Ours(&'static str, &'static str),
    /// The server said something that doesn't belong there.
    Protocol(String),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        let from_tls = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
        if error.kind() == io::ErrorKind::InvalidData && !from_tls {
            Self::Protocol(error.to_string())
        } else {
            Self::Io(error)
        }
    }
}

/// What a server says once it has let us in.
#[derive(Debug, Default)]
pub(crate) struct Greeting {
    /// The parameters it reports (`server_version`, `in_hot_standby`, ...).
    pub parameters: HashMap<String, String>,
    /// `AuthenticationOk` up to `ReadyForQuery`, byte by byte.
    pub raw: BytesMut,
}

impl Greeting {
    /// The server's version as a number: 150013 for 15.13.
    #[must_use]
    pub(crate) fn server_version_num(&self) -> u32 {
        self.parameters.get("server_version").map_or(0, |text| version_num(text))
    }
}

/// 150013 for `15.13 (Debian 15.13-0+deb12u1)`; 180000 for `18beta1`; 0 for what is no version.
fn version_num(text: &str) -> u32 {
    let mut numbers = text
        .split(|c: char| !c.is_ascii_digit() && c != '.')
        .next()
        .unwrap_or_default()
        .split('.')
        .map(|digits| digits.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    major.saturating_mul(10_000).saturating_add(minor)
}

/// Logs in with the startup parameters given.
///
/// # Errors
///
/// Says why not.
pub(crate) async fn login<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<S>,
    side: Side,
    parameters: &[(&str, &str)],
    credentials: &Credentials<'_>,
) -> Result<Greeting, Refusal> {
    frontend::startup_message(parameters.iter().copied(), wire.outbox())
        .map_err(|_| Refusal::Ours("a connection parameter contains a NUL byte", "remove it"))?;
    wire.flush().await?;
    Login { wire, side, credentials, credentials_sent: false }.authenticate().await
}

struct Login<'a, S> {
    wire: &'a mut Wire<S>,
    side: Side,
    credentials: &'a Credentials<'a>,
    credentials_sent: bool,
}

/// The requests of the server that are answered here (AuthenticationXXX messages).
enum Request {
    Ok,
    Cleartext,
    Md5([u8; 4]),
    Sasl(Bytes),
    SaslContinue(Bytes),
    SaslFinal(Bytes),
    Other,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Login<'a, S> {
    async fn authenticate(mut self) -> Result<Greeting, Refusal> {
        match self.request().await? {
            Request::Ok => {
                self.may_go_unbound()?;
                return self.greeting().await;
            }
            Request::Cleartext => {
                self.may_go_unbound()?;
                if !self.credentials.cleartext {
                    return Err(Refusal::Ours(
                        "the server asks for the password in clear text over a connection without TLS",
                        "use sslmode=verify-full (or at least require), or scram-sha-256 in the server's pg_hba.conf",
                    ));
                }
                let password = self.password()?.as_bytes();
                self.send(|out| frontend::password_message(password, out)).await?;
            }
            Request::Md5(salt) => {
                self.may_go_unbound()?;
                let hash = md5_hash(self.credentials.user.as_bytes(), self.password()?.as_bytes(), salt);
                self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
            }
            Request::Sasl(mechanisms) => self.scram(mechanisms).await?,
            Request::SaslContinue(_) | Request::SaslFinal(_) => return Err(out_of_order()),
            Request::Other => {
                return Err(Refusal::Ours(
                    "the server asks for an authentication method that isn't supported (Kerberos, GSSAPI, SSPI or another)",
                    "use scram-sha-256 or a client certificate for this role in the server's pg_hba.conf",
                ));
            }
        }
        match self.request().await? {
            Request::Ok => self.greeting().await,
            Request::Cleartext
            | Request::Md5(_)
            | Request::Sasl(_)
            | Request::SaslContinue(_)
            | Request::SaslFinal(_)
            | Request::Other => Err(out_of_order()),
        }
    }

    async fn scram(&mut self, mut mechanisms: Bytes) -> Result<(), Refusal> {
        let (mut plain, mut plus) = (false, false);
        while let Some(name) = take_cstr(&mut mechanisms).filter(|name| !name.is_empty()) {
            plain |= name == SCRAM_SHA_256.as_bytes();
            plus |= name == SCRAM_SHA_256_PLUS.as_bytes();
        }
        let end_point = self.credentials.end_point.filter(|_| self.credentials.binding != Binding::Disable);
        let (mechanism, binding) = match end_point {
            Some(hash) if plus => (SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.to_vec())),
            // "y,,": we could have, but the server didn't offer it. It fails a login where someone
            // in between took the offer away.
            Some(_) if plain => (SCRAM_SHA_256, ChannelBinding::unrequested()),
            // "n,,": we can't. "y,," would fail here if the server did offer it.
            None if plain => (SCRAM_SHA_256, ChannelBinding::unsupported()),
            Some(_) | None => {
                return Err(Refusal::Ours(
                    "the server offers no SASL mechanism that is supported (OAuth, for example)",
                    "use scram-sha-256 for this role in the server's pg_hba.conf",
                ));
            }
        };
        if mechanism != SCRAM_SHA_256_PLUS {
            self.may_go_unbound()?;
        }
        let mut scram = ScramSha256::new(self.password()?.as_bytes(), binding);
        self.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;
        let Request::SaslContinue(challenge) = self.request().await? else { return Err(out_of_order()) };
        scram.update(&challenge).map_err(scram_failed)?;
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        let Request::SaslFinal(proof) = self.request().await? else { return Err(out_of_order()) };
        scram.finish(&proof).map_err(scram_failed)
    }

    /// Reads what follows AuthenticationOk, up to the first ReadyForQuery.
    async fn greeting(mut self) -> Result<Greeting, Refusal> {
        let mut greeting = Greeting::default();
        greeting.raw.put_slice(&AUTHENTICATION_OK);
        loop {
            let Message { tag, body } = self.message().await?;
            let length = u32::try_from(body.len() + 4).map_err(|_| out_of_order())?;
            greeting.raw.put_u8(tag);
            greeting.raw.put_u32(length);
            greeting.raw.put_slice(&body);
            if greeting.raw.len() > limits::LOGIN_MESSAGE_BYTES {
                return Err(Refusal::Protocol("the server's greeting has no end".to_owned()));
            }
            let mut body = body;
            match tag {
                backend::PARAMETER_STATUS_TAG => {
                    let (Some(name), Some(value)) = (take_cstr(&mut body), take_cstr(&mut body)) else {
                        return Err(out_of_order());
                    };
                    greeting.parameters.insert(lossy(&name), lossy(&value));
                }
                backend::BACKEND_KEY_DATA_TAG => {
                    // For cancelling, which we don't do; and a pooler's isn't the server's.
                }
                backend::READY_FOR_QUERY_TAG => return Ok(greeting),
                _ => return Err(out_of_order()),
            }
        }
    }

    async fn request(&mut self) -> Result<Request, Refusal> {
        let Message { tag, mut body } = self.message().await?;
        if tag != backend::AUTHENTICATION_TAG {
            return Err(out_of_order());
        }
        Ok(match body.try_get_i32().map_err(|_| out_of_order())? {
            0 => Request::Ok,
            3 => Request::Cleartext,
            5 => Request::Md5(body.as_ref().try_into().map_err(|_| out_of_order())?),
            10 => Request::Sasl(body),
            11 => Request::SaslContinue(body),
            12 => Request::SaslFinal(body),
            _ => Request::Other,
        })
    }

    /// The next message that isn't a notice; an error of the server is a refusal.
    async fn message(&mut self) -> Result<Message, Refusal> {
        loop {
            let message = self.wire.read(limits::LOGIN_MESSAGE_BYTES).await?;
            match message.tag {
                backend::NOTICE_RESPONSE_TAG => Report::parse(&message.body).log(self.side),
                backend::ERROR_RESPONSE_TAG => {
                    return Err(Refusal::Server {
                        report: Box::new(Report::parse(&message.body)),
                        credentials_sent: self.credentials_sent,
                    });
                }
                // NegotiateProtocolVersion: we ask for 3.0 without options, which PostgreSQL has
                // spoken since 7.4.
                b'v' => {
                    return Err(Refusal::Ours(
                        "the server doesn't speak version 3.0 of the PostgreSQL protocol",
                        "connect to the PostgreSQL server itself, not to something in front of it",
                    ));
                }
                _ => return Ok(message),
            }
        }
    }

    async fn send(&mut self, put: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Refusal> {
        put(self.wire.outbox())
            .map_err(|_| Refusal::Ours("the password contains a NUL byte", "remove it"))?;
        self.credentials_sent = true;
        Ok(self.wire.flush().await?)
    }

    fn password(&self) -> Result<&'a str, Refusal> {
        self.credentials.password.map(ExposeSecret::expose_secret).ok_or(Refusal::Ours(
            "the server asks for a password, and none was given",
            "put it into the connection string (percent-encoded in a URI), a passfile or PGPASSWORD",
        ))
    }

    fn may_go_unbound(&self) -> Result<(), Refusal> {
        match self.credentials.binding {
            Binding::Disable | Binding::Prefer => Ok(()),
            Binding::Require => Err(Refusal::Ours(
                "channel_binding=require was asked for, and this login can't have it",
                "it needs TLS, a server certificate that is not signed with Ed25519, and scram-sha-256 on the \
                 server; or use channel_binding=prefer",
            )),
        }
    }
}

/// Takes a NUL-terminated string off the front; `None` when there is no NUL.
pub(crate) fn take_cstr(body: &mut Bytes) -> Option<Bytes> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let text = body.split_to(end);
    body.advance(1);
    Some(text)
}

fn lossy(text: &Bytes) -> String {
    String::from_utf8_lossy(text).into_owned()
}

fn out_of_order() -> Refusal {
    Refusal::Protocol("the server's answer to the login can't be understood".to_owned())
}

fn scram_failed(error: io::Error) -> Refusal {
    Refusal::Protocol(format!("the server failed to prove that it knows the password ({error})"))
}

#[cfg(test)]
mod tests;
