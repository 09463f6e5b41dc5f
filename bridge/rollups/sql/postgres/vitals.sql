-- name: users
-- Whose rows wait, the longest waiting first. A worker that died leaves rows in `processing`. What failed waits for its time, or to be set to `pending`.
SELECT raw.user_id FROM vitals_raw_data raw LEFT JOIN lamina.row_failures failures ON failures.domain = 'vitals' AND failures.row_id = raw.id
    WHERE raw.aggregation_status IN ('pending', 'queued', 'processing', 'failed')
      AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.aggregation_status IN ('pending', 'queued'))
GROUP BY raw.user_id ORDER BY min(raw.created_at), raw.user_id;

-- name: due
-- Whose rows have failed and are to be tried again now, the longest due first.
SELECT raw.user_id FROM lamina.row_failures failures JOIN vitals_raw_data raw ON raw.id = failures.row_id
WHERE failures.domain = 'vitals' AND failures.due_at <= (SELECT now FROM lamina.clock) AND raw.aggregation_status = 'failed'
GROUP BY raw.user_id ORDER BY min(failures.due_at), raw.user_id;

-- name: waiting
-- The rows of a user that a batch would take.
SELECT raw.id FROM vitals_raw_data raw LEFT JOIN lamina.row_failures failures ON failures.domain = 'vitals' AND failures.row_id = raw.id
    WHERE raw.user_id = :user AND raw.aggregation_status IN ('pending', 'queued', 'processing', 'failed')
      AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.aggregation_status IN ('pending', 'queued'))
ORDER BY raw.created_at, raw.id LIMIT :limit;

-- name: lock
-- One batch of a user at a time: the buckets have no keys that would keep rivals apart.
SELECT 1 AS locked FROM (SELECT pg_advisory_xact_lock(hashtext('lamina vitals'), :user)) AS lock;

-- name: failed
-- A row that cannot be rolled up is tried again later and later, and then parked. Gives when; nothing of one that is parked.
-- What failed for several workers at once has failed once, and what another has done meanwhile has not failed.
WITH held AS (
    SELECT aggregation_status = 'failed' AS is_told FROM vitals_raw_data WHERE id = :row AND aggregation_status IN ('pending', 'queued', 'processing', 'failed') FOR UPDATE
), told AS (
    INSERT INTO lamina.row_failures AS failures (domain, row_id, attempts, due_at, error)
    SELECT 'vitals', :row, 1, now + 60, CAST(:error AS text) FROM lamina.clock, held
    ON CONFLICT (domain, row_id) DO UPDATE SET
        attempts = failures.attempts + 1, error = excluded.error,
        due_at = CASE WHEN failures.attempts + 1 >= :most THEN NULL ELSE excluded.due_at + 60 * (2 ^ failures.attempts - 1) END
    WHERE failures.due_at <= excluded.due_at - 60 OR NOT (SELECT is_told FROM held)
    RETURNING due_at
)
UPDATE vitals_raw_data SET aggregation_status = 'failed' FROM held WHERE id = :row RETURNING (SELECT due_at FROM told) AS due_at, EXISTS (SELECT 1 FROM told) AS is_counted;

-- name: touched
-- The days whose buckets are computed anew.
CREATE TEMPORARY TABLE lamina_touched (metric_type text, day date) ON COMMIT DROP;

-- name: touch
-- All of a user's days between two, for a recomputation.
INSERT INTO lamina_touched SELECT metric_type, CAST(start_date AS date) FROM vitals_raw_categorized
WHERE user_id = :user AND start_date >= CAST(:since AS date) AND start_date < CAST(:until AS date) + 1
UNION SELECT metric_type, date FROM vitals_daily_aggregates WHERE user_id = :user AND date BETWEEN CAST(:since AS date) AND CAST(:until AS date);

-- name: forget
-- Copies whose reading is gone from a user's days between two.
DELETE FROM vitals_raw_categorized copy
WHERE copy.user_id = :user AND copy.start_date >= CAST(:since AS date) AND copy.start_date < CAST(:until AS date) + 1
  AND NOT EXISTS (
    SELECT 1 FROM vitals_raw_data raw
    WHERE raw.user_id = copy.user_id AND raw.metric_type = copy.metric_type AND raw.unit = copy.unit AND raw.start_date = copy.start_date
      AND raw.data_source = copy.data_source AND raw.notes IS NOT DISTINCT FROM copy.notes
  );

-- name: counted
-- What became of a batch.
SELECT count(*) FILTER (WHERE raw.aggregation_status = 'categorized') AS taken, count(*) FILTER (WHERE raw.aggregation_status = 'failed') AS failed
FROM vitals_raw_data raw WHERE raw.user_id = :user
 AND (CAST(:ids AS jsonb) IS NULL OR raw.id IN (SELECT CAST(told.value AS bigint) FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS told (value)));

-- name: touched_counted
-- Without it PostgreSQL takes the days for a few, and compares each reading with each of them.
ANALYZE lamina_touched;

-- name: pieces_counted
-- As above.
ANALYZE lamina_pieces;
