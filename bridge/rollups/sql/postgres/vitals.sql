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
