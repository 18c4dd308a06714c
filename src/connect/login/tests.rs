//! Logins against servers that don't play by the rules. (Real ones: `tests/connect.rs`.)

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![tag];
    message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend(body);
    message
}

fn request(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], body].concat())
}

struct Client {
    password: Option<SecretString>,
    binding: Binding,
    end_point: Option<&'static [u8]>,
    cleartext: bool,
}

impl Client {
    fn with_password() -> Self {
        let password = Some(SecretString::from("secret"));
        Self { password, binding: Binding::Prefer, end_point: None, cleartext: false }
    }

    /// Logs in to a server that says these things whatever it hears. Gives what it heard, too.
    async fn against(&self, script: &[Vec<u8>]) -> (Result<Greeting, Refusal>, Vec<u8>) {
        let (near, mut far) = duplex(1 << 20);
        let mut wire = Wire::new(near);
        far.write_all(&script.concat()).await.unwrap();
        let credentials = Credentials {
            user: "u",
            password: self.password.as_ref(),
            binding: self.binding,
            end_point: self.end_point,
            cleartext: self.cleartext,
        };
        let parameters = [("user", "u"), ("database", "d")];
        let result = login(&mut wire, Side::Source, &parameters, &credentials).await;
        drop(wire);
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.unwrap();
        (result, heard)
    }
}

fn refusal(result: Result<Greeting, Refusal>) -> String {
    match result {
        Ok(_) => "logged in".to_owned(),
        Err(Refusal::Ours(what, _)) => what.to_owned(),
        Err(Refusal::Protocol(what)) => what,
        Err(Refusal::Server { report, .. }) => report.message,
        Err(Refusal::Io(error)) => error.kind().to_string(),
    }
}

fn contains(heard: &[u8], text: &str) -> bool {
    heard.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn what_the_server_says_is_kept_word_by_word() {
    let script = [
        request(0, b""),
        message(b'S', b"server_version\x0015.13 (Debian 15.13-0+deb12u1)\0"),
        message(b'K', b"\0\0\x30\x39\0\0\0\x01"),
        message(b'Z', b"I"),
    ];
    let (result, heard) = Client::with_password().against(&script).await;
    let greeting = result.unwrap();
    assert_eq!(greeting.server_version_num(), 150_013);
    assert_eq!(greeting.raw, script.concat());
    assert!(contains(&heard, "user\0u\0database\0d\0"));
}

#[test]
fn versions_are_read_in_every_form() {
    let forms = [("15.13 (Debian)", 150_013), ("18beta1", 180_000), ("16.4", 160_004), ("x", 0), ("", 0)];
    for (text, number) in forms {
        assert_eq!(version_num(text), number, "{text}");
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear_text_unless_it_may() {
    let script = [request(3, b""), request(0, b""), message(b'Z', b"I")];
    let (result, heard) = Client::with_password().against(&script).await;
    assert!(refusal(result).contains("clear text"));
    assert!(!contains(&heard, "secret"));

    let (result, heard) = Client { cleartext: true, ..Client::with_password() }.against(&script).await;
    assert_eq!(refusal(result), "logged in");
    assert!(contains(&heard, "secret\0"));
}

#[tokio::test]
async fn a_server_that_skips_its_proof_is_refused() {
    let ok = [request(10, b"SCRAM-SHA-256\0\0"), request(0, b""), message(b'Z', b"I")];
    assert!(refusal(Client::with_password().against(&ok).await.0).contains("can't be understood"));
    let nonce = [request(10, b"SCRAM-SHA-256\0\0"), request(11, b"r=another,s=AAAA,i=4096"), request(0, b"")];
    assert!(refusal(Client::with_password().against(&nonce).await.0).contains("failed to prove"));
    let twice = [request(5, b"salt"), request(3, b""), request(0, b"")];
    assert!(refusal(Client::with_password().against(&twice).await.0).contains("can't be understood"));
}

#[tokio::test]
async fn without_channel_binding_nothing_is_sent_where_it_is_required() {
    let client = Client {
        binding: Binding::Require,
        end_point: Some(b"hash"),
        cleartext: true,
        ..Client::with_password()
    };
    let offers = [request(0, b""), request(3, b""), request(5, b"salt"), request(10, b"SCRAM-SHA-256\0\0")];
    for offer in offers {
        let (result, heard) = client.against(&[offer.clone(), message(b'Z', b"I")]).await;
        assert!(refusal(result).contains("channel_binding=require"), "{offer:?}");
        assert!(!contains(&heard, "SCRAM") && !contains(&heard, "md5") && !contains(&heard, "secret"));
    }
}

#[tokio::test]
async fn the_binding_flag_says_what_both_sides_can() {
    let both = &b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..];
    let plain = &b"SCRAM-SHA-256\0\0"[..];
    let cases = [
        (both, Some(&b"hash"[..]), Binding::Prefer, "p=tls-server-end-point,,"),
        (plain, Some(b"hash"), Binding::Prefer, "y,,"),
        (both, None, Binding::Prefer, "n,,"),
        (both, Some(b"hash"), Binding::Disable, "n,,"),
    ];
    for (offer, end_point, binding, flag) in cases {
        let client = Client { binding, end_point, ..Client::with_password() };
        let (_, heard) = client.against(&[request(10, offer), request(0, b"")]).await;
        assert!(contains(&heard, &format!("{flag}n=,r=")), "{flag}");
    }
}

#[tokio::test]
async fn nothing_but_a_login_is_listened_to() {
    let scripts = [
        vec![message(b'v', b"\0\x03\0\0\0\0\0\0")],
        vec![request(7, b"")],
        vec![request(12, b"")],
        vec![message(b'R', b"\0")],
        vec![message(b'T', b"")],
        vec![request(0, b""), message(b'D', b"\0\0")],
        vec![request(0, b""), message(b'S', b"no end")],
        vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()],
        vec![b"R\x00\x02\x00\x00".to_vec()],
        std::iter::once(request(0, b"")).chain((0..40).map(|_| message(b'S', &[b'x'; 2000]))).collect(),
    ];
    for script in scripts {
        let (result, _) = Client::with_password().against(&script).await;
        assert!(matches!(result, Err(Refusal::Ours(..) | Refusal::Protocol(_))), "{script:?}");
    }
    let no_password = Client { password: None, ..Client::with_password() };
    assert!(refusal(no_password.against(&[request(5, b"salt")]).await.0).contains("none was given"));
}
