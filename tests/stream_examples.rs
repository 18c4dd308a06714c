//! `cdc run` follows the example databases while they are filled and written to.

mod support;

use std::time::Duration;

use cdc::demo::data::Example;
use cdc::demo::writer::Writer;
use support::pair::Pair;

/// Changes of all kinds for this long, after the example's own rows.
const WRITING: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_followed_from_its_first_row_on() {
    // One after the other, as their schemas make the same roles.
    for example in Example::ALL {
        let pair = Pair::new(example.name()).await;
        pair.both(example.schema()).await;
        let daemon = pair.streaming().await;
        example.load(&pair.source, 1).await.unwrap();
        let writer = Writer::start(&pair.source_url, example, 500, 7);
        tokio::time::sleep(WRITING).await;
        let written = writer.stop().await;
        assert!(written.rows() > 0, "{example:?}");
        pair.ends_equal(daemon).await;
    }
}
