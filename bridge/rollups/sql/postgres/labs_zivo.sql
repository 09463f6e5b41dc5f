-- name: daily
-- The first number of each text, in whatever unit.
WITH readings AS (
    SELECT copy.test_date AS date, coalesce(nullif(copy.inferred_test_category, ''), 'Others') AS test_category, copy.loinc_code, copy.test_name,
           copy.test_code, copy.test_value, copy.test_status, copy.test_unit AS unit, copy.updated_at,
           CAST(substring(copy.test_value FROM '[-+]?\d+(?:\.\d+)?') AS double precision) AS number,
           CAST(replace(coalesce((regexp_match(reference_range, '(-?\d+(?:[.,]\d+)?)\s*[-–]\s*-?\d'))[1], (regexp_match(reference_range, '[>≥]=?\s*(-?\d+(?:[.,]\d+)?)'))[1]), ',', '.') AS double precision) AS low,
           CAST(replace(coalesce((regexp_match(reference_range, '\d\s*[-–]\s*(-?\d+(?:[.,]\d+)?)'))[1], (regexp_match(reference_range, '[<≤]=?\s*(-?\d+(?:[.,]\d+)?)'))[1]), ',', '.') AS double precision) AS high
    FROM lamina_touched touched JOIN lab_report_categorized copy ON copy.user_id = :user AND copy.test_date = touched.day
), groups AS (
    SELECT date, test_category, loinc_code, (array_agg(test_name ORDER BY updated_at DESC))[1] AS test_name,
           (array_agg(test_code ORDER BY updated_at DESC))[1] AS test_code, max(unit) AS unit, count(*) AS count,
           bool_and(number IS NOT NULL AND abs(number) < 1e15) AS is_numeric, avg(number) AS mean, min(number) AS least, max(number) AS most,
           left(string_agg(DISTINCT test_value, ', '), 100) AS words,
           left((array_agg(test_value ORDER BY length(test_value), test_value))[1], 100) AS shortest,
           left((array_agg(test_value ORDER BY length(test_value) DESC, test_value))[1], 100) AS longest,
           avg(low) AS normal_range_min, avg(high) AS normal_range_max,
           CASE WHEN bool_or(test_status = 'green') THEN 'green' WHEN bool_or(test_status = 'red') THEN 'red' ELSE 'amber' END AS status
    FROM readings GROUP BY date, test_category, loinc_code
), fresh AS (
    SELECT date, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min, normal_range_max, status,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE shortest END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE longest END AS max_value
    FROM groups
), gone AS (
    DELETE FROM lab_reports_daily bucket USING lamina_touched touched
    WHERE bucket.user_id = :user AND bucket.date = touched.day
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.date = bucket.date AND fresh.test_category = bucket.test_category AND fresh.loinc_code = bucket.loinc_code)
)
INSERT INTO lab_reports_daily (
    user_id, date, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit,
    normal_range_min, normal_range_max, status, created_at, updated_at
)
SELECT :user, date, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit, normal_range_min,
       normal_range_max, status, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh
ON CONFLICT (user_id, date, test_category, loinc_code) DO UPDATE SET
    test_name = excluded.test_name, test_code = excluded.test_code, avg_value = excluded.avg_value, min_value =
    excluded.min_value, max_value = excluded.max_value, count = excluded.count, unit = excluded.unit, normal_range_min =
    excluded.normal_range_min, normal_range_max = excluded.normal_range_max, status = excluded.status, updated_at =
    excluded.updated_at;

