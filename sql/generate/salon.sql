-- One salon for each unit of scale. In each of them 1,490 rows are the plans' first migration (1,304 clients,
-- 63 services, 12 staff, 84 days of schedules, 21 bookings, 5 rows of sync_status and the salon itself); the
-- others are what the bot keeps: 260 cached appointments, 180 dialogs, 21 reminders, 2,400 messages,
-- one WhatsApp session and its 1,100 keys. 5,452 rows in all.

INSERT INTO companies (id, title, phone, email, address, working_hours, settings, opened_on, rent, created_at,
                       updated_at)
SELECT 962302 + c,
       'Салон «' || pg_temp.person(c, 1) || '»',
       '+7' || 9000000000 + c,
       CASE WHEN c % 2 = 0 THEN 'salon' || c || '@example.com' END,
       ROW('ул. "Ленина", д. ' || c, NULL, '', point(55.75 + c, 37.61))::postal_address,
       jsonb_build_object('mon', ARRAY['10:00', '22:00'], 'sun', NULL, 'holidays', '[]'::jsonb),
       CASE WHEN c % 3 = 0 THEN '{"bot": {"enabled": true, "delay_ms": 1.50, "prompt": "say \"hi\" \\ bye"}}'::jsonb END,
       CASE c % 3 WHEN 0 THEN date '2019-02-28' WHEN 1 THEN date '-infinity' END,
       (1000.55 * c)::numeric::money,
       pg_temp.moment(c, 2), pg_temp.moment(c, 3)
  FROM generate_series(0, pg_temp.scale() - 1) c;

INSERT INTO clients (id, external_id, company_id, name, phone, email, sex, birth_date, discount, total_spent, average_bill,
                     visit_count, loyalty_level, visit_history, preferences, ai_context, goods_purchases,
                     favorite_staff_ids, last_service_ids, tags, preferred_time_slots, notes, blacklisted,
                     first_visit_at, last_visit_at, created_at, updated_at)
SELECT i,
       CASE WHEN i % 9 <> 0 THEN 150000000 + i END,
       962302 + (i - 1) / 1304,
       CASE WHEN pg_temp.rarely(i, 10, 20) THEN pg_temp.phrase(i, 11) ELSE pg_temp.person(i, 12) END,
       '+79' || lpad((100000000 + i)::text, 9, '0'),
       CASE WHEN pg_temp.rarely(i, 13, 3) THEN 'client' || i || '@example.com' END,
       (ARRAY['f', 'm', NULL])[1 + i % 3]::"char",
       CASE WHEN pg_temp.rarely(i, 14, 4) THEN date '1960-01-01' + pg_temp.dice(i, 15, 16000) END,
       CASE WHEN i % 500 = 1 THEN '-0'::real WHEN i % 500 = 2 THEN 'NaN'::real ELSE pg_temp.dice(i, 16, 4) * 0.1 END,
       pg_temp.dice(i, 17, 9000000) / 100.0,
       CASE WHEN i % 401 = 3 THEN 'NaN'::numeric WHEN i % 401 = 4 THEN 1.00 WHEN i % 401 = 5 THEN 1e-20
            WHEN i % 5 <> 0 THEN pg_temp.dice(i, 18, 900000)::numeric / 7 END,
       pg_temp.dice(i, 19, 60),
       (enum_range(NULL::loyalty_level))[1 + pg_temp.dice(i, 20, 5)],
       CASE WHEN i % 4 = 0 THEN '[]' ELSE jsonb_build_array(
           jsonb_build_object('date', pg_temp.moment(i, 21)::date, 'service', pg_temp.phrase(i, 22), 'cost', 1500.50),
           jsonb_build_object('date', NULL, 'items', '[[], {}, [null, [1.0, 1.00]]]'::jsonb)) END,
       CASE WHEN i % 3 <> 0 THEN jsonb_build_object('music', i % 2 = 0, 'drink', pg_temp.phrase(i, 23), 'ö\"', '{}'::jsonb) END,
       CASE WHEN i % 7 = 0 THEN 'null' WHEN i % 7 < 3 THEN jsonb_build_object('summary', pg_temp.phrase(i, 24)) END,
       CASE WHEN i % 6 = 0 THEN jsonb_build_array(jsonb_build_object('sku', i, 'price', 99.90)) ELSE '[]' END,
       CASE WHEN i % 4 = 0 THEN '{}' ELSE ARRAY[1 + i % 12, NULL, 1 + i % 5] END,
       CASE WHEN i % 5 = 0 THEN ARRAY[1 + i % 63]::integer[] END,
       CASE WHEN i % 3 = 0 THEN ARRAY[pg_temp.phrase(i, 25), 'vip', NULL, 'a,b', '{}', ''] WHEN i % 3 = 1 THEN '{}' END,
       CASE WHEN i % 2 = 0 THEN ARRAY['10:00-12:00', 'evening "late"'] END,
       CASE WHEN i % 400 = 7 THEN pg_temp.noise(i, 26, 100000) WHEN i % 10 = 0 THEN pg_temp.phrase(i, 27) END,
       pg_temp.rarely(i, 28, 100),
       CASE WHEN i % 300 = 9 THEN timestamp '-infinity' WHEN i % 2 = 0 THEN pg_temp.moment(i, 29) AT TIME ZONE 'UTC' END,
       CASE WHEN i % 300 = 8 THEN timestamptz 'infinity' WHEN i % 3 <> 0 THEN pg_temp.moment(i, 30) END,
       pg_temp.moment(i, 31),
       pg_temp.moment(i, 32)
  FROM generate_series(1, 1304 * pg_temp.scale()) i;

