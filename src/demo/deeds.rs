//! What the applications of the examples do all day, as SQL with blanks.
//!
//! A blank is a `$word` and is filled in anew each time: see [`Form`]. Keys are picked from the rows
//! that are there at the moment, so that the writer has nothing to remember and outlives restarts.

use fastrand::Rng;
use tokio_postgres::types::{ToSql, Type};

use super::data::Example;

/// A statement, and how often it is done in comparison with the others.
pub(super) type Deed = (u32, &'static str);

/// A statement of the example.
pub(super) fn any(example: Example, rng: &mut Rng) -> &'static str {
    let deeds = all(example);
    let mut left = rng.u32(0..deeds.iter().map(|(weight, _)| weight).sum());
    let mut chosen = "";
    for (weight, sql) in deeds {
        chosen = sql;
        if left < *weight {
            break;
        }
        left -= weight;
    }
    chosen
}

/// The statements of an example; the bank has its own ways.
pub(super) fn all(example: Example) -> &'static [Deed] {
    match example {
        Example::Salon => SALON,
        Example::Shop => SHOP,
        Example::Agent => AGENT,
        Example::Bank => &[],
    }
}

/// Empties one small table.
pub(super) fn truncate(example: Example) -> &'static str {
    match example {
        Example::Salon => "TRUNCATE sync_status",
        Example::Shop => "TRUNCATE webhook_dedupe",
        Example::Agent => "TRUNCATE agent_messages",
        Example::Bank => "TRUNCATE transfers",
    }
}

/// Texts with everything in them that scripts have broken on.
const TEXTS: [&str; 11] = [
    "",
    "Запишите меня на завтра",
    r#"O'Brien said "hello""#,
    r"C:\new\table",
    "two\nlines\tand a tab",
    "NULL",
    r"\N",
    r"\.",
    r#"{a,"b",NULL}"#,
    "日本語 💇‍♀️ 👍🏽",
    " trailing space ",
];

/// Any of the texts, or NULL; now and then one that is compressed, or stored out of line.
pub(super) fn text(rng: &mut Rng) -> Option<String> {
    match rng.u32(0..200) {
        0 => Some(wide(rng)),
        1..10 => Some("compressible ".repeat(500)),
        10..25 => None,
        _ => short(rng),
    }
}

fn short(rng: &mut Rng) -> Option<String> {
    Some(TEXTS[rng.usize(0..TEXTS.len())].to_owned())
}

/// 9 kB of text that don't compress.
fn wide(rng: &mut Rng) -> String {
    std::iter::repeat_with(|| rng.alphanumeric()).take(9_000).collect()
}

/// A value that is made up each time a statement is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blank {
    Fraction,
    Small,
    Number,
    Uuid,
    Text,
    Short,
    Wide,
}

/// A value for a blank.
pub(super) type Value = Box<dyn ToSql + Send + Sync>;

impl Blank {
    const ALL: [(&'static str, Self); 7] = [
        ("fraction", Self::Fraction),
        ("small", Self::Small),
        ("number", Self::Number),
        ("uuid", Self::Uuid),
        ("text", Self::Text),
        ("short", Self::Short),
        ("wide", Self::Wide),
    ];

    pub(super) fn kind(self) -> Type {
        match self {
            Self::Fraction => Type::FLOAT8,
            Self::Small | Self::Number => Type::INT4,
            Self::Uuid | Self::Text | Self::Short | Self::Wide => Type::TEXT,
        }
    }

    pub(super) fn value(self, rng: &mut Rng) -> Value {
        match self {
            Self::Fraction => Box::new(rng.f64()),
            Self::Small => Box::new(rng.i32(0..2_000)),
            Self::Number => Box::new(rng.i32(0..1_000_000)),
            Self::Uuid => Box::new(format!("{:032x}", rng.u128(..))),
            Self::Text => Box::new(text(rng)),
            Self::Short => Box::new(short(rng)),
            Self::Wide => Box::new(wide(rng)),
        }
    }
}

/// A statement that can be prepared, and what its parameters are.
pub(super) struct Form {
    pub(super) sql: String,
    pub(super) blanks: Vec<Blank>,
}

impl Form {
    /// Turns the blanks of a template into parameters.
    ///
    /// | blank | becomes |
    /// | --- | --- |
    /// | `$fraction`, `$small`, `$number` | a number below 1, 2,000, a million |
    /// | `$uuid` | a uuid |
    /// | `$text`, `$short` | any text or NULL; one that fits into an index |
    /// | `$wide` | 9 kB of text that don't compress |
    /// | `$row_TABLE`, `$uuid_TABLE` | the `id` of some row: a number, a uuid |
    /// | `$company` | the `id` of some salon |
    pub(super) fn new(template: &str) -> Self {
        let mut form = Self { sql: String::with_capacity(2 * template.len()), blanks: Vec::new() };
        form.append(template);
        form
    }

