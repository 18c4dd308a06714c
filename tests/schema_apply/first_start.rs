//! `cdc run` alone makes the schema, copies and follows.

use cdc::demo::data::Example;

use super::{assert_same, owned};

#[tokio::test(flavor = "multi_thread")]
async fn every_example_arrives_through_the_daemon_alone() {
    for example in Example::ALL {
        let pair = owned(&format!("example_{}", example.name())).await;
        pair.write(example.schema()).await;
        example.load(&pair.source, 1).await.unwrap();
        let daemon = pair.streaming().await;
        assert_same(&pair);
        pair.ends_equal(daemon).await;
    }
}
