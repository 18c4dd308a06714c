-- For each unit of scale: 120 products, 300 users, 200 orders with 500 items and 150 rows for the CRM, 100 chats,
-- 250 profiles, 600 memories, 280 summaries, 3,000 messages, 1,500 calls of a model, 800 trace steps, 250 sessions,
-- 900 webhook events, 400 checkpoints with 600 blobs and 1,000 writes; and 10 migrations, whatever the scale.
-- 10,960 rows at scale 1.

INSERT INTO users (id, username, full_name, language, phone, attributes, summary, tags, last_message_at, summarized_at,
                   created_at, updated_at)
SELECT i,
       CASE WHEN i % 4 <> 0 THEN 'user_' || i END,
       CASE WHEN i % 10 = 0 THEN pg_temp.phrase(i, 1) ELSE pg_temp.person(i, 2) END,
       (ARRAY['uk', 'ru', 'en', 'e'])[1 + i % 4],
       CASE WHEN i % 3 = 0 THEN '+380' || 500000000 + i END,
       jsonb_build_object('city', pg_temp.phrase(i, 3), 'sizes', '{"dress": "M", "shoes": 38.50}'::jsonb, 'children', '[]'::jsonb),
       CASE WHEN i % 150 = 1 THEN pg_temp.noise(i, 4, 100000) WHEN i % 5 = 0 THEN pg_temp.phrase(i, 5) END,
       CASE WHEN i % 3 = 0 THEN '{}' ELSE ARRAY['vip', pg_temp.phrase(i, 6)] END,
       CASE WHEN i % 20 = 0 THEN timestamptz '-infinity' ELSE pg_temp.moment(i, 7) END,
       CASE WHEN i % 6 = 0 THEN pg_temp.moment(i, 8) END,
       pg_temp.moment(i, 9), pg_temp.moment(i, 10)
  FROM generate_series(1, 300 * pg_temp.scale()) i;

INSERT INTO products (id, sku, name, description, price, old_price, sizes, colors, photo_urls, embedding, in_stock,
                      created_at, updated_at)
SELECT i,
       'SKU-' || lpad(i::text, 7, '0'),
       (ARRAY['Сукня', 'Костюм', 'Blouse', 'Trench coat', 'Тренч', 'Jupe'])[1 + i % 6] || ' "' || pg_temp.person(i, 20) || '"',
       CASE WHEN i % 60 = 1 THEN pg_temp.noise(i, 21, 100000) WHEN i % 7 <> 0 THEN repeat(pg_temp.phrase(i, 22) || ' ', 30) END,
       100 + pg_temp.dice(i, 23, 900000) / 100.0,
       CASE WHEN i % 3 = 0 THEN 9999.90 END,
       CASE WHEN i % 9 = 0 THEN '{}' ELSE ARRAY['XS-S', 'M', '146-152', NULL] END,
       jsonb_build_array(jsonb_build_object('name', 'чорний', 'hex', '#000', 'rgb', '[0, 0, 0.0]'::jsonb), NULL),
       CASE WHEN i % 2 = 0 THEN ARRAY['https://example.com/a?b=1&c=%20' || i] END,
       CASE WHEN i % 10 <> 0 THEN pg_temp.floats(i, 24, 32) END,
       i % 13 <> 0,
       pg_temp.moment(i, 25), pg_temp.moment(i, 26)
  FROM generate_series(1, 120 * pg_temp.scale()) i;

INSERT INTO orders (id, user_id, status, delivery, total, comment, placed_at, created_at, updated_at)
SELECT i,
       1 + pg_temp.dice(i, 30, 300 * pg_temp.scale()),
       (enum_range(NULL::order_status))[1 + pg_temp.dice(i, 31, 7)],
       CASE WHEN i % 4 <> 0 THEN jsonb_build_object('service', 'Нова Пошта', 'branch', i % 100, 'note', pg_temp.phrase(i, 32)) END,
       pg_temp.dice(i, 33, 1000000) / 100.0,
       CASE WHEN i % 3 = 0 THEN pg_temp.phrase(i, 34) END,
       CASE WHEN i % 5 <> 0 THEN pg_temp.moment(i, 35) END,
       pg_temp.moment(i, 36), pg_temp.moment(i, 37)
  FROM generate_series(1, 200 * pg_temp.scale()) i;

-- Two and a half items to an order.
INSERT INTO order_items (order_id, line, product_id, size, quantity, unit_price, updated_at)
SELECT 1 + (i - 1) % (200 * pg_temp.scale()),
       1 + (i - 1) / (200 * pg_temp.scale()),
       CASE WHEN i % 20 <> 0 THEN 1 + pg_temp.dice(i, 40, 120 * pg_temp.scale()) END,
       CASE WHEN i % 4 <> 0 THEN 'M' END,
       1 + pg_temp.dice(i, 41, 3),
       pg_temp.dice(i, 42, 500000) / 100.0,
       pg_temp.moment(i, 43)
  FROM generate_series(1, 500 * pg_temp.scale()) i;