    fn append(&mut self, template: &str) {
        let mut rest = template;
        while let Some(at) = rest.find('$') {
            let word = &rest[at + 1..];
            let end = word.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(word.len());
            self.sql.push_str(&rest[..at]);
            self.append_blank(&word[..end]);
            rest = &word[end..];
        }
        self.sql.push_str(rest);
    }

    fn append_blank(&mut self, word: &str) {
        if let Some((_, blank)) = Blank::ALL.into_iter().find(|(name, _)| *name == word) {
            self.blanks.push(blank);
            let cast = if blank == Blank::Uuid { "::uuid" } else { "" };
            self.sql.push_str(&format!("${}{cast}", self.blanks.len()));
            return;
        }
        match word.split_once('_') {
            Some(("row", table)) => self.append(&format!(
                "(SELECT id FROM {table} WHERE id >= (SELECT (max(id) * $fraction)::bigint FROM {table})
                   ORDER BY id LIMIT 1)"
            )),
            Some(("uuid", table)) => {
                self.append(&format!("(SELECT id FROM {table} WHERE id >= $uuid ORDER BY id LIMIT 1)"));
            }
            _ if word == "company" => {
                self.append("(SELECT min(id) + floor($fraction * count(*))::integer FROM companies)");
            }
            // Not a blank: the server will refuse it, and a test sees that.
            _ => self.sql.push_str(&format!("${word}")),
        }
    }
}

