//! The salon under its writers: what a busy production database looks like.

#![allow(clippy::print_stdout, reason = "all of it is a test")]

mod support;

use std::time::Duration;

use cdc::demo::{data::Example, writer::Writer};
use support::pair::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn the_salon_under_2000_changes_a_second_is_equal_and_without_lag_at_rest() {
    let pair = Pair::new("busy_salon").await;
    for client in [&pair.source, &pair.target] {
        client.batch_execute(Example::Salon.schema()).await.expect("the schema fits");
        Example::Salon.load(client, 1).await.expect("the rows fit");
    }
    let daemon = pair.streaming().await;
    let writer = Writer::start(&pair.source_url, Example::Salon, 2000, 7);
    tokio::time::sleep(Duration::from_secs(15)).await;
    let busy = pair.status();
    let written = writer.stop().await;
    pair.caught_up().await;
    println!("{} rows in 15 s ({written:?}); under load {}", written.rows(), busy["lag"]);
    pair.assert_equal().await;
    let status = pair.status_is("at rest without lag", |s| s["lag"]["bytes"] == 0).await;
    assert_eq!(
        (&status["verdict"], &status["lag"]["seconds"]),
        (&"streaming".into(), &0.0.into()),
        "{status:#}"
    );
    assert!(status["checkpoint"]["changes"].as_i64().expect("a number") > 0, "{status:#}");
    assert!(daemon.terminate().await.success());
}
