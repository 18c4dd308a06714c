//! A webhook: it takes messages, refuses them, or says nothing.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::pair::PATIENCE;

/// How it answers.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Answers {
    Well,
    /// So many times, and well from then on.
    With(StatusCode, u32),
    Never,
}

#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) url: String,
    answers: Arc<Mutex<Answers>>,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Receiver {
    /// At a path that is a secret.
    pub(crate) async fn start(answers: Answers) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook/s3cret-t0ken", listener.local_addr().unwrap());
        let receiver = Self { url, answers: Arc::new(Mutex::new(answers)), taken: Arc::default() };
        let router = Router::new().route("/hook/s3cret-t0ken", post(Self::take)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    async fn take(State(receiver): State<Self>, body: String) -> (StatusCode, &'static str) {
        let answers = *receiver.answers.lock().unwrap();
        match answers {
            Answers::Well => {}
            Answers::Never => std::future::pending().await,
            Answers::With(code, times) => {
                let next = if times > 1 { Answers::With(code, times - 1) } else { Answers::Well };
                *receiver.answers.lock().unwrap() = next;
                return (code, "no /hook/s3cret-t0ken today");
            }
        }
        receiver.taken.lock().unwrap().push(serde_json::from_str(&body).unwrap());
        (StatusCode::OK, "ok")
    }

    pub(crate) fn answer(&self, answers: Answers) {
        *self.answers.lock().unwrap() = answers;
    }

    /// What it has taken.
    pub(crate) fn taken(&self) -> Vec<Value> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits for a message about this.
    pub(crate) async fn told(&self, event: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.taken().into_iter().find(|message| message["event"] == event) {
                return message;
            }
            assert!(Instant::now() < deadline, "{event} was never told: {:#?}", self.taken());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Takes messages over TLS, as `localhost`; gives its address and its certificate.
pub(crate) async fn secure() -> (String, String) {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/hook/s3cret-t0ken", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    });
    (url, cert.pem())
}
