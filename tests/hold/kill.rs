//! Nothing is lost however often it is killed.

use cdc::connect::Mode;
use cdc::fault::Reaction;
use cdc::schema::{Until, held, hold_back, put_back};

use super::{NAME, Target, hold, key, table, until};
use crate::support::pair::{connect, number};

/// One of each kind, each in several steps.
const SCHEMA: &str = "
    CREATE EXTENSION btree_gist;
    CREATE TABLE parent (id int PRIMARY KEY, code text CONSTRAINT code UNIQUE, u int);
    COMMENT ON CONSTRAINT code ON parent IS 'a constraint';
    CREATE UNIQUE INDEX u ON parent (lower(code), u);
    COMMENT ON INDEX u IS 'an index';
    ALTER TABLE parent ADD CONSTRAINT apart EXCLUDE USING gist (u WITH =);
    CREATE TABLE t (id int, code text REFERENCES parent (code), u int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (0) TO (10);
    CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (10) TO (20);
    ALTER TABLE t ADD CONSTRAINT pair UNIQUE (u, id);
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER on_parent BEFORE UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION f();
    ALTER TABLE parent ENABLE ALWAYS TRIGGER on_parent;
    CREATE RULE of_parent AS ON DELETE TO parent DO ALSO NOTHING;
    INSERT INTO parent SELECT i, i, i FROM generate_series(1, 9) i;
    INSERT INTO t SELECT i, i, i FROM generate_series(1, 9) i;
    -- Kills whoever begins or ends the Nth command.
    CREATE SCHEMA kill;
    CREATE TABLE kill.at (n bigint);
    INSERT INTO kill.at VALUES (0);
    CREATE SEQUENCE kill.step;
    CREATE FUNCTION kill.here() RETURNS event_trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF nextval('kill.step') = (SELECT n FROM kill.at) THEN
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
    END $$;
    CREATE EVENT TRIGGER begins ON ddl_command_start EXECUTE FUNCTION kill.here();
    CREATE EVENT TRIGGER ends ON ddl_command_end EXECUTE FUNCTION kill.here();";

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_each_statement_it_goes_on_where_it_was() {
    let target = Target::new("kill", SCHEMA).await;
    let before = target.schema().await;
    let mut kills = 0;
    loop {
        target.admin.batch_execute("UPDATE kill.at SET n = 0").await.unwrap();
        for name in ["parent", "p1", "p2"] {
            target.hold_back_as("postgres", Mode::Owner, &table(name), &key(&["id"])).await.unwrap();
        }
        let arm = format!("UPDATE kill.at SET n = {}; SELECT setval('kill.step', 1, false)", kills + 1);
        target.admin.batch_execute(&arm).await.unwrap();
        let killed = put_back(&target.session().await, &[], NAME, Until::Cutover).await;
        if killed.is_ok() {
            break;
        }
        kills += 1;
        let session = target.session().await;
        assert_eq!(
            put_back(&session, &[], NAME, Until::Cutover).await.unwrap().len(),
            0,
            "after kill {kills}"
        );
        assert_eq!(held(&*session, NAME).await.unwrap(), []);
        target.assert_schema(&before).await;
    }
    target.assert_schema(&before).await;
    // Eighteen commands, each with a beginning and an end.
    assert_eq!(kills, 36);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_while_holding_back_leaves_everything_as_it_is() {
    let target = Target::new("kill_hold", SCHEMA).await;
    let before = target.schema().await;
    let mut session = target.session().await;
    let transaction = session.transaction().await.unwrap();
    let taken =
        hold_back(&transaction, NAME, &table("parent"), hold(&key(&["id"]), Mode::Replica)).await.unwrap();
    assert_eq!(taken.len(), 7);
    transaction.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
    drop(transaction);
    assert_eq!(held(&target.admin, NAME).await.unwrap(), []);
    target.assert_schema(&before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_a_kill_left_half_built_is_built_anew() {
    let target = Target::new("kill_build", "CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE)").await;
    let before = target.schema().await;
    target.hold_back(&table("t"), &key(&["id"])).await.unwrap();
    let writer = connect(&target.url).await;
    writer.batch_execute("BEGIN; INSERT INTO public.t VALUES (1, 1)").await.unwrap();
    let session = target.session().await;
    let pid = session.backend_pid();
    let putting = tokio::spawn(async move { put_back(&session, &[], NAME, Until::Cutover).await });
    // It waits for the writer.
    until(&target.admin, "SELECT count(*) FROM pg_stat_progress_create_index WHERE lockers_total > 0").await;
    // Nobody else is at it meanwhile.
    let busy = put_back(&target.session().await, &[], NAME, Until::Cutover).await.unwrap_err();
    assert!(busy.passes(), "{busy}");
    let busy = target.hold_back(&table("t"), &key(&["id"])).await.unwrap_err();
    assert!(busy.passes(), "{busy}");
    target.admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.unwrap();
    assert_eq!(putting.await.unwrap().unwrap_err().reaction(), Reaction::Retry);
    writer.batch_execute("COMMIT").await.unwrap();
    assert_eq!(number(&target.admin, "SELECT count(*) FROM pg_index WHERE NOT indisvalid").await, 1);
    assert_eq!(put_back(&target.session().await, &[], NAME, Until::Cutover).await.unwrap().len(), 0);
    target.assert_schema(&before).await;
}
