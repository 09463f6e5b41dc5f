-- name: refuse
-- Parks readings that are no numbers, which would spoil their buckets.
WITH strange AS (
    SELECT raw.id, 'the value is no number; mend it, and set the row to pending' AS error FROM vitals_raw_data raw
    WHERE raw.user_id = :user AND raw.aggregation_status IN ('pending', 'queued', 'processing', 'failed')
      -- Under an OR the list is hashed: as a join it would be compared with every row that waits.
      AND (CAST(:ids AS jsonb) IS NULL OR raw.id IN (SELECT CAST(told.value AS bigint) FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS told (value)))
      AND raw.value IN ('NaN', 'Infinity', '-Infinity')
), told AS (
    INSERT INTO lamina.row_failures (domain, row_id, attempts, error)
    SELECT 'vitals', strange.id, 1, strange.error FROM strange
    ON CONFLICT (domain, row_id) DO UPDATE SET error = excluded.error, due_at = NULL
)
UPDATE vitals_raw_data raw SET aggregation_status = 'failed' FROM strange WHERE raw.id = strange.id AND raw.aggregation_status <> 'failed';

-- name: take
-- Copies a batch with its codes, and remembers which days it touches. A reading that was copied before is brought up to date.
WITH batch AS (
    SELECT raw.id FROM vitals_raw_data raw LEFT JOIN lamina.row_failures failures ON failures.domain = 'vitals' AND failures.row_id = raw.id
    WHERE raw.user_id = :user AND raw.aggregation_status IN ('pending', 'queued', 'processing', 'failed')
      AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.aggregation_status IN ('pending', 'queued'))
      AND (CAST(:ids AS jsonb) IS NULL OR raw.id IN (SELECT CAST(told.value AS bigint) FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS told (value)))
    ORDER BY raw.created_at, raw.id LIMIT :limit FOR UPDATE OF raw SKIP LOCKED
), moved AS (
    UPDATE vitals_raw_data raw SET aggregation_status = 'categorized', aggregated_at = now() AT TIME ZONE :zone, updated_at = now() AT TIME ZONE :zone
    FROM batch WHERE raw.id = batch.id RETURNING raw.*
), forgiven AS (
    DELETE FROM lamina.row_failures USING moved WHERE domain = 'vitals' AND row_id = moved.id
), codes AS (
    SELECT metric.name, (
        SELECT mapping.loinc_code FROM vitals_mappings mapping
        WHERE mapping.loinc_code IS NOT NULL
          AND NOT EXISTS (SELECT 1 FROM regexp_split_to_table(metric.name, '\s+') AS word WHERE mapping.vital_sign NOT ILIKE '%' || word || '%')
        ORDER BY length(mapping.vital_sign), mapping.vital_sign LIMIT 1
    ) AS loinc_code
    FROM (SELECT DISTINCT metric_type AS name FROM moved) AS metric
), edited AS (
    UPDATE vitals_raw_categorized copy
    SET value = moved.value, end_date = moved.end_date, source_device = moved.source_device, confidence_score = moved.confidence_score,
        loinc_code = coalesce(codes.loinc_code, copy.loinc_code), aggregation_status = 'aggregated', aggregated_at = now() AT TIME ZONE :zone,
        updated_at = now() AT TIME ZONE :zone
    FROM moved JOIN codes ON codes.name = moved.metric_type
    WHERE copy.user_id = moved.user_id AND copy.metric_type = moved.metric_type AND copy.unit = moved.unit AND copy.start_date = moved.start_date
      AND copy.data_source = moved.data_source AND copy.notes IS NOT DISTINCT FROM moved.notes
    RETURNING moved.id
), copied AS (
    INSERT INTO vitals_raw_categorized (user_id, metric_type, value, unit, start_date, end_date, data_source, source_device, notes, confidence_score,
                                        loinc_code, aggregation_status, aggregated_at, created_at, updated_at)
    SELECT user_id, metric_type, value, unit, start_date, end_date, data_source, source_device, notes, confidence_score, codes.loinc_code, 'aggregated',
           now() AT TIME ZONE :zone, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
    FROM moved JOIN codes ON codes.name = moved.metric_type
    WHERE moved.id NOT IN (SELECT id FROM edited)
    ON CONFLICT DO NOTHING
)
INSERT INTO lamina_touched SELECT DISTINCT metric_type, CAST(start_date AS date) FROM moved;

-- name: pieces_table
-- What buckets are made of.
CREATE TEMPORARY TABLE lamina_pieces (
    metric_type text, at timestamp, value double precision, unit text, data_source text, loinc_code text
) ON COMMIT DROP;