const SALON: &[Deed] = &[
    // The WhatsApp library keeps its session keys in the database, all day.
    (
        40,
        "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value, expires_at)
         VALUES ($company, 'session', $small::text, jsonb_build_object('n', $number, 't', $text::text), now() + interval '1 day')
         ON CONFLICT (company_id, key_type, key_id) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
    ),
    (
        3,
        "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value)
         SELECT c, 'pre-key', (first + i)::text, jsonb_build_object('i', i, 't', $text::text)
           FROM (SELECT $company AS c, $small AS first) x, generate_series(1, 20) i
         ON CONFLICT (company_id, key_type, key_id) DO UPDATE SET value = excluded.value, expires_at = 'infinity'",
    ),
    (
        4,
        "UPDATE whatsapp_keys SET key_id = $number::text
          WHERE (company_id, key_type, key_id) = (
                SELECT company_id, key_type, key_id FROM whatsapp_keys
                 WHERE company_id = $company AND key_type = 'session' AND key_id >= $small::text ORDER BY key_id LIMIT 1)",
    ),
    (
        4,
        "DELETE FROM whatsapp_keys
          WHERE (company_id, key_type, key_id) = (
                SELECT company_id, key_type, key_id FROM whatsapp_keys
                 WHERE company_id = $company AND key_type = 'session' AND key_id >= $small::text ORDER BY key_id LIMIT 1)",
    ),
    // Clients; a few have notes that are stored out of line and stay as they are.
    (
        10,
        "UPDATE clients SET total_spent = total_spent + 1.50, visit_count = visit_count + 1, last_visit_at = now()
          WHERE id = $row_clients",
    ),
    (
        4,
        "UPDATE clients SET visit_history = jsonb_build_array(jsonb_build_object('cost', $number, 'note', $text::text)),
                tags = ARRAY[$short, NULL, 'regular'], favorite_staff_ids = '{}', discount = '-0', ai_context = NULL
          WHERE id = $row_clients",
    ),
    (1, "UPDATE clients SET notes = $wide WHERE id = $row_clients"),
    (1, "UPDATE clients SET notes = NULL, preferences = '{\"a\": 1.00}' WHERE id = $row_clients"),
    (
        2,
        "INSERT INTO clients (company_id, name, phone, tags, last_visit_at)
         VALUES ($company, $short, '+78' || lpad($number::text, 10, '0'), ARRAY[$short], '-infinity') ON CONFLICT DO NOTHING",
    ),
    (1, "DELETE FROM clients WHERE id = $row_clients"),
    (
        1,
        "UPDATE clients SET id = nextval(pg_get_serial_sequence('clients', 'id')) WHERE id = $row_clients",
    ),
    // Messages, in the partitions of the last months; some move to another one.
    (
        8,
        "INSERT INTO messages (company_id, phone, direction, body, metadata, created_at)
         VALUES ($company, '+79' || lpad($number::text, 9, '0'), 'incoming', $text,
                 jsonb_build_object('n', $number), clock_timestamp() - $small * interval '3 hours')",
    ),
    (
        2,
        "INSERT INTO messages (company_id, phone, direction, body, media)
         SELECT $company, '+79' || lpad($number::text, 9, '0'), 'outgoing', $text, decode(md5(i::text), 'hex')
           FROM generate_series(1, 10) i",
    ),
    (2, "UPDATE messages SET metadata = '{\"read\": true}' WHERE id = $row_messages"),
    (2, "UPDATE messages SET created_at = created_at - interval '31 days' WHERE id = $row_messages"),
    (2, "DELETE FROM messages WHERE id = $row_messages"),
    (
        1,
        "DELETE FROM messages WHERE (id, created_at) IN (
                SELECT id, created_at FROM messages WHERE id >= $row_messages ORDER BY id LIMIT 20)",
    ),
    // Bookings, with reminders that go with them.
    (
        4,
        "INSERT INTO bookings (company_id, client_id, staff_id, services, slot, cost, comment)
         VALUES ($company, $row_clients, $row_staff, ARRAY[1, $small],
                 tstzrange(now() + $small * interval '1 minute', now() + interval '3 days'), $number / 100.0, $text)",
    ),
    (4, "UPDATE bookings SET status = 'confirmed', cost = NULL WHERE id = $row_bookings"),
    (2, "DELETE FROM bookings WHERE id = $row_bookings"),
    (
        2,
        "INSERT INTO reminders (booking_id, kind, send_at)
         SELECT id, 'two_hours', now() FROM bookings WHERE id = $row_bookings
         ON CONFLICT (booking_id, kind) DO UPDATE SET sent_at = now(), error = $text",
    ),
    (
        3,
        "INSERT INTO appointments_cache (company_id, record_id, payload, raw)
         VALUES ($company, $small, jsonb_build_object('t', $text::text, 'd', '[1.0, {}]'::jsonb), '{\"b\" : 1,  \"a\": 2}')
         ON CONFLICT (company_id, record_id) DO UPDATE SET payload = excluded.payload, fetched_at = now()",
    ),
    (1, "DELETE FROM appointments_cache WHERE record_id BETWEEN $small AND $small + 5"),
    (
        3,
        "INSERT INTO dialog_contexts (company_id, phone, data, transcript)
         VALUES ($company, '+7500' || lpad($small::text, 7, '0'), '{\"step\": 1}', $wide)
         ON CONFLICT (company_id, phone) DO UPDATE SET state = coalesce($text, ''), data = jsonb_build_object('n', $number)",
    ),
    (1, "UPDATE dialog_contexts SET id = gen_random_uuid() WHERE id = $uuid_dialog_contexts"),
    (1, "DELETE FROM dialog_contexts WHERE id = $uuid_dialog_contexts"),
    (1, "INSERT INTO sync_status VALUES ('clients', $company, 'done', $small % 3, '{\"a\" : 1.0}', now())"),
    (1, "UPDATE sync_status SET rows = $number, status = coalesce($text, '') WHERE ctid = (SELECT min(ctid) FROM sync_status)"),
    (1, "DELETE FROM sync_status WHERE ctid = (SELECT max(ctid) FROM sync_status)"),
    (
        1,
        "UPDATE staff_schedules SET is_working = NOT is_working, grid = ARRAY[[1, NULL], [$small, 4]], ends_at = NULL
          WHERE staff_id = $row_staff",
    ),
    (1, "UPDATE staff_schedules SET day = day + 70 WHERE staff_id = $row_staff AND day < '2030-01-01'"),
    (1, "UPDATE staff SET rating = $fraction WHERE id = $row_staff"),
    (1, "UPDATE services SET price_max = price_max + 0.10, duration = duration + '1 second' WHERE id = $row_services"),
    (1, "UPDATE whatsapp_auth SET creds = creds || jsonb_build_object('n', $number) WHERE company_id = $company"),
    (1, "UPDATE companies SET settings = jsonb_build_object('t', $text::text), rent = $small::text::money WHERE id = $company"),
];

