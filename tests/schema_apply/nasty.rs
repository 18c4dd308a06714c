//! Whatever a schema has arrives as it is.

use super::{apply, assert_same, dump, newest_dump, owned, similar, source_dump};

#[tokio::test(flavor = "multi_thread")]
async fn a_nasty_schema_arrives_as_it_is_and_a_second_run_does_nothing() {
    for (name, pg_dump) in [("nasty", source_dump()), ("nasty_newest", newest_dump())] {
        let mut pair = owned(name).await;
        pair.environment = vec![("CDC_PG_DUMP".to_owned(), pg_dump.display().to_string())];
        pair.write(include_str!("nasty.sql")).await;
        let (code, report) = apply(&pair, &[]);
        assert_eq!(code, 0, "{report:#}");
        assert_eq!(report["left_out"], serde_json::json!([]), "{report:#}");
        assert_same(&pair);
        let (there, here) = (dump(&pair.source_url), dump(&pair.target_url));
        similar(&there, &here);
        let (code, report) = apply(&pair, &[]);
        assert_eq!((code, &report["made"]), (0, &serde_json::json!([])), "{report:#}");
        assert_eq!(dump(&pair.target_url), here);
    }
}
