-- name: daily
-- Results of one code in one unit; the other unit's are converted where that is known, and left out where it is not.
WITH readings AS (
    SELECT copy.test_date AS date, coalesce(nullif(copy.inferred_test_category, ''), 'Others') AS test_category, copy.loinc_code, copy.test_name,
           copy.test_code, copy.test_value, copy.test_status, copy.updated_at, nullif(btrim(coalesce(nullif(told.unit, ''), copy.test_unit)), '') AS unit,
           CASE WHEN told.user_id IS NULL THEN CAST(substring(copy.test_value FROM '[-+]?\d+(?:\.\d+)?') AS double precision) ELSE told.number END AS number,
           told.converted_number, told.converted_unit, coalesce(told.flag, '') AS flag,
           CAST(replace(coalesce((regexp_match(reference_range, '(-?\d+(?:[.,]\d+)?)\s*[-–]\s*-?\d'))[1], (regexp_match(reference_range, '[>≥]=?\s*(-?\d+(?:[.,]\d+)?)'))[1]), ',', '.') AS double precision) AS low,
           CAST(replace(coalesce((regexp_match(reference_range, '\d\s*[-–]\s*(-?\d+(?:[.,]\d+)?)'))[1], (regexp_match(reference_range, '[<≤]=?\s*(-?\d+(?:[.,]\d+)?)'))[1]), ',', '.') AS double precision) AS high
    FROM lamina_touched touched
    JOIN lab_report_categorized copy ON copy.user_id = :user AND copy.test_date = touched.day
    LEFT JOIN lamina.lab_values told ON told.user_id = copy.user_id AND told.loinc_code = copy.loinc_code AND told.test_value = copy.test_value
                                    AND told.test_date = copy.test_date
), units AS (
    SELECT date, test_category, loinc_code, mode() WITHIN GROUP (ORDER BY unit) AS unit FROM readings GROUP BY date, test_category, loinc_code
), comparable AS (
    SELECT readings.*, units.unit AS bucket_unit,
           CASE WHEN readings.unit IS NOT DISTINCT FROM units.unit THEN number ELSE converted_number END AS figure
    FROM readings JOIN units ON units.date = readings.date AND units.test_category = readings.test_category AND units.loinc_code = readings.loinc_code
    WHERE readings.unit IS NOT DISTINCT FROM units.unit OR readings.converted_unit = units.unit
), groups AS (
    SELECT date, test_category, loinc_code, (array_agg(test_name ORDER BY updated_at DESC))[1] AS test_name,
           (array_agg(test_code ORDER BY updated_at DESC))[1] AS test_code, min(bucket_unit) AS unit, count(*) AS count,
           bool_and(figure IS NOT NULL) AS is_numeric, avg(figure) AS mean, min(figure) AS least, max(figure) AS most,
           left(string_agg(DISTINCT test_value, ', '), 100) AS words,
           left((array_agg(test_value ORDER BY length(test_value), test_value))[1], 100) AS shortest,
           left((array_agg(test_value ORDER BY length(test_value) DESC, test_value))[1], 100) AS longest,
           avg(low) AS normal_range_min, avg(high) AS normal_range_max,
           max(CASE WHEN lower(test_status) IN ('red', 'critical', 'critical high', 'critical low', 'panic') THEN 3
                    WHEN lower(test_status) IN ('amber', 'high', 'low', 'abnormal', 'h', 'l') THEN 2
                    WHEN lower(test_status) IN ('green', 'normal', 'n') THEN 1
                    WHEN flag IN ('low', 'high', 'abnormal') THEN 2 WHEN flag = 'normal' THEN 1
                    WHEN figure < low OR figure > high THEN 2 WHEN figure IS NOT NULL AND coalesce(low, high) IS NOT NULL THEN 1 END) AS rank
    FROM comparable GROUP BY date, test_category, loinc_code
), fresh AS (
    SELECT date, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min, normal_range_max,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE shortest END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE longest END AS max_value,
           CASE rank WHEN 3 THEN 'red' WHEN 1 THEN 'green' ELSE 'amber' END AS status
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
-- From the days, each weighed by its results; the status is that of the mean against its range.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year, CAST(extract(month FROM day) AS integer) AS month FROM lamina_touched
), days AS (
    SELECT periods.year, periods.month, days.*, CASE WHEN avg_value ~ '^-?\d+(\.\d+)?$' THEN CAST(avg_value AS double precision) END AS mean,
           CASE WHEN min_value ~ '^-?\d+(\.\d+)?$' THEN CAST(min_value AS double precision) END AS least,
           CASE WHEN max_value ~ '^-?\d+(\.\d+)?$' THEN CAST(max_value AS double precision) END AS most
    FROM lab_reports_daily days JOIN periods ON days.date >= make_date(periods.year, periods.month, 1) AND days.date < make_date(periods.year, periods.month, 1) + interval '1 month'
    WHERE days.user_id = :user
), units AS (
    SELECT year, month, test_category, loinc_code, mode() WITHIN GROUP (ORDER BY nullif(unit, '')) AS unit FROM days GROUP BY year, month, test_category, loinc_code
), groups AS (
    SELECT days.year, days.month, days.test_category, days.loinc_code, (array_agg(test_name ORDER BY date DESC))[1] AS test_name,
           (array_agg(test_code ORDER BY date DESC))[1] AS test_code, units.unit, sum(count) AS count,
           bool_and(mean IS NOT NULL AND least IS NOT NULL AND most IS NOT NULL) AS is_numeric,
           sum(mean * count) / sum(count) AS mean, min(least) AS least, max(most) AS most, left(string_agg(DISTINCT avg_value, ', '), 100) AS words,
           avg(normal_range_min) AS normal_range_min, avg(normal_range_max) AS normal_range_max,
           max(CASE status WHEN 'red' THEN 3 WHEN 'amber' THEN 2 ELSE 1 END) AS rank
    FROM days JOIN units ON units.year = days.year AND units.month = days.month AND units.test_category = days.test_category
                        AND units.loinc_code = days.loinc_code AND units.unit IS NOT DISTINCT FROM nullif(days.unit, '')
    GROUP BY days.year, days.month, days.test_category, days.loinc_code, units.unit
), fresh AS (
    SELECT year, month, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min, normal_range_max,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE words END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE words END AS max_value,
           CASE WHEN NOT is_numeric OR coalesce(normal_range_min, normal_range_max) IS NULL
                THEN CASE rank WHEN 3 THEN 'red' WHEN 2 THEN 'amber' ELSE 'green' END
                WHEN mean < normal_range_min OR mean > normal_range_max THEN CASE rank WHEN 3 THEN 'red' ELSE 'amber' END
                ELSE 'green' END AS status
    FROM groups
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
-- From the days, each weighed by its results; the status is that of the mean against its range.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year, CAST(extract(quarter FROM day) AS integer) AS quarter FROM lamina_touched
), days AS (
    SELECT periods.year, periods.quarter, days.*, CASE WHEN avg_value ~ '^-?\d+(\.\d+)?$' THEN CAST(avg_value AS double precision) END AS mean,
           CASE WHEN min_value ~ '^-?\d+(\.\d+)?$' THEN CAST(min_value AS double precision) END AS least,
           CASE WHEN max_value ~ '^-?\d+(\.\d+)?$' THEN CAST(max_value AS double precision) END AS most
    FROM lab_reports_daily days JOIN periods ON days.date >= make_date(periods.year, periods.quarter * 3 - 2, 1) AND days.date < make_date(periods.year, periods.quarter * 3 - 2, 1) + interval '3 months'
    WHERE days.user_id = :user
), units AS (
    SELECT year, quarter, test_category, loinc_code, mode() WITHIN GROUP (ORDER BY nullif(unit, '')) AS unit FROM days GROUP BY year, quarter, test_category, loinc_code
), groups AS (
    SELECT days.year, days.quarter, days.test_category, days.loinc_code, (array_agg(test_name ORDER BY date DESC))[1] AS test_name,
           (array_agg(test_code ORDER BY date DESC))[1] AS test_code, units.unit, sum(count) AS count,
           bool_and(mean IS NOT NULL AND least IS NOT NULL AND most IS NOT NULL) AS is_numeric,
           sum(mean * count) / sum(count) AS mean, min(least) AS least, max(most) AS most, left(string_agg(DISTINCT avg_value, ', '), 100) AS words,
           avg(normal_range_min) AS normal_range_min, avg(normal_range_max) AS normal_range_max,
           max(CASE status WHEN 'red' THEN 3 WHEN 'amber' THEN 2 ELSE 1 END) AS rank
    FROM days JOIN units ON units.year = days.year AND units.quarter = days.quarter AND units.test_category = days.test_category
                        AND units.loinc_code = days.loinc_code AND units.unit IS NOT DISTINCT FROM nullif(days.unit, '')
    GROUP BY days.year, days.quarter, days.test_category, days.loinc_code, units.unit
), fresh AS (
    SELECT year, quarter, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min, normal_range_max,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE words END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE words END AS max_value,
           CASE WHEN NOT is_numeric OR coalesce(normal_range_min, normal_range_max) IS NULL
                THEN CASE rank WHEN 3 THEN 'red' WHEN 2 THEN 'amber' ELSE 'green' END
                WHEN mean < normal_range_min OR mean > normal_range_max THEN CASE rank WHEN 3 THEN 'red' ELSE 'amber' END
                ELSE 'green' END AS status
    FROM groups
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
-- From the days, each weighed by its results; the status is that of the mean against its range.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year FROM lamina_touched
), days AS (
    SELECT periods.year, days.*, CASE WHEN avg_value ~ '^-?\d+(\.\d+)?$' THEN CAST(avg_value AS double precision) END AS mean,
           CASE WHEN min_value ~ '^-?\d+(\.\d+)?$' THEN CAST(min_value AS double precision) END AS least,
           CASE WHEN max_value ~ '^-?\d+(\.\d+)?$' THEN CAST(max_value AS double precision) END AS most
    FROM lab_reports_daily days JOIN periods ON days.date >= make_date(periods.year, 1, 1) AND days.date < make_date(periods.year, 1, 1) + interval '1 year'
    WHERE days.user_id = :user
), units AS (
    SELECT year, test_category, loinc_code, mode() WITHIN GROUP (ORDER BY nullif(unit, '')) AS unit FROM days GROUP BY year, test_category, loinc_code
), groups AS (
    SELECT days.year, days.test_category, days.loinc_code, (array_agg(test_name ORDER BY date DESC))[1] AS test_name,
           (array_agg(test_code ORDER BY date DESC))[1] AS test_code, units.unit, sum(count) AS count,
           bool_and(mean IS NOT NULL AND least IS NOT NULL AND most IS NOT NULL) AS is_numeric,
           sum(mean * count) / sum(count) AS mean, min(least) AS least, max(most) AS most, left(string_agg(DISTINCT avg_value, ', '), 100) AS words,
           avg(normal_range_min) AS normal_range_min, avg(normal_range_max) AS normal_range_max,
           max(CASE status WHEN 'red' THEN 3 WHEN 'amber' THEN 2 ELSE 1 END) AS rank
    FROM days JOIN units ON units.year = days.year AND units.test_category = days.test_category
                        AND units.loinc_code = days.loinc_code AND units.unit IS NOT DISTINCT FROM nullif(days.unit, '')
    GROUP BY days.year, days.test_category, days.loinc_code, units.unit
), fresh AS (
    SELECT year, test_category, loinc_code, test_name, test_code, unit, count, normal_range_min, normal_range_max,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(mean AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(mean, 0)))) AS integer)), 90))) AS text) ELSE words END AS avg_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(least AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(least, 0)))) AS integer)), 90))) AS text) ELSE words END AS min_value,
           CASE WHEN is_numeric THEN CAST(trim_scale(round(CAST(most AS numeric), least(greatest(4, CAST(3 - floor(log(abs(nullif(most, 0)))) AS integer)), 90))) AS text) ELSE words END AS max_value,
           CASE WHEN NOT is_numeric OR coalesce(normal_range_min, normal_range_max) IS NULL
                THEN CASE rank WHEN 3 THEN 'red' WHEN 2 THEN 'amber' ELSE 'green' END
                WHEN mean < normal_range_min OR mean > normal_range_max THEN CASE rank WHEN 3 THEN 'red' ELSE 'amber' END
                ELSE 'green' END AS status
    FROM groups
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