const SHOP: &[Deed] = &[
    (
        10,
        "INSERT INTO messages (user_id, role, content, parts, tool_calls)
         VALUES ($row_users, 'user', $text, ARRAY['{\"a\": 1.0}'::jsonb, NULL], jsonb_build_object('t', $text::text))",
    ),
    (2, "UPDATE messages SET tool_calls = NULL WHERE id = $row_messages"),
    (3, "DELETE FROM messages WHERE id = $row_messages"),
    (10, "UPDATE users SET last_message_at = clock_timestamp() WHERE id = $row_users"),
    (
        1,
        "INSERT INTO users (id, full_name, attributes) SELECT max(id) + 1, $text, '{}' FROM users ON CONFLICT DO NOTHING",
    ),
    (1, "UPDATE users SET summary = $wide, tags = ARRAY[$text] WHERE id = $row_users"),
    (
        2,
        "UPDATE products SET price = $number / 100.0, sizes = ARRAY[$text, 'M'], in_stock = NOT in_stock
          WHERE id = $row_products",
    ),
    (1, "UPDATE products SET embedding = (SELECT embedding FROM products WHERE id = $row_products) WHERE id = $row_products"),
    (
        4,
        "INSERT INTO orders (user_id, status, delivery, comment)
         VALUES ($row_users, 'placed', jsonb_build_object('t', $text::text), $text)",
    ),
    (4, "UPDATE orders SET status = 'paid', placed_at = 'infinity', total = total + 0.10 WHERE id = $row_orders"),
    (1, "UPDATE orders SET id = nextval(pg_get_serial_sequence('orders', 'id')) WHERE id = $row_orders"),
    (1, "DELETE FROM orders WHERE id = $row_orders"),
    (
        5,
        "INSERT INTO order_items (order_id, line, product_id, size, quantity, unit_price)
         SELECT id, 100 + i, $row_products, $text, i, $number / 100.0 FROM orders, generate_series(1, 3) i
          WHERE id = $row_orders
         ON CONFLICT (order_id, line) DO UPDATE SET quantity = order_items.quantity + 1",
    ),
    (1, "DELETE FROM order_items WHERE order_id = $row_orders AND line > 100"),
    (
        2,
        "INSERT INTO crm_orders (order_id, payload, response) VALUES ($row_orders, '{\"n\": 1.00}', '{ \"b\":1, \"b\":2}')
         ON CONFLICT (order_id) DO UPDATE SET attempts = (crm_orders.attempts + 1) % 1000, pushed_at = now()",
    ),
    (1, "UPDATE sitniks_chat_mappings SET status = coalesce($text, ''), touched_at = '-infinity' WHERE user_id = $row_users"),
    (
        2,
        "INSERT INTO mirt_profiles (user_id, style, sizes, confidence) VALUES ($row_users, '{}', '[1,5)', 'NaN')
         ON CONFLICT (user_id) DO UPDATE SET confidence = '-0', style = jsonb_build_object('t', $text::text)",
    ),
    (
        3,
        "INSERT INTO mirt_memories (user_id, content, embedding)
         SELECT $row_users, coalesce($text, ''), embedding FROM mirt_memories WHERE id = $uuid_mirt_memories",
    ),
    (2, "UPDATE mirt_memories SET importance = $fraction, id = gen_random_uuid() WHERE id = $uuid_mirt_memories"),
    (2, "DELETE FROM mirt_memories WHERE id = $uuid_mirt_memories"),
    (
        2,
        "INSERT INTO mirt_memory_summaries VALUES ($row_users, 'daily', $wide, $small)
         ON CONFLICT (user_id, summary_type) DO UPDATE SET facts = excluded.facts",
    ),
    (
        6,
        "INSERT INTO llm_usage (user_id, provider, model, tokens_input, tokens_output, cost_usd)
         VALUES ($row_users, 'anthropic', 'model', $number, $small, $fraction)",
    ),
    (
        4,
        "INSERT INTO llm_traces (trace_id, step, prompt, history)
         SELECT $uuid, i, $text, '{running,\"timed out\",NULL}' FROM generate_series(1, 4) i",
    ),
    (
        2,
        "UPDATE llm_traces SET status = 'ok', latency = '1.234567 s', completion = $text
          WHERE trace_id = (SELECT trace_id FROM llm_traces WHERE trace_id >= $uuid ORDER BY trace_id LIMIT 1)",
    ),
    (
        2,
        "DELETE FROM llm_traces
          WHERE trace_id = (SELECT trace_id FROM llm_traces WHERE trace_id >= $uuid ORDER BY trace_id LIMIT 1)",
    ),
    (
        8,
        "INSERT INTO agent_sessions (session_id, state) VALUES ('session:' || $small, jsonb_build_object('t', $text::text))
         ON CONFLICT (session_id) DO UPDATE SET state = excluded.state, version = agent_sessions.version + 1",
    ),
    (
        5,
        "INSERT INTO webhook_dedupe (source, event_id, payload) VALUES ('mono', $number::text, decode(md5($number::text), 'hex'))
         ON CONFLICT (source, event_id) DO UPDATE SET expires_at = now() - interval '1 second'",
    ),
    (1, "UPDATE webhook_dedupe SET event_id = event_id || '!' WHERE event_id = (SELECT min(event_id) FROM webhook_dedupe WHERE event_id >= $number::text AND length(event_id) < 40)"),
    (1, "DELETE FROM webhook_dedupe WHERE event_id = (SELECT min(event_id) FROM webhook_dedupe WHERE event_id >= $number::text)"),
    (
        4,
        "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint) VALUES ('live-' || $small, $uuid, '{\"v\": 4}')",
    ),
    (
        4,
        "INSERT INTO checkpoint_blobs (thread_id, channel, version, type, blob)
         VALUES ('live-' || $small, 'messages', '1', 'msgpack', convert_to($wide, 'UTF8'))
         ON CONFLICT (thread_id, checkpoint_ns, channel, version) DO UPDATE SET type = 'empty'",
    ),
    (
        4,
        "INSERT INTO checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
         SELECT 'live-' || $small, $uuid, 'task', i, 'messages', '\\x00' FROM generate_series(-1, 3) i",
    ),
    (1, "DELETE FROM checkpoint_writes WHERE thread_id = 'live-' || $small"),
    (1, "DELETE FROM checkpoint_blobs WHERE thread_id = 'live-' || $small"),
];

