-- For each unit of scale: 50 profiles, 200 conversations, 2,400 messages, 150 leads, 180 workflows with 900 messages
-- between agents, and 400 shared memories. 4,280 rows at scale 1.

INSERT INTO profiles (id, email, display_name, avatar, settings, last_seen, created_at, updated_at)
SELECT pg_temp.key(i, 1), 'user' || i || '@example.com',
       CASE WHEN i % 6 = 0 THEN pg_temp.phrase(i, 2) ELSE pg_temp.person(i, 3) END,
       CASE i % 5 WHEN 0 THEN convert_to(pg_temp.noise(i, 4, 20000), 'UTF8') WHEN 1 THEN '' END,
       jsonb_build_object('theme', 'dark', 'limits', '{"daily": 1e2, "none": null}'::jsonb),
       CASE WHEN i % 2 = 0 THEN ('10.' || i % 256 || '.0.0/16')::cidr END,
       pg_temp.moment(i, 5), pg_temp.moment(i, 6)
  FROM generate_series(1, 50 * pg_temp.scale()) i;

INSERT INTO conversations (id, profile_id, title, channel, metadata, archived_at, created_at, updated_at)
SELECT pg_temp.key(i, 10), pg_temp.key(1 + pg_temp.dice(i, 11, 50 * pg_temp.scale()), 1),
       CASE WHEN i % 4 <> 0 THEN pg_temp.phrase(i, 12) END,
       (ARRAY['web', 'email', ''])[1 + i % 3],
       CASE WHEN i % 3 = 0 THEN '{}' ELSE jsonb_build_object('utm', pg_temp.phrase(i, 13), 'n', 1.50, 'deep', '[[[{}]]]'::jsonb) END,
       CASE WHEN i % 5 = 0 THEN timestamptz 'infinity' WHEN i % 5 = 1 THEN pg_temp.moment(i, 14) END,
       pg_temp.moment(i, 15), pg_temp.moment(i, 16)
  FROM generate_series(1, 200 * pg_temp.scale()) i;

-- Twelve messages to a conversation, most of which answer the one before.
INSERT INTO messages (id, conversation_id, parent_message_id, role, content, metadata, created_at, updated_at)
SELECT pg_temp.key(i, 20), pg_temp.key(1 + (i - 1) / 12, 10),
       CASE WHEN (i - 1) % 12 > 0 AND i % 7 <> 0 THEN pg_temp.key(i - 1, 20) END,
       (ARRAY['user', 'assistant', 'system'])[1 + i % 3],
       CASE WHEN i % 1200 = 1 THEN pg_temp.noise(i, 21, 100000) ELSE pg_temp.phrase(i, 22) END,
       CASE WHEN i % 3 = 0 THEN jsonb_build_object('tokens', i, 'citations', '[]'::jsonb, 'text', pg_temp.phrase(i, 23)) END,
       pg_temp.moment(i, 24), pg_temp.moment(i, 25)
  FROM generate_series(1, 2400 * pg_temp.scale()) i;

INSERT INTO leads (id, conversation_id, name, email, company, status, previous_statuses, score, budget,
                   services_interested, notes, contacted_at, created_at, updated_at)
SELECT pg_temp.key(i, 30), CASE WHEN i % 4 <> 0 THEN pg_temp.key(1 + pg_temp.dice(i, 31, 200 * pg_temp.scale()), 10) END,
       pg_temp.person(i, 32),
       CASE WHEN i % 3 <> 0 THEN 'lead+' || i || '@example.com' END,
       CASE WHEN i % 2 = 0 THEN pg_temp.phrase(i, 33) END,
       (enum_range(NULL::lead_status))[1 + i % 6],
       CASE WHEN i % 3 = 0 THEN '{}' ELSE ARRAY['new', 'contacted']::lead_status[] END,
       CASE i % 30 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' WHEN 2 THEN '-0' ELSE 1 / (0.3 + i % 11) END,
       CASE i % 4 WHEN 0 THEN numrange(1000, 5000.50, '[)') WHEN 1 THEN numrange(NULL, 1e6, '(]') WHEN 2 THEN 'empty' END,
       CASE WHEN i % 5 = 0 THEN '{}' ELSE ARRAY['SEO', 'web "design"', pg_temp.phrase(i, 34), NULL] END,
       CASE WHEN i % 75 = 1 THEN pg_temp.noise(i, 35, 100000) WHEN i % 2 = 0 THEN pg_temp.phrase(i, 36) END,
       CASE WHEN i % 3 = 0 THEN pg_temp.moment(i, 37) END,
       pg_temp.moment(i, 38), pg_temp.moment(i, 39)
  FROM generate_series(1, 150 * pg_temp.scale()) i;