INSERT INTO crm_orders (id, order_id, crm_id, payload, response, attempts, pushed_at, updated_at)
SELECT pg_temp.key(i, 50), i,
       CASE WHEN i % 3 <> 0 THEN 'CRM/' || i END,
       jsonb_build_object('buyer', pg_temp.person(i, 51), 'products', '[{"sku": "a", "qty": 1}]'::jsonb),
       CASE WHEN i % 2 = 0 THEN ('{"ok" : true,"id":' || i || '}')::json END,
       i % 4,
       CASE WHEN i % 3 <> 0 THEN pg_temp.moment(i, 52) END,
       pg_temp.moment(i, 53)
  FROM generate_series(1, 150 * pg_temp.scale()) i;

INSERT INTO sitniks_chat_mappings (chat_id, user_id, manager_id, status, touched_at, updated_at)
SELECT 'chat:' || i, i, CASE WHEN i % 2 = 0 THEN i % 7 END, (ARRAY['open', 'closed', ''])[1 + i % 3],
       CASE WHEN i % 4 = 0 THEN timestamp 'infinity' ELSE pg_temp.moment(i, 60) AT TIME ZONE 'UTC' END,
       pg_temp.moment(i, 61)
  FROM generate_series(1, 100 * pg_temp.scale()) i;

INSERT INTO mirt_profiles (user_id, height_cm, style, sizes, confidence, updated_at)
SELECT i, CASE WHEN i % 3 <> 0 THEN 150 + i % 40 END,
       jsonb_build_object('likes', ARRAY[pg_temp.phrase(i, 70)], 'avoid', NULL),
       CASE i % 4 WHEN 0 THEN 'empty' WHEN 1 THEN int4range(36, NULL) WHEN 2 THEN int4range(38, 42) END,
       CASE i % 50 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0' WHEN 2 THEN 'Infinity' WHEN 3 THEN 5e-324 ELSE 1.0 / (1 + i % 17) END,
       pg_temp.moment(i, 71)
  FROM generate_series(1, 250 * pg_temp.scale()) i;

INSERT INTO mirt_memories (id, user_id, content, fact_type, importance, surprise, embedding, expires_at, created_at, updated_at)
SELECT pg_temp.key(i, 80), 1 + pg_temp.dice(i, 81, 300 * pg_temp.scale()),
       pg_temp.phrase(i, 82),
       CASE WHEN i % 3 <> 0 THEN 'preference' END,
       pg_temp.dice(i, 83, 1000) / 1000.0,
       CASE WHEN i % 2 = 0 THEN pg_temp.dice(i, 84, 1000) / 999.0 END,
       CASE WHEN i % 12 <> 0 THEN pg_temp.floats(i, 85, 32) END,
       CASE WHEN i % 5 = 0 THEN timestamptz 'infinity' END,
       pg_temp.moment(i, 86), pg_temp.moment(i, 87)
  FROM generate_series(1, 600 * pg_temp.scale()) i;

INSERT INTO mirt_memory_summaries (user_id, summary_type, summary, facts, updated_at)
SELECT i, (ARRAY['overall', 'style', ''])[1 + i % 3], repeat(pg_temp.phrase(i, 90) || E'\n', 20), i % 50, pg_temp.moment(i, 91)
  FROM generate_series(1, 280 * pg_temp.scale()) i;

INSERT INTO messages (id, user_id, role, content, parts, tool_calls, created_at, updated_at)
SELECT i, CASE WHEN i % 40 <> 0 THEN 1 + pg_temp.dice(i, 100, 300 * pg_temp.scale()) END,
       (ARRAY['user', 'assistant', 'system', 'tool'])[1 + i % 4],
       CASE WHEN i % 1500 = 1 THEN pg_temp.noise(i, 101, 100000) WHEN i % 15 <> 0 THEN pg_temp.phrase(i, 102) END,
       CASE i % 5 WHEN 0 THEN ARRAY['{"type": "text"}'::jsonb, NULL, '"a"'] WHEN 1 THEN '{}' END,
       CASE WHEN i % 4 = 1 THEN jsonb_build_array(jsonb_build_object('name', 'search', 'args', jsonb_build_object('q', pg_temp.phrase(i, 103)))) END,
       pg_temp.moment(i, 104), pg_temp.moment(i, 105)
  FROM generate_series(1, 3000 * pg_temp.scale()) i;

