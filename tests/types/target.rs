//! What the target would do by itself stays undone, and what either side hides is found.

use super::situation::Situation;

/// Triggers, rules and foreign keys of the target do nothing.
pub fn triggers_and_rules() -> Situation {
    Situation {
        // Only the target refuses, changes or hides things.
        target_schema: "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END';
             CREATE TRIGGER refuse BEFORE TRUNCATE ON audit EXECUTE FUNCTION refuse();
             CREATE TRIGGER refuse AFTER INSERT ON self FOR EACH ROW EXECUTE FUNCTION refuse();
             CREATE TABLE elsewhere (id int PRIMARY KEY);
             ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES elsewhere NOT VALID;
             CREATE RULE nothing AS ON INSERT TO self DO INSTEAD NOTHING;
             CREATE RULE nowhere AS ON UPDATE TO child DO INSTEAD NOTHING"
            .to_owned(),
        ..Situation::new(
            "CREATE TABLE audit (id serial PRIMARY KEY, what text);
             CREATE TABLE parent (id int PRIMARY KEY, v text);
             CREATE TABLE child (id int PRIMARY KEY,
                                 parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE DEFERRABLE, v text);
             CREATE TABLE self (id int PRIMARY KEY, parent int REFERENCES self ON DELETE SET NULL);
             CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
               'BEGIN INSERT INTO public.audit (what) VALUES (TG_OP || TG_TABLE_NAME);
                      NEW.v = coalesce(NEW.v, '''') || ''!''; RETURN NEW; END';
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON parent FOR EACH ROW EXECUTE FUNCTION stamp();
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION stamp();
             CREATE RULE twice AS ON DELETE TO parent DO ALSO INSERT INTO audit (what) VALUES ('rule')",
            "INSERT INTO parent SELECT i FROM generate_series(1, 9) i;
             INSERT INTO child SELECT i, i FROM generate_series(1, 9) i;
             INSERT INTO self SELECT i, NULLIF(i - 1, 0) FROM generate_series(1, 9) i",
            &[
                "UPDATE parent SET id = id + 100 WHERE id > 5; DELETE FROM parent WHERE id < 3;
                 DELETE FROM self WHERE id = 4",
                // The stream has a parent's DELETE before its children's, and children before their parents here.
                "BEGIN; SET CONSTRAINTS ALL DEFERRED; INSERT INTO child VALUES (50, 60);
                 INSERT INTO parent VALUES (60); COMMIT",
                "UPDATE child SET v = 'w' WHERE id = 4; DELETE FROM child WHERE id = 5; TRUNCATE audit",
                "UPDATE child SET v = 'x' WHERE id = 50; TRUNCATE parent CASCADE; TRUNCATE self; INSERT INTO self VALUES (20, NULL)",
            ],
        )
    }
}

/// Row level security on both sides, also forced upon the owner.
pub fn row_security() -> Situation {
    let mut situation = Situation::default();
    for (table, force) in [("secret", "NO FORCE"), ("secret_from_its_owner", "FORCE")] {
        situation.schema.push_str(&format!(
            "CREATE TABLE {table} (id int PRIMARY KEY, who text); ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
             ALTER TABLE {table} {force} ROW LEVEL SECURITY;
             CREATE POLICY own ON {table} USING (who = current_user);"
        ));
        situation
            .rows
            .push_str(&format!("INSERT INTO {table} SELECT i, 'someone' FROM generate_series(1, 9) i;"));
        situation.changes.push(format!(
            "UPDATE {table} SET who = 'else' WHERE id < 5; UPDATE {table} SET id = -id WHERE id = 6;
             DELETE FROM {table} WHERE id = 7"
        ));
    }
    situation
}

/// A parent and its children have rows of their own, with the same keys.
pub fn inheritance() -> Situation {
    Situation::new(
            "CREATE TABLE older (id int PRIMARY KEY, v text);
             CREATE TABLE younger (extra text, PRIMARY KEY (id)) INHERITS (older);
             CREATE TABLE youngest (PRIMARY KEY (id)) INHERITS (younger);
             ALTER TABLE youngest REPLICA IDENTITY FULL;
             CREATE TABLE older_full (v json); ALTER TABLE older_full REPLICA IDENTITY FULL;
             CREATE TABLE younger_full () INHERITS (older_full); ALTER TABLE younger_full REPLICA IDENTITY FULL",
            "INSERT INTO older SELECT i, 'older' FROM generate_series(1, 20) i;
             INSERT INTO younger SELECT i, 'younger', 'x' FROM generate_series(1, 20) i;
             INSERT INTO youngest SELECT i, 'youngest' FROM generate_series(1, 20) i;
             INSERT INTO older_full VALUES ('1'), ('1'), ('3'); INSERT INTO younger_full VALUES ('1'), ('1'), ('3')",
            &[
                "UPDATE older SET v = 'all' WHERE id < 4; UPDATE ONLY older SET v = 'one' WHERE id = 5;
                 DELETE FROM older WHERE id = 6",
                "DELETE FROM ONLY older WHERE id = 7; UPDATE younger SET id = -id WHERE id = 8;
                 DELETE FROM younger WHERE id = 9",
                "DELETE FROM younger_full WHERE ctid = (SELECT min(ctid) FROM ONLY younger_full);
                 UPDATE ONLY older_full SET v = '2' WHERE ctid = (SELECT min(ctid) FROM ONLY older_full)",
                "TRUNCATE ONLY younger; INSERT INTO younger VALUES (1, 'again')",
            ],
        )
}
