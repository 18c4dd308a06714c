//! Characters beyond ASCII, from sources in other encodings and collations.

use super::situation::Situation;
use super::support::pair::{Pair, number};

/// The database, its encoding, and characters of that.
pub const ENCODINGS: [(&str, &str, &str); 4] = [
    ("utf8", "UTF8", "äöüß€"),
    ("latin1", "LATIN1", "äöüß ÿ£"),
    ("win1251", "WIN1251", "Привет, №"),
    ("euc_jp", "EUC_JP", "日本語テキスト"),
];

/// A source in that encoding, whose default collation isn't the target's: ICU's, where it has that.
pub async fn pair(name: &str, encoding: &str) -> Pair {
    let mut options = format!("ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    if encoding == "UTF8" {
        let probe = Pair::new("icu_probe").await;
        let sql = "SELECT count(*) FROM pg_collation
                    WHERE collname = 'de-x-icu' AND current_setting('server_version_num')::int >= 150000";
        if number(&probe.source, sql).await == 1 {
            options.push_str(" LOCALE_PROVIDER icu ICU_LOCALE 'de-DE'");
        }
    }
    Pair::with_options(name, &options, "").await
}

/// Tables, columns and rows in these characters, `xml` (or what stands for it) too; and keys that sort otherwise on the target.
pub fn all(encoding: &str, text: &str, xml: &str) -> Vec<Situation> {
    let characters = Situation::new(
        &format!(
            "CREATE TABLE \"{text}\" (\"k{text}\" text PRIMARY KEY, v text[], j jsonb, x {xml});
             CREATE TABLE whole (v text, j json); ALTER TABLE whole REPLICA IDENTITY FULL;"
        ),
        &format!(
            "INSERT INTO \"{text}\" SELECT '{text}' || i, '{{{text},NULL}}', '{{\"{text}\": \"{text}\"}}', '<a>{text}</a>'
               FROM generate_series(1, 20) i;
             INSERT INTO whole SELECT '{text}', '[\"{text}\"]' FROM generate_series(1, 20)"
        ),
        &[
            &format!("UPDATE \"{text}\" SET \"k{text}\" = \"k{text}\" || '{text}'"),
            &format!("UPDATE \"{text}\" SET v = NULL WHERE j IS NOT NULL"),
            "DELETE FROM whole WHERE ctid = (SELECT min(ctid) FROM whole)",
        ],
    );
    let first = text.chars().next().unwrap_or_default();
    let mut keys = Situation::default();
    let mut tables = vec![("t", "")];
    if encoding == "UTF8" {
        // The hash of a text is that of its bytes: in another encoding, a row's partition is another one.
        tables.push(("parts", " PARTITION BY HASH (k)"));
    }
    for (table, partitioned) in &tables {
        keys.schema.push_str(&format!("CREATE TABLE {table} (k text PRIMARY KEY, v text){partitioned};"));
        keys.rows.push_str(&format!(
            "INSERT INTO {table} SELECT k, 'v' FROM unnest('{{a,A,{first},z,Z,ss,_,-}}'::text[]) k;"
        ));
        keys.changes.push(format!(
            "UPDATE {table} SET v = k WHERE k > 'a'; DELETE FROM {table} WHERE k IN ('A', '{first}')"
        ));
        keys.changes.push(format!("UPDATE {table} SET k = k || k"));
    }
    if tables.len() > 1 {
        keys.schema.push_str(
            "CREATE TABLE parts_0 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 0);
             CREATE TABLE parts_1 PARTITION OF parts FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
        );
    }
    vec![characters, keys]
}
