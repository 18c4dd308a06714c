//! A clean stop, as a type: whoever waits for something can wait for the request to stop, too.

use tokio::sync::watch;

/// Asks for the stop.
#[derive(Debug)]
pub struct Trigger(watch::Sender<bool>);

/// Learns of the request to stop. Clones learn of the same request.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A trigger and what it reaches.
#[must_use]
pub fn shutdown() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Trigger(sender), Shutdown(receiver))
}

impl Trigger {
    /// Asks for the stop. Once asked, it stays asked.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// True once the stop has been asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the stop is asked for; at once if it has been.
    pub async fn requested(&mut self) {
        // An error means that nobody is left who could ask; then nobody will.
        if self.0.wait_for(|requested| *requested).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
