//! Chromium without a window, spoken to through its DevTools protocol.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::http::request;
use crate::support::pair::PATIENCE;

/// A browser with one page. Dropping it ends it.
pub(crate) struct Browser {
    child: Child,
    page: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    /// What the page has asked for, and what went wrong in it.
    requests: Vec<String>,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts one, if it is installed.
    pub(crate) async fn start() -> Option<Self> {
        let Some(program) = installed("chromium") else {
            eprintln!("NOT TESTED: chromium is not installed, so nobody looks at the status page");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .args(["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--hide-scrollbars"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(["--remote-debugging-port=0", "about:blank"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let said = lines.find_map(|line| line.strip_prefix("DevTools listening on ws://").map(str::to_owned));
        let address = said.expect("it listens").split('/').next().unwrap().to_owned();
        // Or it would wait for somebody to read what it says.
        std::thread::spawn(move || lines.for_each(drop));
        let pages = request(&address, "GET", "/json/list", "HTTP/1.1").await.unwrap().json();
        let page = pages.as_array().unwrap().iter().find(|page| page["type"] == "page").unwrap().clone();
        let (page, _) =
            tokio_tungstenite::connect_async(page["webSocketDebuggerUrl"].as_str().unwrap()).await.unwrap();
        let mut browser =
            Self { child, page, calls: 0, requests: Vec::new(), complaints: Vec::new(), _profile: profile };
        for domain in ["Network", "Log", "Runtime", "Page"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let call = json!({"id": self.calls, "method": method, "params": parameters}).to_string();
        self.page.send(Message::text(call)).await.unwrap();
        loop {
            let Message::Text(text) = self.page.next().await.unwrap().unwrap() else { continue };
            let mut said: Value = serde_json::from_str(&text).unwrap();
            if said["id"] == self.calls {
                assert!(said["error"].is_null(), "{method}: {said}");
                return said["result"].take();
            }
            match said["method"].as_str() {
                Some("Network.requestWillBeSent") => {
                    self.requests.push(said["params"]["request"]["url"].as_str().unwrap().to_owned());
                }
                Some("Log.entryAdded" | "Runtime.exceptionThrown") => self.complaints.push(said.to_string()),
                _ => {}
            }
        }
    }

    /// Opens a page.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
    }

    /// What an expression gives.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let answer =
            self.call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true})).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn sees(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.eval(&format!("Boolean({expression})")).await != true {
            if Instant::now() > deadline {
                panic!("never: {expression}\n{}", self.eval("document.body.innerText").await);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the page says this.
    pub(crate) async fn reads(&mut self, text: &str) {
        self.sees(&format!("document.body?.innerText.includes({})", json!(text))).await;
    }

    /// Everything that the page has asked for until now.
    pub(crate) fn requests(&self) -> &[String] {
        &self.requests
    }

    /// What went wrong in the page until now, a lost connection aside.
    pub(crate) fn complaints(&self) -> Vec<&String> {
        self.complaints
            .iter()
            .filter(|said| !said.contains("net::ERR_") && !said.contains("status of 503"))
            .collect()
    }

    /// Nothing of the page is cut off at this width, in either scheme; pictures of it go to `$CDC_SCREENSHOTS`.
    pub(crate) async fn fits(&mut self, name: &str) {
        for (kind, width, scheme) in
            [("light", 1200, "light"), ("dark", 1200, "dark"), ("phone", 390, "dark")]
        {
            let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            self.call("Emulation.setEmulatedMedia", scheme).await;
            self.window(width, 900).await;
            let wide = self.eval("document.documentElement.scrollWidth").await.as_i64().unwrap();
            assert!(wide <= width, "{name}: {wide} pixels do not fit into {width}");
            let Some(directory) = std::env::var_os("CDC_SCREENSHOTS") else { continue };
            let height = self.eval("document.documentElement.scrollHeight").await.as_i64().unwrap();
            self.window(width, height).await;
            let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
            use base64::Engine;
            let picture = base64::prelude::BASE64_STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            std::fs::write(Path::new(&directory).join(format!("{name}-{kind}.png")), picture).unwrap();
        }
    }

    async fn window(&mut self, width: i64, height: i64) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
        // Until it is drawn.
        self.call(
            "Runtime.evaluate",
            json!({"expression": "new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))",
                   "awaitPromise": true}),
        )
        .await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a program is, if it is installed.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.exists())
}