INSERT INTO services (id, company_id, external_id, title, category, price_min, price_max, duration, declensions, weight,
                      active, updated_at)
SELECT i,
       962302 + (i - 1) / 63,
       18000000 + i,
       (ARRAY['Стрижка', 'Маникюр', 'Окрашивание', 'Брови', 'Укладка', 'Массаж', 'Педикюр'])[1 + i % 7] || ' №' || i,
       CASE WHEN i % 5 <> 0 THEN pg_temp.phrase(i, 40) END,
       CASE WHEN i % 8 <> 0 THEN 500 + pg_temp.dice(i, 41, 3000) END,
       CASE WHEN i % 8 <> 0 THEN 3500 + pg_temp.dice(i, 42, 3000) + 0.5 END,
       make_interval(mins => 15 * (1 + pg_temp.dice(i, 43, 12)), months => (i % 20 = 0)::integer),
       CASE WHEN i % 4 <> 0 THEN jsonb_build_object('nominative', 'стрижка', 'genitive', 'стрижки',
                                                    'plural', jsonb_build_object('dative', 'стрижкам')) END,
       pg_temp.dice(i, 44, 100),
       i % 11 <> 0,
       pg_temp.moment(i, 45)
  FROM generate_series(1, 63 * pg_temp.scale()) i;

INSERT INTO staff (id, company_id, external_id, name, specialization, rating, photo, service_ids, declensions, updated_at)
SELECT i,
       962302 + (i - 1) / 12,
       2890000 + i,
       pg_temp.person(i, 50),
       CASE WHEN i % 4 <> 0 THEN pg_temp.phrase(i, 51) END,
       CASE WHEN i % 5 <> 0 THEN 5.0 / (1 + pg_temp.dice(i, 52, 7)) END,
       CASE WHEN i % 6 = 1 THEN convert_to(pg_temp.noise(i, 53, 30000), 'UTF8') WHEN i % 6 = 2 THEN '' END,
       ARRAY[i % 63, 2, 3],
       '{"кому": "мастеру"}',
       pg_temp.moment(i, 54)
  FROM generate_series(1, 12 * pg_temp.scale()) i;