-- name: pieces
-- Readings in whatever unit they came; of stretches of sleep that overlap the longest.
WITH RECURSIVE readings AS (
    -- Two workers at once may have copied a reading twice: the key of the copies does not tell those without notes apart.
    SELECT DISTINCT ON (copy.metric_type, copy.start_date, copy.unit, copy.data_source, copy.notes)
           copy.metric_type, touched.day, copy.start_date, copy.end_date, copy.value, copy.unit, copy.data_source, copy.loinc_code, copy.notes
    FROM lamina_touched touched
    JOIN vitals_raw_categorized copy ON copy.user_id = :user AND copy.metric_type = touched.metric_type
     AND copy.start_date >= touched.day AND copy.start_date < touched.day + 1 AND CAST(copy.start_date AS date) = touched.day
     AND copy.value NOT IN ('NaN', 'Infinity', '-Infinity')
    ORDER BY copy.metric_type, copy.start_date, copy.unit, copy.data_source, copy.notes, copy.id DESC
), stretches AS (
    SELECT day, start_date AS began, end_date AS ended, data_source, loinc_code,
           value / CASE WHEN lower(unit) LIKE 'min%' THEN 60 WHEN lower(unit) LIKE 's%' THEN 3600 ELSE 1 END AS hours
    FROM readings WHERE metric_type = 'Sleep' AND coalesce(notes, '') NOT ILIKE '%awake%'
), ordered AS (
    SELECT *, row_number() OVER (PARTITION BY day ORDER BY began, ended) AS place FROM stretches WHERE hours BETWEEN 0.1 AND 16
), kept AS (
    SELECT day, place, began, ended, hours, CAST(0 AS double precision) AS before, data_source, loinc_code FROM ordered WHERE place = 1
    UNION ALL
    SELECT next.day, next.place,
           CASE WHEN next.began < kept.ended AND next.hours <= kept.hours THEN kept.began ELSE next.began END,
           CASE WHEN next.began < kept.ended AND next.hours <= kept.hours THEN kept.ended ELSE next.ended END,
           CASE WHEN next.began < kept.ended AND next.hours <= kept.hours THEN kept.hours ELSE next.hours END,
           CASE WHEN next.began < kept.ended THEN kept.before ELSE kept.before + kept.hours END, next.data_source, next.loinc_code
    FROM kept JOIN ordered next ON next.day = kept.day AND next.place = kept.place + 1
)
INSERT INTO lamina_pieces
SELECT metric_type, start_date, value, unit, data_source, loinc_code FROM readings WHERE metric_type <> 'Sleep'
UNION ALL
SELECT 'Sleep', CAST(day AS timestamp), before + hours, 'hours', data_source, loinc_code FROM kept
WHERE place = (SELECT max(place) FROM ordered WHERE ordered.day = kept.day);

-- name: hourly
-- Totals of five metrics and of sleep; the unit of the latest entry.
WITH fresh AS (
    SELECT metric_type, date_trunc('hour', at) AS hour_start, max(loinc_code) AS loinc_code,
           CASE WHEN metric_type IN ('Steps', 'Active Energy', 'Workout Duration', 'Workout Calories', 'Workout Distance', 'Sleep') THEN sum(value) END AS total_value, avg(value) AS average_value, min(value) AS min_value, max(value) AS max_value,
           count(*) AS count, CASE WHEN metric_type = 'Sleep' THEN sum(value) * 60 END AS duration_minutes, (array_agg(unit ORDER BY at DESC))[1] AS unit,
           mode() WITHIN GROUP (ORDER BY data_source) AS primary_source, CAST(jsonb_agg(DISTINCT data_source) AS text) AS sources_included
    FROM lamina_pieces GROUP BY metric_type, date_trunc('hour', at)
), changed AS (
    UPDATE vitals_hourly_aggregates bucket SET
        loinc_code = fresh.loinc_code, total_value = fresh.total_value, average_value = fresh.average_value, min_value =
        fresh.min_value, max_value = fresh.max_value, count = fresh.count, duration_minutes = fresh.duration_minutes, unit =
        fresh.unit, primary_source = fresh.primary_source, sources_included = fresh.sources_included, updated_at = now() AT TIME ZONE :zone
    FROM fresh WHERE bucket.user_id = :user AND bucket.metric_type = fresh.metric_type AND bucket.hour_start = fresh.hour_start
    RETURNING bucket.metric_type, bucket.hour_start
), gone AS (
    DELETE FROM vitals_hourly_aggregates bucket USING lamina_touched touched
    WHERE bucket.user_id = :user AND bucket.metric_type = touched.metric_type
      AND bucket.hour_start >= touched.day AND bucket.hour_start < touched.day + 1 AND CAST(bucket.hour_start AS date) = touched.day
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.metric_type = fresh.metric_type AND bucket.hour_start = fresh.hour_start)
)
INSERT INTO vitals_hourly_aggregates (
    user_id, metric_type, hour_start, loinc_code, total_value, average_value, min_value, max_value, count, duration_minutes,
    unit, primary_source, sources_included, created_at, updated_at
)
SELECT
    :user, fresh.metric_type, fresh.hour_start, fresh.loinc_code, fresh.total_value, fresh.average_value, fresh.min_value,
    fresh.max_value, fresh.count, fresh.duration_minutes, fresh.unit, fresh.primary_source, fresh.sources_included, now() AT
    TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.metric_type = fresh.metric_type AND changed.hour_start = fresh.hour_start);