INSERT INTO workflow_executions (id, conversation_id, name, status, participating_agents, plan, results, error,
                                 started_at, finished_at, created_at, updated_at)
SELECT pg_temp.key(i, 40), CASE WHEN i % 6 <> 0 THEN pg_temp.key(1 + pg_temp.dice(i, 41, 200 * pg_temp.scale()), 10) END,
       'workflow ' || i % 9,
       (enum_range(NULL::workflow_status))[1 + i % 5],
       CASE WHEN i % 8 = 0 THEN '{}' ELSE ARRAY['planner', 'writer', (ARRAY['critic', 'O''Agent', 'a,b'])[1 + i % 3]] END,
       jsonb_build_object('steps', jsonb_build_array(jsonb_build_object('agent', 'planner', 'input', pg_temp.phrase(i, 42)), '{}'::jsonb)),
       CASE WHEN i % 3 = 0 THEN jsonb_build_object('output', pg_temp.phrase(i, 43), 'scores', '[1.0, 1.00, -0.5e-3]'::jsonb,
                                                   'log', CASE WHEN i % 30 = 0 THEN pg_temp.noise(i, 44, 50000) END) END,
       CASE WHEN i % 5 = 3 THEN E'Traceback:\n  "\\path"\t' || pg_temp.phrase(i, 45) END,
       CASE WHEN i % 4 <> 0 THEN pg_temp.moment(i, 46) END,
       CASE WHEN i % 4 > 1 THEN pg_temp.moment(i, 46) + pg_temp.dice(i, 47, 1000000) * interval '1 millisecond' END,
       pg_temp.moment(i, 48), pg_temp.moment(i, 49)
  FROM generate_series(1, 180 * pg_temp.scale()) i;

INSERT INTO agent_messages (id, workflow_id, number, sender, receiver, message_type, payload, document, created_at)
    OVERRIDING SYSTEM VALUE
SELECT pg_temp.key(i, 50), pg_temp.key(1 + (i - 1) / 5, 40), i, 'planner',
       CASE WHEN i % 4 <> 0 THEN 'writer' END,
       (ARRAY['task', 'result', 'error'])[1 + i % 3],
       jsonb_build_object('text', pg_temp.phrase(i, 51), 'attempt', i % 3, 'refs', ARRAY[NULL, i]),
       CASE WHEN i % 3 = 0 THEN '<?xml version="1.0"?><a b="' || i || '">&lt;</a>' END,
       pg_temp.moment(i, 52)
  FROM generate_series(1, 900 * pg_temp.scale()) i;

INSERT INTO shared_memory (id, conversation_id, memory_key, scope, value, written_by, expires_at, created_at, updated_at)
SELECT pg_temp.key(i, 60), pg_temp.key(1 + (i - 1) / 2, 10),
       (ARRAY['facts', 'tone of "voice"', ''])[1 + i % 3],
       (ARRAY['conversation', 'workflow'])[1 + i % 2],
       CASE i % 5 WHEN 0 THEN 'null' WHEN 1 THEN '""' WHEN 2 THEN '1.00' WHEN 3 THEN '[]'
            ELSE jsonb_build_object('k', pg_temp.phrase(i, 61)) END,
       CASE WHEN i % 3 <> 0 THEN 'writer' END,
       CASE WHEN i % 4 = 0 THEN pg_temp.moment(i, 62) ELSE 'infinity' END,
       pg_temp.moment(i, 63), pg_temp.moment(i, 64)
  FROM generate_series(1, 400 * pg_temp.scale()) i;

SELECT pg_temp.advance_sequences();