INSERT INTO staff_schedules (staff_id, day, starts_at, ends_at, breaks, grid, is_working, updated_at)
SELECT s,
       date '2026-04-20' + d,
       CASE WHEN d < 6 THEN time '10:00' END,
       CASE WHEN d < 6 THEN time with time zone '22:00:00.000001+03' WHEN d = 6 THEN '24:00+00' END,
       CASE WHEN d = 2 THEN ARRAY['{"at": "13:00"}'::jsonb, NULL] ELSE '{}' END,
       CASE WHEN d <> 3 THEN ARRAY[[1, NULL, 3, 4], [s, d, 0, -1]] END,
       d < 6,
       pg_temp.moment(s * 7 + d, 60)
  FROM generate_series(1, 12 * pg_temp.scale()) s, generate_series(0, 6) d;

INSERT INTO bookings (id, company_id, client_id, staff_id, services, status, slot, cost, comment, created_at, updated_at)
SELECT i,
       962302 + (i - 1) / 21,
       CASE WHEN i % 10 <> 0 THEN (i - 1) / 21 * 1304 + 1 + pg_temp.dice(i, 70, 1304) END,
       CASE WHEN i % 9 <> 0 THEN (i - 1) / 21 * 12 + 1 + pg_temp.dice(i, 71, 12) END,
       ARRAY[1 + i % 63]::integer[],
       (enum_range(NULL::booking_status))[1 + pg_temp.dice(i, 72, 6)],
       tstzrange(pg_temp.moment(i, 73), CASE WHEN i % 20 <> 0 THEN pg_temp.moment(i, 73) + interval '90 minutes' END),
       CASE WHEN i % 7 <> 0 THEN pg_temp.dice(i, 74, 1000000) / 100.0 END,
       CASE WHEN i % 3 = 0 THEN pg_temp.phrase(i, 75) END,
       pg_temp.moment(i, 76),
       pg_temp.moment(i, 77)
  FROM generate_series(1, 21 * pg_temp.scale()) i;

INSERT INTO appointments_cache (company_id, record_id, payload, raw, fetched_at, valid_till)
SELECT 962302 + (i - 1) / 260,
       700000000 + i,
       jsonb_build_object('id', i, 'client', jsonb_build_object('name', pg_temp.person(i, 80), 'phone', NULL),
                          'services', ARRAY[i % 63, 7], 'comment', pg_temp.phrase(i, 81)),
       CASE WHEN i % 4 <> 0 THEN ('{"b" : 1.0,  "a":"' || i || '", "a": null}')::json END,
       pg_temp.moment(i, 82),
       CASE WHEN i % 5 = 0 THEN timestamptz 'infinity' ELSE pg_temp.moment(i, 83) END
  FROM generate_series(1, 260 * pg_temp.scale()) i;

INSERT INTO dialog_contexts (id, company_id, phone, state, data, transcript, last_ip, expires_at, created_at, updated_at)
SELECT pg_temp.key(i, 90),
       962302 + (i - 1) / 180,
       '+78' || lpad(i::text, 9, '0'),
       (ARRAY['idle', 'choosing_service', 'choosing_time', 'confirming', ''])[1 + pg_temp.dice(i, 91, 5)],
       jsonb_build_object('step', i % 5, 'slots', '[]'::jsonb, 'last', pg_temp.phrase(i, 92)),
       CASE WHEN i % 60 = 11 THEN pg_temp.noise(i, 93, 100000) WHEN i % 4 = 0 THEN repeat(pg_temp.phrase(i, 94), 50) END,
       CASE i % 3 WHEN 0 THEN ('10.0.' || i % 256 || '.1')::inet WHEN 1 THEN inet '2001:db8::1/64' END,
       CASE WHEN i % 2 = 0 THEN pg_temp.moment(i, 95) END,
       pg_temp.moment(i, 96),
       pg_temp.moment(i, 97)
  FROM generate_series(1, 180 * pg_temp.scale()) i;

