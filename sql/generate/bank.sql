-- For each unit of scale 1,000 accounts of 1,000 each, and no transfer yet.

INSERT INTO accounts (id, balance, note)
SELECT i, 1000, CASE WHEN i % 250 = 0 THEN pg_temp.noise(i, 1, 10000) WHEN i % 3 = 0 THEN pg_temp.phrase(i, 2) END
  FROM generate_series(1, 1000 * pg_temp.scale()) i;