const AGENT: &[Deed] = &[
    (
        10,
        "INSERT INTO messages (conversation_id, parent_message_id, role, content, metadata)
         SELECT conversation_id, id, 'assistant', coalesce($text, ''), jsonb_build_object('t', $text::text)
           FROM messages WHERE id = $uuid_messages",
    ),
    (5, "UPDATE messages SET metadata = '{\"n\": 1.00}' WHERE id = $uuid_messages"),
    (2, "UPDATE messages SET id = gen_random_uuid() WHERE id = $uuid_messages"),
    (3, "DELETE FROM messages WHERE id = $uuid_messages"),
    (
        2,
        "INSERT INTO conversations (profile_id, title, metadata)
         VALUES (coalesce($uuid_profiles, (SELECT max(id::text)::uuid FROM profiles)), $text, '{\"deep\": [[[]]]}')",
    ),
    (3, "UPDATE conversations SET title = $text, archived_at = 'infinity' WHERE id = $uuid_conversations"),
    (1, "UPDATE conversations SET id = gen_random_uuid() WHERE id = $uuid_conversations"),
    (
        4,
        "INSERT INTO messages (conversation_id, role, content)
         SELECT id, 'user', $wide FROM conversations, generate_series(1, 3) i WHERE id = $uuid_conversations",
    ),
    (
        4,
        "INSERT INTO leads (conversation_id, name, services_interested, score, budget)
         VALUES ($uuid_conversations, $text, ARRAY[$short, 'SEO', NULL], '-0', '[1,)')",
    ),
    (
        4,
        "UPDATE leads SET previous_statuses = ARRAY[status], status = 'qualified', score = $fraction, contacted_at = now()
          WHERE id = $uuid_leads",
    ),
    (2, "DELETE FROM leads WHERE id = $uuid_leads"),
    (
        3,
        "INSERT INTO workflow_executions (conversation_id, name, participating_agents, plan, results)
         VALUES ($uuid_conversations, 'live', ARRAY['planner', $text], '{\"steps\": []}', to_jsonb($wide))",
    ),
    (
        5,
        "UPDATE workflow_executions SET status = 'completed', started_at = now() - interval '1.5 s', finished_at = now()
          WHERE id = $uuid_workflow_executions",
    ),
    (1, "DELETE FROM workflow_executions WHERE id = $uuid_workflow_executions"),
    (
        8,
        "INSERT INTO agent_messages (workflow_id, sender, receiver, payload)
         SELECT id, 'planner', $text, jsonb_build_object('i', i, 't', $text::text)
           FROM workflow_executions, generate_series(1, 4) i WHERE id = $uuid_workflow_executions",
    ),
    (2, "UPDATE agent_messages SET payload = '{}' WHERE id = $uuid_agent_messages"),
    (3, "DELETE FROM agent_messages WHERE id = $uuid_agent_messages"),
    (
        10,
        "INSERT INTO shared_memory (conversation_id, memory_key, value)
         SELECT id, 'live', jsonb_build_object('t', $text::text) FROM conversations WHERE id = $uuid_conversations
         ON CONFLICT (conversation_id, memory_key, scope) DO UPDATE SET value = excluded.value, written_by = 'critic'",
    ),
    (2, "DELETE FROM shared_memory WHERE id = $uuid_shared_memory"),
    (2, "UPDATE profiles SET settings = jsonb_build_object('n', $number), display_name = $text WHERE id = $uuid_profiles"),
];