-- name: daily
-- From the hours, each counted alike. Pairs of pressures that our own figures have left in the notes are none of the old ones.
WITH fresh AS (
    SELECT hours.metric_type, CAST(hour_start AS date) AS date, max(loinc_code) AS loinc_code, sum(total_value) AS total_value,
           CASE WHEN hours.metric_type = 'Sleep' THEN sum(total_value) ELSE avg(average_value) END AS average_value, min(min_value) AS min_value, max(max_value) AS max_value,
           sum(count) AS count, sum(duration_minutes) AS duration_minutes, (array_agg(unit ORDER BY hour_start DESC))[1] AS unit,
           mode() WITHIN GROUP (ORDER BY primary_source) AS primary_source, CAST(jsonb_agg(DISTINCT primary_source) AS text) AS sources_included
    FROM vitals_hourly_aggregates hours JOIN lamina_touched touched
      ON touched.metric_type = hours.metric_type AND hours.hour_start >= touched.day AND hours.hour_start < touched.day + 1
     AND CAST(hours.hour_start AS date) = touched.day
    WHERE hours.user_id = :user GROUP BY hours.metric_type, CAST(hour_start AS date)
), changed AS (
    UPDATE vitals_daily_aggregates bucket SET
        loinc_code = fresh.loinc_code, total_value = fresh.total_value, average_value = fresh.average_value, min_value =
        fresh.min_value, max_value = fresh.max_value, count = fresh.count, duration_minutes = fresh.duration_minutes, unit =
        fresh.unit, primary_source = fresh.primary_source, sources_included = fresh.sources_included, updated_at = now() AT TIME ZONE :zone,
        notes = CASE WHEN bucket.notes LIKE 'highest % at %, lowest % at %' THEN NULL ELSE bucket.notes END
    FROM fresh WHERE bucket.user_id = :user AND bucket.metric_type = fresh.metric_type AND bucket.date = fresh.date
    RETURNING bucket.metric_type, bucket.date
), gone AS (
    DELETE FROM vitals_daily_aggregates bucket USING lamina_touched touched
    WHERE bucket.user_id = :user AND bucket.metric_type = touched.metric_type AND bucket.date = touched.day
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.metric_type = fresh.metric_type AND bucket.date = fresh.date)
)
INSERT INTO vitals_daily_aggregates (
    user_id, metric_type, date, loinc_code, total_value, average_value, min_value, max_value, count, duration_minutes, unit,
    primary_source, sources_included, created_at, updated_at
)
SELECT
    :user, fresh.metric_type, fresh.date, fresh.loinc_code, fresh.total_value, fresh.average_value, fresh.min_value,
    fresh.max_value, fresh.count, fresh.duration_minutes, fresh.unit, fresh.primary_source, fresh.sources_included, now() AT
    TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.metric_type = fresh.metric_type AND changed.date = fresh.date);