-- name: monthly
-- Means of means; of several names or units one is left.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year, CAST(extract(month FROM day) AS integer) AS month FROM lamina_touched
), days AS (
    SELECT periods.year, periods.month, days.test_category, days.loinc_code, days.test_name, days.test_code, days.unit, days.count, days.normal_range_min, days.normal_range_max,
           days.avg_value, CASE WHEN avg_value ~ '^-?\d+(\.\d+)?$' THEN CAST(avg_value AS double precision) END AS mean,
           CASE WHEN min_value ~ '^-?\d+(\.\d+)?$' THEN CAST(min_value AS double precision) END AS least,
           CASE WHEN max_value ~ '^-?\d+(\.\d+)?$' THEN CAST(max_value AS double precision) END AS most
    FROM lab_reports_daily days JOIN periods ON days.date >= make_date(periods.year, periods.month, 1) AND days.date < make_date(periods.year, periods.month, 1) + interval '1 month'
    WHERE days.user_id = :user
), groups AS (
    SELECT year, month, test_category, loinc_code, test_name, test_code, unit, sum(count) AS count,
           bool_and(mean IS NOT NULL AND least IS NOT NULL AND most IS NOT NULL) AS is_numeric,
           avg(mean) AS mean, min(least) AS least, max(most) AS most, left(string_agg(DISTINCT avg_value, ', '), 100) AS words,
           avg(normal_range_min) AS normal_range_min, avg(normal_range_max) AS normal_range_max
    FROM days GROUP BY year, month, test_category, loinc_code, test_name, test_code, unit
), fresh AS (
    SELECT DISTINCT ON (year, month, test_category, loinc_code) year, month, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min,
           normal_range_max, 'amber' AS status,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE words END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE words END AS max_value
    FROM groups ORDER BY year, month, test_category, loinc_code, test_name DESC, unit DESC
), gone AS (
    DELETE FROM lab_reports_monthly bucket USING periods
    WHERE bucket.user_id = :user AND bucket.year = periods.year AND bucket.month = periods.month
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.year = bucket.year AND fresh.month = bucket.month AND fresh.test_category = bucket.test_category AND fresh.loinc_code = bucket.loinc_code)
)
INSERT INTO lab_reports_monthly (
    user_id, year, month, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit,
    normal_range_min, normal_range_max, status, created_at, updated_at
)
SELECT :user, year, month, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit,
       normal_range_min, normal_range_max, status, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh
ON CONFLICT (user_id, year, month, test_category, loinc_code) DO UPDATE SET
    test_name = excluded.test_name, test_code = excluded.test_code, avg_value = excluded.avg_value, min_value =
    excluded.min_value, max_value = excluded.max_value, count = excluded.count, unit = excluded.unit, normal_range_min =
    excluded.normal_range_min, normal_range_max = excluded.normal_range_max, status = excluded.status, updated_at =
    excluded.updated_at;

-- name: quarterly
-- Means of means; of several names or units one is left.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year, CAST(extract(quarter FROM day) AS integer) AS quarter FROM lamina_touched
), days AS (
    SELECT periods.year, periods.quarter, days.test_category, days.loinc_code, days.test_name, days.test_code, days.unit, days.count, days.normal_range_min, days.normal_range_max,
           days.avg_value, CASE WHEN avg_value ~ '^-?\d+(\.\d+)?$' THEN CAST(avg_value AS double precision) END AS mean,
           CASE WHEN min_value ~ '^-?\d+(\.\d+)?$' THEN CAST(min_value AS double precision) END AS least,
           CASE WHEN max_value ~ '^-?\d+(\.\d+)?$' THEN CAST(max_value AS double precision) END AS most
    FROM lab_reports_monthly days JOIN periods ON days.year = periods.year AND (days.month + 2) / 3 = periods.quarter
    WHERE days.user_id = :user
), groups AS (
    SELECT year, quarter, test_category, loinc_code, test_name, test_code, unit, sum(count) AS count,
           bool_and(mean IS NOT NULL AND least IS NOT NULL AND most IS NOT NULL) AS is_numeric,
           avg(mean) AS mean, min(least) AS least, max(most) AS most, left(string_agg(DISTINCT avg_value, ', '), 100) AS words,
           avg(normal_range_min) AS normal_range_min, avg(normal_range_max) AS normal_range_max
    FROM days GROUP BY year, quarter, test_category, loinc_code, test_name, test_code, unit
), fresh AS (
    SELECT DISTINCT ON (year, quarter, test_category, loinc_code) year, quarter, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min,
           normal_range_max, 'amber' AS status,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE words END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE words END AS max_value
    FROM groups ORDER BY year, quarter, test_category, loinc_code, test_name DESC, unit DESC
), gone AS (
    DELETE FROM lab_reports_quarterly bucket USING periods
    WHERE bucket.user_id = :user AND bucket.year = periods.year AND bucket.quarter = periods.quarter
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.year = bucket.year AND fresh.quarter = bucket.quarter AND fresh.test_category = bucket.test_category AND fresh.loinc_code = bucket.loinc_code)
)
INSERT INTO lab_reports_quarterly (
    user_id, year, quarter, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit,
    normal_range_min, normal_range_max, status, created_at, updated_at
)
SELECT :user, year, quarter, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit,
       normal_range_min, normal_range_max, status, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh
ON CONFLICT (user_id, year, quarter, test_category, loinc_code) DO UPDATE SET
    test_name = excluded.test_name, test_code = excluded.test_code, avg_value = excluded.avg_value, min_value =
    excluded.min_value, max_value = excluded.max_value, count = excluded.count, unit = excluded.unit, normal_range_min =
    excluded.normal_range_min, normal_range_max = excluded.normal_range_max, status = excluded.status, updated_at =
    excluded.updated_at;

-- name: yearly
-- Means of means; of several names or units one is left.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year FROM lamina_touched
), days AS (
    SELECT periods.year, days.test_category, days.loinc_code, days.test_name, days.test_code, days.unit, days.count, days.normal_range_min, days.normal_range_max,
           days.avg_value, CASE WHEN avg_value ~ '^-?\d+(\.\d+)?$' THEN CAST(avg_value AS double precision) END AS mean,
           CASE WHEN min_value ~ '^-?\d+(\.\d+)?$' THEN CAST(min_value AS double precision) END AS least,
           CASE WHEN max_value ~ '^-?\d+(\.\d+)?$' THEN CAST(max_value AS double precision) END AS most
    FROM lab_reports_daily days JOIN periods ON days.date >= make_date(periods.year, 1, 1) AND days.date < make_date(periods.year, 1, 1) + interval '1 year'
    WHERE days.user_id = :user
), groups AS (
    SELECT year, test_category, loinc_code, test_name, test_code, unit, sum(count) AS count,
           bool_and(mean IS NOT NULL AND least IS NOT NULL AND most IS NOT NULL) AS is_numeric,
           avg(mean) AS mean, min(least) AS least, max(most) AS most, left(string_agg(DISTINCT avg_value, ', '), 100) AS words,
           avg(normal_range_min) AS normal_range_min, avg(normal_range_max) AS normal_range_max
    FROM days GROUP BY year, test_category, loinc_code, test_name, test_code, unit
), fresh AS (
    SELECT DISTINCT ON (year, test_category, loinc_code) year, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min,
           normal_range_max, 'amber' AS status,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE words END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE words END AS max_value
    FROM groups ORDER BY year, test_category, loinc_code, test_name DESC, unit DESC
), gone AS (
    DELETE FROM lab_reports_yearly bucket USING periods
    WHERE bucket.user_id = :user AND bucket.year = periods.year
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.year = bucket.year AND fresh.test_category = bucket.test_category AND fresh.loinc_code = bucket.loinc_code)
)
INSERT INTO lab_reports_yearly (
    user_id, year, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit,
    normal_range_min, normal_range_max, status, created_at, updated_at
)
SELECT :user, year, test_category, loinc_code, test_name, test_code, avg_value, min_value, max_value, count, unit, normal_range_min,
       normal_range_max, status, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh
ON CONFLICT (user_id, year, test_category, loinc_code) DO UPDATE SET
    test_name = excluded.test_name, test_code = excluded.test_code, avg_value = excluded.avg_value, min_value =
    excluded.min_value, max_value = excluded.max_value, count = excluded.count, unit = excluded.unit, normal_range_min =
    excluded.normal_range_min, normal_range_max = excluded.normal_range_max, status = excluded.status, updated_at =
    excluded.updated_at;