#[cfg(test)]
mod tests {
    use tokio_postgres::NoTls;
    use tokio_postgres::error::SqlState;

    use super::*;
    use crate::demo::Cluster;
    use crate::demo::writer::Session;

    #[test]
    fn a_blank_becomes_a_parameter() {
        let form = Form::new("SELECT $small, $text::text, '$', $uuid_t");
        assert_eq!(
            form.sql,
            "SELECT $1, $2::text, '$', (SELECT id FROM t WHERE id >= $3::uuid ORDER BY id LIMIT 1)"
        );
        assert_eq!(form.blanks, [Blank::Small, Blank::Text, Blank::Uuid]);
    }

    #[test]
    fn the_same_seed_gives_the_same_statements() {
        let statements = |seed| {
            let mut rng = Rng::with_seed(seed);
            (0..50).map(|_| (any(Example::Salon, &mut rng), text(&mut rng))).collect::<Vec<_>>()
        };
        assert_eq!(statements(7), statements(7));
        assert_ne!(statements(7), statements(8));
    }

    /// A deed that fails, or never finds a row, would leave a hole that nobody notices.
    #[tokio::test]
    async fn every_deed_is_accepted_and_changes_something() {
        let cluster = Cluster::start("deeds").await.unwrap();
        let connect = async |database: &str| {
            let (client, connection) = tokio_postgres::connect(&cluster.url(database), NoTls).await.unwrap();
            tokio::spawn(connection);
            client
        };
        for example in [Example::Salon, Example::Shop, Example::Agent] {
            let admin = connect("postgres").await;
            admin.batch_execute(&format!("CREATE DATABASE {}", example.name())).await.unwrap();
            let client = connect(example.name()).await;
            client.batch_execute(example.schema()).await.unwrap();
            example.load(&client, 1).await.unwrap();
            let mut session = Session::new(client);
            let mut rng = Rng::with_seed(3);
            for (_, deed) in all(example) {
                let mut changed = 0;
                for _ in 0..100 {
                    changed += match session.deed(deed, &mut rng).await {
                        Ok(rows) => rows,
                        Err(e) if e.code() == Some(&SqlState::UNIQUE_VIOLATION) => 0,
                        Err(e) => panic!("{deed}\n{e:?}"),
                    };
                }
                assert!(changed > 0, "{deed}");
            }
        }
    }
}