-- name: weekly
-- From the days. A week keeps its unit, but not one that none of its days has: our own figures have left it.
WITH periods AS (
    SELECT DISTINCT metric_type, CAST(date_trunc('week', day) AS date) AS week_start_date FROM lamina_touched
), fresh AS (
    SELECT days.metric_type, periods.week_start_date, periods.week_start_date + 6 AS week_end_date, max(days.loinc_code) AS loinc_code, sum(days.total_value) AS total_value,
           avg(days.average_value) AS average_value, min(days.min_value) AS min_value, max(days.max_value) AS max_value,
           count(*) AS days_with_data, sum(days.duration_minutes) AS total_duration_minutes, min(days.unit) AS unit, array_agg(days.unit) AS units,
           mode() WITHIN GROUP (ORDER BY days.primary_source) AS primary_source, CAST(jsonb_agg(DISTINCT days.primary_source) AS text) AS sources_included
    FROM vitals_daily_aggregates days JOIN periods ON periods.metric_type = days.metric_type AND days.date >= periods.week_start_date AND days.date < periods.week_start_date + 7
    WHERE days.user_id = :user GROUP BY days.metric_type, periods.week_start_date
), changed AS (
    UPDATE vitals_weekly_aggregates bucket SET
        loinc_code = fresh.loinc_code, total_value = fresh.total_value, average_value = fresh.average_value, min_value =
        fresh.min_value, max_value = fresh.max_value, days_with_data = fresh.days_with_data, total_duration_minutes =
        fresh.total_duration_minutes, primary_source = fresh.primary_source, sources_included = fresh.sources_included, updated_at = now() AT TIME ZONE :zone,
        unit = CASE WHEN bucket.unit = ANY (fresh.units) THEN bucket.unit ELSE fresh.unit END
    FROM fresh WHERE bucket.user_id = :user AND bucket.metric_type = fresh.metric_type AND bucket.week_start_date = fresh.week_start_date AND bucket.week_end_date = fresh.week_end_date
    RETURNING bucket.metric_type, bucket.week_start_date, bucket.week_end_date
), gone AS (
    DELETE FROM vitals_weekly_aggregates bucket USING periods
    WHERE bucket.user_id = :user AND bucket.metric_type = periods.metric_type AND bucket.week_start_date = periods.week_start_date
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.metric_type = fresh.metric_type AND bucket.week_start_date = fresh.week_start_date AND bucket.week_end_date = fresh.week_end_date)
)
INSERT INTO vitals_weekly_aggregates (
    user_id, metric_type, week_start_date, week_end_date, loinc_code, total_value, average_value, min_value, max_value,
    days_with_data, total_duration_minutes, unit, primary_source, sources_included, created_at, updated_at
)
SELECT
    :user, fresh.metric_type, fresh.week_start_date, fresh.week_end_date, fresh.loinc_code, fresh.total_value,
    fresh.average_value, fresh.min_value, fresh.max_value, fresh.days_with_data, fresh.total_duration_minutes, fresh.unit,
    fresh.primary_source, fresh.sources_included, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.metric_type = fresh.metric_type AND changed.week_start_date = fresh.week_start_date AND changed.week_end_date = fresh.week_end_date);

-- name: monthly
-- From the days.
WITH periods AS (
    SELECT DISTINCT metric_type, CAST(extract(year FROM day) AS integer) AS year, CAST(extract(month FROM day) AS integer) AS month FROM lamina_touched
), fresh AS (
    SELECT days.metric_type, periods.year, periods.month, max(days.loinc_code) AS loinc_code, sum(days.total_value) AS total_value,
           avg(days.average_value) AS average_value, min(days.min_value) AS min_value, max(days.max_value) AS max_value,
           count(*) AS days_with_data, sum(days.duration_minutes) AS total_duration_minutes, (array_agg(days.unit ORDER BY days.date DESC))[1] AS unit,
           mode() WITHIN GROUP (ORDER BY days.primary_source) AS primary_source, CAST(jsonb_agg(DISTINCT days.primary_source) AS text) AS sources_included
    FROM vitals_daily_aggregates days JOIN periods ON periods.metric_type = days.metric_type AND days.date >= make_date(periods.year, periods.month, 1) AND days.date < make_date(periods.year, periods.month, 1) + interval '1 month'
    WHERE days.user_id = :user GROUP BY days.metric_type, periods.year, periods.month
), changed AS (
    UPDATE vitals_monthly_aggregates bucket SET
        loinc_code = fresh.loinc_code, total_value = fresh.total_value, average_value = fresh.average_value, min_value =
        fresh.min_value, max_value = fresh.max_value, days_with_data = fresh.days_with_data, total_duration_minutes =
        fresh.total_duration_minutes, unit = fresh.unit, primary_source = fresh.primary_source, sources_included =
        fresh.sources_included, updated_at = now() AT TIME ZONE :zone
    FROM fresh WHERE bucket.user_id = :user AND bucket.metric_type = fresh.metric_type AND bucket.year = fresh.year AND bucket.month = fresh.month
    RETURNING bucket.metric_type, bucket.year, bucket.month
), gone AS (
    DELETE FROM vitals_monthly_aggregates bucket USING periods
    WHERE bucket.user_id = :user AND bucket.metric_type = periods.metric_type AND bucket.year = periods.year AND bucket.month = periods.month
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.metric_type = fresh.metric_type AND bucket.year = fresh.year AND bucket.month = fresh.month)
)
INSERT INTO vitals_monthly_aggregates (
    user_id, metric_type, year, month, loinc_code, total_value, average_value, min_value, max_value, days_with_data,
    total_duration_minutes, unit, primary_source, sources_included, created_at, updated_at
)
SELECT
    :user, fresh.metric_type, fresh.year, fresh.month, fresh.loinc_code, fresh.total_value, fresh.average_value,
    fresh.min_value, fresh.max_value, fresh.days_with_data, fresh.total_duration_minutes, fresh.unit, fresh.primary_source,
    fresh.sources_included, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.metric_type = fresh.metric_type AND changed.year = fresh.year AND changed.month = fresh.month);