INSERT INTO reminders (id, booking_id, kind, before, send_at, sent_at, error) OVERRIDING SYSTEM VALUE
SELECT i, i,
       (ARRAY['day_before', 'two_hours', 'feedback'])[1 + i % 3],
       (ARRAY['1 day', '2 hours', '-1 mon -3 days +04:05:06.7'])[1 + i % 3]::interval,
       pg_temp.moment(i, 100),
       CASE WHEN i % 2 = 0 THEN pg_temp.moment(i, 101) END,
       CASE WHEN i % 5 = 0 THEN pg_temp.phrase(i, 102) END
  FROM generate_series(1, 21 * pg_temp.scale()) i;

INSERT INTO sync_status (table_name, company_id, status, rows, last_error, synced_at)
SELECT (ARRAY['clients', 'services', 'staff', 'bookings', 'schedules'])[1 + i % 5],
       962302 + i / 5,
       'idle',
       CASE WHEN i % 5 <> 4 THEN i * 10 END,
       CASE WHEN i % 5 = 2 THEN '{ "message":"timeout",  "code":504 }'::json END,
       CASE WHEN i % 5 = 3 THEN timestamptz '-infinity' ELSE pg_temp.moment(i, 110) END
  FROM generate_series(0, 5 * pg_temp.scale() - 1) i;

INSERT INTO messages (id, company_id, phone, direction, body, media, metadata, created_at)
SELECT i,
       962302 + (i - 1) / 2400,
       '+79' || lpad((100000000 + pg_temp.dice(i, 120, 1304 * pg_temp.scale()))::text, 9, '0'),
       (ARRAY['incoming', 'outgoing'])[1 + i % 2]::message_direction,
       CASE WHEN i % 1200 = 13 THEN pg_temp.noise(i, 121, 100000) WHEN i % 50 <> 0 THEN pg_temp.phrase(i, 122) END,
       CASE i % 100 WHEN 5 THEN '\x00ff5c27220a'::bytea WHEN 6 THEN '' END,
       CASE WHEN i % 3 = 0 THEN jsonb_build_object('wa_id', md5(i::text), 'status', 'read', 'n', i * 0.10) END,
       CASE WHEN i % 200 = 0 THEN timestamptz '2031-01-01 00:00+00' + i * interval '1 second'
            ELSE pg_temp.moment(i, 123) END
  FROM generate_series(1, 2400 * pg_temp.scale()) i;

INSERT INTO whatsapp_auth (company_id, creds, created_at, updated_at)
SELECT 962302 + c,
       jsonb_build_object('noiseKey', pg_temp.noise(c, 130, 44), 'registered', true, 'me', pg_temp.phrase(c, 131),
                          'history', pg_temp.noise(c, 132, 9000)),
       pg_temp.moment(c, 133), pg_temp.moment(c, 134)
  FROM generate_series(0, pg_temp.scale() - 1) c;

INSERT INTO whatsapp_keys (company_id, key_type, key_id, value, expires_at, created_at, updated_at)
SELECT 962302 + (i - 1) / 1100,
       (ARRAY['pre-key', 'session', 'sender-key', 'app-state-sync-key', 'lid-mapping'])[1 + i % 5],
       CASE WHEN i % 5 = 1 THEN '7' || 9000000000 + i || '.0' WHEN i % 5 = 2 THEN i || '-ключ "' || chr(92) || '"'
            ELSE i::text END,
       jsonb_build_object('public', md5('public/' || i), 'counter', i, 'chains', '[{}, [], null]'::jsonb),
       CASE WHEN i % 10 = 0 THEN timestamptz 'infinity' WHEN i % 3 = 0 THEN pg_temp.moment(i, 141) + interval '1 year' END,
       pg_temp.moment(i, 142), pg_temp.moment(i, 143)
  FROM generate_series(1, 1100 * pg_temp.scale()) i;

SELECT pg_temp.advance_sequences();
