//! What is put back is what was held back, whatever it was.

use cdc::catalog::TableName;
use cdc::schema::{held, put_back};

use super::{NAME, Target, key};

const NASTY: &str = include_str!("nasty.sql");

fn nasty_key(table: &TableName) -> Vec<String> {
    if table.name.starts_with("event_") && table.name != "event_note" {
        return key(&["day", "id"]);
    }
    key(&["id"])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_made_by_hand_comes_back_as_it_was() {
    let target = Target::new("nasty", NASTY).await;
    let before = target.schema().await;
    target.hold_back_all(nasty_key).await;
    let session = target.session().await;
    let rows = target
        .admin
        .query("SELECT build, put_back, validate FROM cdc.held_back ORDER BY id DESC", &[])
        .await
        .unwrap();
    for row in rows {
        println!(
            "{:?}\n{:#?}\n{:?}\n",
            row.get::<_, Option<String>>(0),
            row.get::<_, Vec<String>>(1),
            row.get::<_, Option<String>>(2)
        );
    }
    for fault in put_back(&session, NAME).await.unwrap() {
        println!("{fault}");
    }
    assert_eq!(held(&*session, NAME).await.unwrap(), []);
    target.assert_schema(&before).await;
}
