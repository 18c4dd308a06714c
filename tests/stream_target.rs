//! `cdc run` applies rows as a replica: what the target would do by itself stays undone.

#![allow(clippy::unwrap_used, reason = "all of it is a test")]

mod support;

use support::pair::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn triggers_rules_and_foreign_keys_of_the_target_do_nothing() {
    let pair = Pair::new("replica").await;
    pair.both(
        "CREATE TABLE audit (id serial PRIMARY KEY, what text);
         CREATE TABLE parent (id int PRIMARY KEY, v text);
         CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE, v text);
         CREATE TABLE self (id int PRIMARY KEY, parent int REFERENCES self ON DELETE SET NULL);
         CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
           'BEGIN INSERT INTO public.audit (what) VALUES (TG_OP || TG_TABLE_NAME); NEW.v = coalesce(NEW.v, '''') || ''!''; RETURN NEW; END';
         CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION stamp();
         CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION stamp();
         CREATE RULE twice AS ON DELETE TO parent DO ALSO INSERT INTO audit (what) VALUES ('rule')",
    )
    .await;
    // Only the target refuses, changes or hides things.
    pair.target
        .batch_execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
             CREATE TRIGGER refuse BEFORE TRUNCATE ON audit EXECUTE FUNCTION refuse();
             CREATE TRIGGER refuse AFTER INSERT ON self FOR EACH ROW EXECUTE FUNCTION refuse();
             CREATE TABLE elsewhere (id int PRIMARY KEY);
             ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES elsewhere;
             CREATE RULE nothing AS ON INSERT TO self DO INSTEAD NOTHING;
             CREATE RULE nowhere AS ON UPDATE TO child DO INSTEAD NOTHING",
        )
        .await
        .unwrap();
    let daemon = pair.streaming().await;
    pair.write("INSERT INTO parent SELECT i FROM generate_series(1, 9) i; INSERT INTO child SELECT i, i FROM generate_series(1, 9) i")
        .await;
    pair.write("INSERT INTO self SELECT i, NULLIF(i - 1, 0) FROM generate_series(1, 9) i").await;
    pair.write("UPDATE parent SET id = id + 100 WHERE id > 5; DELETE FROM parent WHERE id < 3; DELETE FROM self WHERE id = 4").await;
    // The stream has a parent's DELETE before its children's, and children before their parents here.
    pair.write(
        "BEGIN; ALTER TABLE child ALTER CONSTRAINT child_parent_fkey DEFERRABLE; SET CONSTRAINTS ALL DEFERRED;
         INSERT INTO child VALUES (50, 60); INSERT INTO parent VALUES (60); COMMIT",
    )
    .await;
    pair.caught_up().await;
    pair.assert_equal().await;
    pair.write("TRUNCATE audit; TRUNCATE parent CASCADE; INSERT INTO self VALUES (20, 1)").await;
    pair.ends_equal(daemon).await;
}

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