INSERT INTO llm_usage (id, user_id, provider, model, tokens_input, tokens_output, cost_usd, created_at, updated_at)
SELECT i, CASE WHEN i % 7 <> 0 THEN 1 + pg_temp.dice(i, 110, 300 * pg_temp.scale()) END,
       (enum_range(NULL::llm_provider))[1 + i % 4], 'model-' || i % 3,
       pg_temp.dice(i, 111, 8000), pg_temp.dice(i, 112, 2000),
       CASE WHEN i % 9 <> 0 THEN pg_temp.dice(i, 113, 100000) / 1e7 END,
       pg_temp.moment(i, 114), pg_temp.moment(i, 115)
  FROM generate_series(1, 1500 * pg_temp.scale()) i;

INSERT INTO llm_traces (trace_id, step, provider, status, history, prompt, completion, latency, updated_at)
SELECT pg_temp.key((i - 1) / 4, 120), (i - 1) % 4,
       CASE WHEN i % 6 <> 0 THEN (enum_range(NULL::llm_provider))[1 + i % 4] END,
       (enum_range(NULL::trace_status))[1 + i % 4],
       CASE WHEN i % 3 = 0 THEN '{}' ELSE ARRAY['running', 'timed out', NULL]::trace_status[] END,
       CASE WHEN i % 400 = 1 THEN pg_temp.noise(i, 121, 100000) ELSE pg_temp.phrase(i, 122) END,
       CASE WHEN i % 5 <> 0 THEN repeat(pg_temp.phrase(i, 123), 10) END,
       CASE WHEN i % 4 <> 0 THEN pg_temp.dice(i, 124, 10000000) * interval '1 microsecond' END,
       pg_temp.moment(i, 125)
  FROM generate_series(1, 800 * pg_temp.scale()) i;

INSERT INTO agent_sessions (session_id, state, version, created_at, updated_at)
SELECT 'telegram:' || i,
       jsonb_build_object('node', 'offer', 'messages', jsonb_build_array(pg_temp.phrase(i, 130), NULL, 1.0),
                          'blob', CASE WHEN i % 25 = 0 THEN pg_temp.noise(i, 131, 20000) END),
       i % 100, pg_temp.moment(i, 132), pg_temp.moment(i, 133)
  FROM generate_series(1, 250 * pg_temp.scale()) i;

INSERT INTO webhook_dedupe (source, event_id, payload, expires_at, updated_at)
SELECT (ARRAY['telegram', 'instagram', 'mono "bank"'])[1 + i % 3], md5('event' || i),
       CASE i % 3 WHEN 0 THEN '' WHEN 1 THEN decode(md5(i::text), 'hex') END,
       pg_temp.moment(i, 140), pg_temp.moment(i, 141)
  FROM generate_series(1, 900 * pg_temp.scale()) i;

INSERT INTO checkpoint_migrations SELECT generate_series(0, 9);

INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
SELECT 'thread-' || i / 8, CASE WHEN i % 10 = 0 THEN 'sub:graph|1' ELSE '' END, pg_temp.key(i, 150)::text,
       CASE WHEN i % 8 <> 0 THEN pg_temp.key(i - 1, 150)::text END,
       CASE WHEN i % 2 = 0 THEN 'json' END,
       jsonb_build_object('v', 4, 'id', i, 'channel_values', jsonb_build_object('x', pg_temp.phrase(i, 151)),
                          'versions_seen', '{}'::jsonb),
       CASE WHEN i % 3 = 0 THEN '{}' ELSE jsonb_build_object('step', i % 8, 'source', 'loop') END
  FROM generate_series(1, 400 * pg_temp.scale()) i;

INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
SELECT 'thread-' || i / 12, '', 'channel' || i % 12, lpad(i::text, 32, '0') || '.' || md5(i::text),
       CASE WHEN i % 9 = 0 THEN 'empty' ELSE 'msgpack' END,
       CASE WHEN i % 9 = 0 THEN NULL WHEN i % 300 = 1 THEN convert_to(pg_temp.noise(i, 160, 100000), 'UTF8')
            ELSE decode(repeat(md5(i::text), 1 + i % 20), 'hex') END
  FROM generate_series(1, 600 * pg_temp.scale()) i;

INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
SELECT 'thread-' || i / 20, '', pg_temp.key(i / 3, 150)::text, md5('task' || i / 3), i % 3 - 1, 'messages',
       CASE WHEN i % 4 <> 0 THEN 'msgpack' END,
       CASE WHEN i % 10 = 0 THEN '' ELSE decode(md5(i::text), 'hex') END,
       CASE WHEN i % 2 = 0 THEN '~__pregel_pull, agent' ELSE '' END
  FROM generate_series(1, 1000 * pg_temp.scale()) i;

SELECT pg_temp.advance_sequences();
