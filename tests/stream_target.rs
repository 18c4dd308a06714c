//! `cdc run` applies rows as a replica: what the target would do by itself stays undone.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use support::pair::{Pair, is_since};

/// Makes an ordinary role on the target that owns the database's tables.
async fn owner(pair: &mut Pair) {
    let name = pair.name.clone();
    let sql = format!(
        "CREATE ROLE {name} LOGIN; ALTER DATABASE {name} OWNER TO {name}; ALTER SCHEMA public OWNER TO {name}"
    );
    pair.target.batch_execute(&sql).await.unwrap();
    pair.daemon_target_url = pair.target_url.replacen("postgres@", &format!("{name}@"), 1);
    assert_ne!(pair.daemon_target_url, pair.target_url);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_level_security_of_the_target_does_not_hide_rows_from_their_owner() {
    let mut pair = Pair::new("rls_owner").await;
    // Before, only a superuser may apply, and sees every row.
    if !is_since(15, &pair.target).await {
        return;
    }
    owner(&mut pair).await;
    let schema = "CREATE TABLE t (id int PRIMARY KEY, who text); ALTER TABLE t ENABLE ROW LEVEL SECURITY;
                  CREATE POLICY own ON t USING (who = current_user)";
    pair.both(schema).await;
    pair.target
        .batch_execute(
            "ALTER TABLE t OWNER TO rls_owner; GRANT SET ON PARAMETER session_replication_role TO rls_owner",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO t SELECT i, 'someone' FROM generate_series(1, 9) i; UPDATE t SET who = 'else' WHERE id < 5").await;
    pair.write("DELETE FROM t WHERE id = 7").await;
    pair.caught_up().await;
    pair.assert_equal().await;
    // Forced upon the owner too, it would hide rows: then the stream stops, and says why.
    pair.target.batch_execute("ALTER TABLE t FORCE ROW LEVEL SECURITY").await.unwrap();
    pair.write("UPDATE t SET who = 'hidden' WHERE id = 1").await;
    let status = pair.status_is("blocked", |status| status["verdict"] == "blocked").await;
    let incident = &status["incidents"][0];
    assert_eq!(incident["sqlstate"], "42501", "{incident:#}");
    assert!(incident["message"].as_str().unwrap().contains("row-level security policy"), "{incident:#}");
    assert_eq!(incident["table"], "public.t");
    pair.target.batch_execute("ALTER TABLE t NO FORCE ROW LEVEL SECURITY").await.unwrap();
    pair.ends_equal(daemon).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_may_not_apply_as_a_replica_is_refused() {
    let mut pair = Pair::new("no_replica").await;
    owner(&mut pair).await;
    pair.both("CREATE TABLE t (id int PRIMARY KEY)").await;
    pair.target.batch_execute("ALTER TABLE t OWNER TO no_replica").await.unwrap();
    let refused = pair.run(&["run"]);
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("GRANT SET ON PARAMETER session_replication_role"), "{said}");
}
