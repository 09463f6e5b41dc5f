-- name: touched
-- The days whose buckets are computed anew.
CREATE TEMPORARY TABLE lamina_touched (day date) ON COMMIT DROP;

-- name: touch
-- All of a user's days between two, for a recomputation.
INSERT INTO lamina_touched SELECT generate_series(CAST(:since AS date), CAST(:until AS date), interval '1 day');

-- name: forget
-- Meals are counted where they lie: nothing is copied that would have to be forgotten.
SELECT 1 AS nothing WHERE false;

-- name: refuse
-- Parks meals with a nutrient that is no number, which would spoil every sum.
WITH strange AS (
    SELECT raw.id FROM nutrition_raw_data raw
    WHERE raw.user_id = :user AND raw.aggregation_status IN ('pending', 'queued', 'processing', 'failed')
      -- Under an OR the list is hashed: as a join it would be compared with every row that waits.
      AND (CAST(:ids AS jsonb) IS NULL OR raw.id IN (SELECT CAST(told.value AS bigint) FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS told (value)))
      AND (SELECT bool_or(amount IN ('NaN', 'Infinity', '-Infinity')) FROM unnest(ARRAY[
               calories, protein_g, fat_g, carbs_g, fiber_g, sugar_g, sodium_mg, vitamin_a_mcg, vitamin_c_mg, vitamin_d_mcg,
               vitamin_e_mg, vitamin_k_mcg, vitamin_b1_mg, vitamin_b2_mg, vitamin_b3_mg, vitamin_b6_mg, vitamin_b12_mcg, folate_mcg,
               calcium_mg, iron_mg, magnesium_mg, phosphorus_mg, potassium_mg, zinc_mg, copper_mg, manganese_mg, selenium_mcg
           ]) AS amount)
), told AS (
    INSERT INTO lamina.row_failures (domain, row_id, attempts, error)
    SELECT 'nutrition', strange.id, 1, 'a nutrient is no number; mend it, and set the row to pending' FROM strange
    ON CONFLICT (domain, row_id) DO UPDATE SET error = excluded.error, due_at = NULL
)
UPDATE nutrition_raw_data raw SET aggregation_status = 'failed' FROM strange WHERE raw.id = strange.id AND raw.aggregation_status <> 'failed';

-- name: take
-- Takes a batch, and remembers which days it touches.
WITH batch AS (
    SELECT raw.id FROM nutrition_raw_data raw LEFT JOIN lamina.row_failures failures ON failures.domain = 'nutrition' AND failures.row_id = raw.id
    WHERE raw.user_id = :user AND raw.aggregation_status IN ('pending', 'queued', 'processing', 'failed')
      AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.aggregation_status IN ('pending', 'queued'))
      AND (CAST(:ids AS jsonb) IS NULL OR raw.id IN (SELECT CAST(told.value AS bigint) FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS told (value)))
    ORDER BY raw.created_at, raw.id LIMIT :limit FOR UPDATE OF raw SKIP LOCKED
), moved AS (
    UPDATE nutrition_raw_data raw SET aggregation_status = 'completed', aggregated_at = now() AT TIME ZONE :zone, updated_at = now() AT TIME ZONE :zone
    FROM batch WHERE raw.id = batch.id RETURNING raw.*
), forgiven AS (
    DELETE FROM lamina.row_failures USING moved WHERE domain = 'nutrition' AND row_id = moved.id
)
INSERT INTO lamina_touched SELECT DISTINCT meal_date FROM moved;

-- name: counted
-- What became of a batch.
SELECT count(*) FILTER (WHERE raw.aggregation_status = 'completed') AS taken, count(*) FILTER (WHERE raw.aggregation_status = 'failed') AS failed
FROM nutrition_raw_data raw WHERE raw.user_id = :user
 AND (CAST(:ids AS jsonb) IS NULL OR raw.id IN (SELECT CAST(told.value AS bigint) FROM jsonb_array_elements_text(CAST(:ids AS jsonb)) AS told (value)));

-- name: daily
-- The sums of all meals of a day.
WITH fresh AS (
    SELECT meal_date AS date,
           coalesce(sum(calories), 0) AS total_calories, coalesce(sum(protein_g), 0) AS total_protein_g, coalesce(sum(fat_g), 0) AS total_fat_g, coalesce(sum(carbs_g), 0) AS total_carbs_g,
           coalesce(sum(fiber_g), 0) AS total_fiber_g, coalesce(sum(sugar_g), 0) AS total_sugar_g, coalesce(sum(sodium_mg), 0) AS total_sodium_mg, coalesce(sum(vitamin_a_mcg), 0) AS
           total_vitamin_a_mcg, coalesce(sum(vitamin_c_mg), 0) AS total_vitamin_c_mg, coalesce(sum(vitamin_d_mcg), 0) AS total_vitamin_d_mcg, coalesce(sum(vitamin_e_mg), 0) AS
           total_vitamin_e_mg, coalesce(sum(vitamin_k_mcg), 0) AS total_vitamin_k_mcg, coalesce(sum(vitamin_b1_mg), 0) AS total_vitamin_b1_mg, coalesce(sum(vitamin_b2_mg), 0)
           AS total_vitamin_b2_mg, coalesce(sum(vitamin_b3_mg), 0) AS total_vitamin_b3_mg, coalesce(sum(vitamin_b6_mg), 0) AS total_vitamin_b6_mg,
           coalesce(sum(vitamin_b12_mcg), 0) AS total_vitamin_b12_mcg, coalesce(sum(folate_mcg), 0) AS total_folate_mcg, coalesce(sum(calcium_mg), 0) AS total_calcium_mg,
           coalesce(sum(iron_mg), 0) AS total_iron_mg, coalesce(sum(magnesium_mg), 0) AS total_magnesium_mg, coalesce(sum(phosphorus_mg), 0) AS total_phosphorus_mg,
           coalesce(sum(potassium_mg), 0) AS total_potassium_mg, coalesce(sum(zinc_mg), 0) AS total_zinc_mg, coalesce(sum(copper_mg), 0) AS total_copper_mg, coalesce(sum(manganese_mg), 0)
           AS total_manganese_mg, coalesce(sum(selenium_mcg), 0) AS total_selenium_mcg,
           count(*) AS meal_count,
           count(*) FILTER (WHERE lower(meal_type) = 'breakfast') AS breakfast_count, count(*) FILTER (WHERE lower(meal_type) = 'lunch')
           AS lunch_count, count(*) FILTER (WHERE lower(meal_type) = 'dinner') AS dinner_count, count(*) FILTER (WHERE lower(meal_type)
           = 'snack') AS snack_count,
           coalesce(sum(calories) FILTER (WHERE lower(meal_type) = 'breakfast'), 0) AS breakfast_calories, coalesce(sum(calories) FILTER
           (WHERE lower(meal_type) = 'lunch'), 0) AS lunch_calories, coalesce(sum(calories) FILTER (WHERE lower(meal_type) = 'dinner'),
           0) AS dinner_calories, coalesce(sum(calories) FILTER (WHERE lower(meal_type) = 'snack'), 0) AS snack_calories,
           mode() WITHIN GROUP (ORDER BY data_source) AS primary_source, CAST(jsonb_agg(DISTINCT data_source) AS text) AS sources_included
    FROM nutrition_raw_data meals JOIN lamina_touched touched ON touched.day = meals.meal_date
    LEFT JOIN lamina.row_failures parked ON parked.domain = 'nutrition' AND parked.row_id = meals.id AND parked.due_at IS NULL
    WHERE meals.user_id = :user AND parked.row_id IS NULL GROUP BY meal_date
), changed AS (
    UPDATE nutrition_daily_aggregates bucket SET
        total_calories = fresh.total_calories, total_protein_g = fresh.total_protein_g, total_fat_g = fresh.total_fat_g,
        total_carbs_g = fresh.total_carbs_g, total_fiber_g = fresh.total_fiber_g, total_sugar_g = fresh.total_sugar_g,
        total_sodium_mg = fresh.total_sodium_mg, total_vitamin_a_mcg = fresh.total_vitamin_a_mcg, total_vitamin_c_mg =
        fresh.total_vitamin_c_mg, total_vitamin_d_mcg = fresh.total_vitamin_d_mcg, total_vitamin_e_mg =
        fresh.total_vitamin_e_mg, total_vitamin_k_mcg = fresh.total_vitamin_k_mcg, total_vitamin_b1_mg =
        fresh.total_vitamin_b1_mg, total_vitamin_b2_mg = fresh.total_vitamin_b2_mg, total_vitamin_b3_mg =
        fresh.total_vitamin_b3_mg, total_vitamin_b6_mg = fresh.total_vitamin_b6_mg, total_vitamin_b12_mcg =
        fresh.total_vitamin_b12_mcg, total_folate_mcg = fresh.total_folate_mcg, total_calcium_mg = fresh.total_calcium_mg,
        total_iron_mg = fresh.total_iron_mg, total_magnesium_mg = fresh.total_magnesium_mg, total_phosphorus_mg =
        fresh.total_phosphorus_mg, total_potassium_mg = fresh.total_potassium_mg, total_zinc_mg = fresh.total_zinc_mg,
        total_copper_mg = fresh.total_copper_mg, total_manganese_mg = fresh.total_manganese_mg, total_selenium_mcg =
        fresh.total_selenium_mcg, meal_count = fresh.meal_count, breakfast_count = fresh.breakfast_count, lunch_count =
        fresh.lunch_count, dinner_count = fresh.dinner_count, snack_count = fresh.snack_count, breakfast_calories =
        fresh.breakfast_calories, lunch_calories = fresh.lunch_calories, dinner_calories = fresh.dinner_calories, snack_calories
        = fresh.snack_calories, primary_source = fresh.primary_source, sources_included = fresh.sources_included, updated_at = now() AT TIME ZONE :zone
    FROM fresh WHERE bucket.user_id = :user AND bucket.date = fresh.date
    RETURNING bucket.date
), gone AS (
    DELETE FROM nutrition_daily_aggregates bucket USING lamina_touched touched
    WHERE bucket.user_id = :user AND bucket.date = touched.day
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.date = fresh.date)
)
INSERT INTO nutrition_daily_aggregates (
    user_id, date, total_calories, total_protein_g, total_fat_g, total_carbs_g, total_fiber_g, total_sugar_g,
    total_sodium_mg, total_vitamin_a_mcg, total_vitamin_c_mg, total_vitamin_d_mcg, total_vitamin_e_mg, total_vitamin_k_mcg,
    total_vitamin_b1_mg, total_vitamin_b2_mg, total_vitamin_b3_mg, total_vitamin_b6_mg, total_vitamin_b12_mcg,
    total_folate_mcg, total_calcium_mg, total_iron_mg, total_magnesium_mg, total_phosphorus_mg, total_potassium_mg,
    total_zinc_mg, total_copper_mg, total_manganese_mg, total_selenium_mcg, meal_count, breakfast_count, lunch_count,
    dinner_count, snack_count, breakfast_calories, lunch_calories, dinner_calories, snack_calories, primary_source,
    sources_included, created_at, updated_at
)
SELECT
    :user, fresh.date, fresh.total_calories, fresh.total_protein_g, fresh.total_fat_g, fresh.total_carbs_g,
    fresh.total_fiber_g, fresh.total_sugar_g, fresh.total_sodium_mg, fresh.total_vitamin_a_mcg, fresh.total_vitamin_c_mg,
    fresh.total_vitamin_d_mcg, fresh.total_vitamin_e_mg, fresh.total_vitamin_k_mcg, fresh.total_vitamin_b1_mg,
    fresh.total_vitamin_b2_mg, fresh.total_vitamin_b3_mg, fresh.total_vitamin_b6_mg, fresh.total_vitamin_b12_mcg,
    fresh.total_folate_mcg, fresh.total_calcium_mg, fresh.total_iron_mg, fresh.total_magnesium_mg,
    fresh.total_phosphorus_mg, fresh.total_potassium_mg, fresh.total_zinc_mg, fresh.total_copper_mg,
    fresh.total_manganese_mg, fresh.total_selenium_mcg, fresh.meal_count, fresh.breakfast_count, fresh.lunch_count,
    fresh.dinner_count, fresh.snack_count, fresh.breakfast_calories, fresh.lunch_calories, fresh.dinner_calories,
    fresh.snack_calories, fresh.primary_source, fresh.sources_included, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.date = fresh.date);

-- name: weekly
-- Means of the days that have data.
WITH periods AS (
    SELECT DISTINCT CAST(date_trunc('week', day) AS date) AS week_start_date FROM lamina_touched
), fresh AS (
    SELECT periods.week_start_date, periods.week_start_date + 6 AS week_end_date,
           sum(total_calories) / count(*) AS avg_daily_calories, sum(total_protein_g) / count(*) AS avg_daily_protein_g,
           sum(total_fat_g) / count(*) AS avg_daily_fat_g, sum(total_carbs_g) / count(*) AS avg_daily_carbs_g, sum(total_fiber_g) /
           count(*) AS avg_daily_fiber_g, sum(total_sugar_g) / count(*) AS avg_daily_sugar_g, sum(total_sodium_mg) / count(*) AS
           avg_daily_sodium_mg, sum(total_vitamin_a_mcg) / count(*) AS avg_daily_vitamin_a_mcg, sum(total_vitamin_c_mg) / count(*) AS
           avg_daily_vitamin_c_mg, sum(total_vitamin_d_mcg) / count(*) AS avg_daily_vitamin_d_mcg, sum(total_vitamin_e_mg) / count(*) AS
           avg_daily_vitamin_e_mg, sum(total_vitamin_k_mcg) / count(*) AS avg_daily_vitamin_k_mcg, sum(total_vitamin_b1_mg) / count(*)
           AS avg_daily_vitamin_b1_mg, sum(total_vitamin_b2_mg) / count(*) AS avg_daily_vitamin_b2_mg, sum(total_vitamin_b3_mg) /
           count(*) AS avg_daily_vitamin_b3_mg, sum(total_vitamin_b6_mg) / count(*) AS avg_daily_vitamin_b6_mg,
           sum(total_vitamin_b12_mcg) / count(*) AS avg_daily_vitamin_b12_mcg, sum(total_folate_mcg) / count(*) AS avg_daily_folate_mcg,
           sum(total_calcium_mg) / count(*) AS avg_daily_calcium_mg, sum(total_iron_mg) / count(*) AS avg_daily_iron_mg,
           sum(total_magnesium_mg) / count(*) AS avg_daily_magnesium_mg, sum(total_phosphorus_mg) / count(*) AS avg_daily_phosphorus_mg,
           sum(total_potassium_mg) / count(*) AS avg_daily_potassium_mg, sum(total_zinc_mg) / count(*) AS avg_daily_zinc_mg,
           sum(total_copper_mg) / count(*) AS avg_daily_copper_mg, sum(total_manganese_mg) / count(*) AS avg_daily_manganese_mg,
           sum(total_selenium_mcg) / count(*) AS avg_daily_selenium_mcg,
           sum(total_calories) AS total_weekly_calories, sum(meal_count) AS total_weekly_meals, count(*) AS days_with_data,
           mode() WITHIN GROUP (ORDER BY primary_source) AS primary_source, CAST((
               SELECT jsonb_agg(DISTINCT source ORDER BY source) FROM unnest(array_agg(days.sources_included)) AS told,
                      jsonb_array_elements_text(CASE WHEN told ~ '^\s*\[\s*("([^"\\[:cntrl:]]|\\["\\/])*"\s*(,\s*"([^"\\[:cntrl:]]|\\["\\/])*"\s*)*)?\]\s*$' THEN CAST(told AS jsonb) ELSE '[]' END) AS source
           ) AS text) AS sources_included
    FROM nutrition_daily_aggregates days JOIN periods ON days.date >= periods.week_start_date AND days.date < periods.week_start_date + 7
    WHERE days.user_id = :user GROUP BY periods.week_start_date
), changed AS (
    UPDATE nutrition_weekly_aggregates bucket SET
        avg_daily_calories = fresh.avg_daily_calories, avg_daily_protein_g = fresh.avg_daily_protein_g, avg_daily_fat_g =
        fresh.avg_daily_fat_g, avg_daily_carbs_g = fresh.avg_daily_carbs_g, avg_daily_fiber_g = fresh.avg_daily_fiber_g,
        avg_daily_sugar_g = fresh.avg_daily_sugar_g, avg_daily_sodium_mg = fresh.avg_daily_sodium_mg, avg_daily_vitamin_a_mcg =
        fresh.avg_daily_vitamin_a_mcg, avg_daily_vitamin_c_mg = fresh.avg_daily_vitamin_c_mg, avg_daily_vitamin_d_mcg =
        fresh.avg_daily_vitamin_d_mcg, avg_daily_vitamin_e_mg = fresh.avg_daily_vitamin_e_mg, avg_daily_vitamin_k_mcg =
        fresh.avg_daily_vitamin_k_mcg, avg_daily_vitamin_b1_mg = fresh.avg_daily_vitamin_b1_mg, avg_daily_vitamin_b2_mg =
        fresh.avg_daily_vitamin_b2_mg, avg_daily_vitamin_b3_mg = fresh.avg_daily_vitamin_b3_mg, avg_daily_vitamin_b6_mg =
        fresh.avg_daily_vitamin_b6_mg, avg_daily_vitamin_b12_mcg = fresh.avg_daily_vitamin_b12_mcg, avg_daily_folate_mcg =
        fresh.avg_daily_folate_mcg, avg_daily_calcium_mg = fresh.avg_daily_calcium_mg, avg_daily_iron_mg =
        fresh.avg_daily_iron_mg, avg_daily_magnesium_mg = fresh.avg_daily_magnesium_mg, avg_daily_phosphorus_mg =
        fresh.avg_daily_phosphorus_mg, avg_daily_potassium_mg = fresh.avg_daily_potassium_mg, avg_daily_zinc_mg =
        fresh.avg_daily_zinc_mg, avg_daily_copper_mg = fresh.avg_daily_copper_mg, avg_daily_manganese_mg =
        fresh.avg_daily_manganese_mg, avg_daily_selenium_mcg = fresh.avg_daily_selenium_mcg, total_weekly_calories =
        fresh.total_weekly_calories, total_weekly_meals = fresh.total_weekly_meals, days_with_data = fresh.days_with_data,
        primary_source = fresh.primary_source, sources_included = fresh.sources_included, updated_at = now() AT TIME ZONE :zone
    FROM fresh WHERE bucket.user_id = :user AND bucket.week_start_date = fresh.week_start_date AND bucket.week_end_date = fresh.week_end_date
    RETURNING bucket.week_start_date, bucket.week_end_date
), gone AS (
    DELETE FROM nutrition_weekly_aggregates bucket USING periods
    WHERE bucket.user_id = :user AND bucket.week_start_date = periods.week_start_date
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.week_start_date = fresh.week_start_date AND bucket.week_end_date = fresh.week_end_date)
)
INSERT INTO nutrition_weekly_aggregates (
    user_id, week_start_date, week_end_date, avg_daily_calories, avg_daily_protein_g, avg_daily_fat_g, avg_daily_carbs_g,
    avg_daily_fiber_g, avg_daily_sugar_g, avg_daily_sodium_mg, avg_daily_vitamin_a_mcg, avg_daily_vitamin_c_mg,
    avg_daily_vitamin_d_mcg, avg_daily_vitamin_e_mg, avg_daily_vitamin_k_mcg, avg_daily_vitamin_b1_mg,
    avg_daily_vitamin_b2_mg, avg_daily_vitamin_b3_mg, avg_daily_vitamin_b6_mg, avg_daily_vitamin_b12_mcg,
    avg_daily_folate_mcg, avg_daily_calcium_mg, avg_daily_iron_mg, avg_daily_magnesium_mg, avg_daily_phosphorus_mg,
    avg_daily_potassium_mg, avg_daily_zinc_mg, avg_daily_copper_mg, avg_daily_manganese_mg, avg_daily_selenium_mcg,
    total_weekly_calories, total_weekly_meals, days_with_data, primary_source, sources_included, created_at, updated_at
)
SELECT
    :user, fresh.week_start_date, fresh.week_end_date, fresh.avg_daily_calories, fresh.avg_daily_protein_g,
    fresh.avg_daily_fat_g, fresh.avg_daily_carbs_g, fresh.avg_daily_fiber_g, fresh.avg_daily_sugar_g,
    fresh.avg_daily_sodium_mg, fresh.avg_daily_vitamin_a_mcg, fresh.avg_daily_vitamin_c_mg, fresh.avg_daily_vitamin_d_mcg,
    fresh.avg_daily_vitamin_e_mg, fresh.avg_daily_vitamin_k_mcg, fresh.avg_daily_vitamin_b1_mg,
    fresh.avg_daily_vitamin_b2_mg, fresh.avg_daily_vitamin_b3_mg, fresh.avg_daily_vitamin_b6_mg,
    fresh.avg_daily_vitamin_b12_mcg, fresh.avg_daily_folate_mcg, fresh.avg_daily_calcium_mg, fresh.avg_daily_iron_mg,
    fresh.avg_daily_magnesium_mg, fresh.avg_daily_phosphorus_mg, fresh.avg_daily_potassium_mg, fresh.avg_daily_zinc_mg,
    fresh.avg_daily_copper_mg, fresh.avg_daily_manganese_mg, fresh.avg_daily_selenium_mcg, fresh.total_weekly_calories,
    fresh.total_weekly_meals, fresh.days_with_data, fresh.primary_source, fresh.sources_included, now() AT TIME ZONE :zone,
    now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.week_start_date = fresh.week_start_date AND changed.week_end_date = fresh.week_end_date);

-- name: monthly
-- Means of the days that have data.
WITH periods AS (
    SELECT DISTINCT CAST(extract(year FROM day) AS integer) AS year, CAST(extract(month FROM day) AS integer) AS month FROM lamina_touched
), fresh AS (
    SELECT periods.year, periods.month,
           sum(total_calories) / count(*) AS avg_daily_calories, sum(total_protein_g) / count(*) AS avg_daily_protein_g,
           sum(total_fat_g) / count(*) AS avg_daily_fat_g, sum(total_carbs_g) / count(*) AS avg_daily_carbs_g, sum(total_fiber_g) /
           count(*) AS avg_daily_fiber_g, sum(total_sugar_g) / count(*) AS avg_daily_sugar_g, sum(total_sodium_mg) / count(*) AS
           avg_daily_sodium_mg, sum(total_vitamin_a_mcg) / count(*) AS avg_daily_vitamin_a_mcg, sum(total_vitamin_c_mg) / count(*) AS
           avg_daily_vitamin_c_mg, sum(total_vitamin_d_mcg) / count(*) AS avg_daily_vitamin_d_mcg, sum(total_vitamin_e_mg) / count(*) AS
           avg_daily_vitamin_e_mg, sum(total_vitamin_k_mcg) / count(*) AS avg_daily_vitamin_k_mcg, sum(total_vitamin_b1_mg) / count(*)
           AS avg_daily_vitamin_b1_mg, sum(total_vitamin_b2_mg) / count(*) AS avg_daily_vitamin_b2_mg, sum(total_vitamin_b3_mg) /
           count(*) AS avg_daily_vitamin_b3_mg, sum(total_vitamin_b6_mg) / count(*) AS avg_daily_vitamin_b6_mg,
           sum(total_vitamin_b12_mcg) / count(*) AS avg_daily_vitamin_b12_mcg, sum(total_folate_mcg) / count(*) AS avg_daily_folate_mcg,
           sum(total_calcium_mg) / count(*) AS avg_daily_calcium_mg, sum(total_iron_mg) / count(*) AS avg_daily_iron_mg,
           sum(total_magnesium_mg) / count(*) AS avg_daily_magnesium_mg, sum(total_phosphorus_mg) / count(*) AS avg_daily_phosphorus_mg,
           sum(total_potassium_mg) / count(*) AS avg_daily_potassium_mg, sum(total_zinc_mg) / count(*) AS avg_daily_zinc_mg,
           sum(total_copper_mg) / count(*) AS avg_daily_copper_mg, sum(total_manganese_mg) / count(*) AS avg_daily_manganese_mg,
           sum(total_selenium_mcg) / count(*) AS avg_daily_selenium_mcg,
           sum(total_calories) AS total_monthly_calories, sum(meal_count) AS total_monthly_meals, count(*) AS days_with_data,
           mode() WITHIN GROUP (ORDER BY primary_source) AS primary_source, CAST((
               SELECT jsonb_agg(DISTINCT source ORDER BY source) FROM unnest(array_agg(days.sources_included)) AS told,
                      jsonb_array_elements_text(CASE WHEN told ~ '^\s*\[\s*("([^"\\[:cntrl:]]|\\["\\/])*"\s*(,\s*"([^"\\[:cntrl:]]|\\["\\/])*"\s*)*)?\]\s*$' THEN CAST(told AS jsonb) ELSE '[]' END) AS source
           ) AS text) AS sources_included
    FROM nutrition_daily_aggregates days JOIN periods ON days.date >= make_date(periods.year, periods.month, 1) AND days.date < make_date(periods.year, periods.month, 1) + interval '1 month'
    WHERE days.user_id = :user GROUP BY periods.year, periods.month
), changed AS (
    UPDATE nutrition_monthly_aggregates bucket SET
        avg_daily_calories = fresh.avg_daily_calories, avg_daily_protein_g = fresh.avg_daily_protein_g, avg_daily_fat_g =
        fresh.avg_daily_fat_g, avg_daily_carbs_g = fresh.avg_daily_carbs_g, avg_daily_fiber_g = fresh.avg_daily_fiber_g,
        avg_daily_sugar_g = fresh.avg_daily_sugar_g, avg_daily_sodium_mg = fresh.avg_daily_sodium_mg, avg_daily_vitamin_a_mcg =
        fresh.avg_daily_vitamin_a_mcg, avg_daily_vitamin_c_mg = fresh.avg_daily_vitamin_c_mg, avg_daily_vitamin_d_mcg =
        fresh.avg_daily_vitamin_d_mcg, avg_daily_vitamin_e_mg = fresh.avg_daily_vitamin_e_mg, avg_daily_vitamin_k_mcg =
        fresh.avg_daily_vitamin_k_mcg, avg_daily_vitamin_b1_mg = fresh.avg_daily_vitamin_b1_mg, avg_daily_vitamin_b2_mg =
        fresh.avg_daily_vitamin_b2_mg, avg_daily_vitamin_b3_mg = fresh.avg_daily_vitamin_b3_mg, avg_daily_vitamin_b6_mg =
        fresh.avg_daily_vitamin_b6_mg, avg_daily_vitamin_b12_mcg = fresh.avg_daily_vitamin_b12_mcg, avg_daily_folate_mcg =
        fresh.avg_daily_folate_mcg, avg_daily_calcium_mg = fresh.avg_daily_calcium_mg, avg_daily_iron_mg =
        fresh.avg_daily_iron_mg, avg_daily_magnesium_mg = fresh.avg_daily_magnesium_mg, avg_daily_phosphorus_mg =
        fresh.avg_daily_phosphorus_mg, avg_daily_potassium_mg = fresh.avg_daily_potassium_mg, avg_daily_zinc_mg =
        fresh.avg_daily_zinc_mg, avg_daily_copper_mg = fresh.avg_daily_copper_mg, avg_daily_manganese_mg =
        fresh.avg_daily_manganese_mg, avg_daily_selenium_mcg = fresh.avg_daily_selenium_mcg, total_monthly_calories =
        fresh.total_monthly_calories, total_monthly_meals = fresh.total_monthly_meals, days_with_data = fresh.days_with_data,
        primary_source = fresh.primary_source, sources_included = fresh.sources_included, updated_at = now() AT TIME ZONE :zone
    FROM fresh WHERE bucket.user_id = :user AND bucket.year = fresh.year AND bucket.month = fresh.month
    RETURNING bucket.year, bucket.month
), gone AS (
    DELETE FROM nutrition_monthly_aggregates bucket USING periods
    WHERE bucket.user_id = :user AND bucket.year = periods.year AND bucket.month = periods.month
      AND NOT EXISTS (SELECT 1 FROM fresh WHERE bucket.year = fresh.year AND bucket.month = fresh.month)
)
INSERT INTO nutrition_monthly_aggregates (
    user_id, year, month, avg_daily_calories, avg_daily_protein_g, avg_daily_fat_g, avg_daily_carbs_g, avg_daily_fiber_g,
    avg_daily_sugar_g, avg_daily_sodium_mg, avg_daily_vitamin_a_mcg, avg_daily_vitamin_c_mg, avg_daily_vitamin_d_mcg,
    avg_daily_vitamin_e_mg, avg_daily_vitamin_k_mcg, avg_daily_vitamin_b1_mg, avg_daily_vitamin_b2_mg,
    avg_daily_vitamin_b3_mg, avg_daily_vitamin_b6_mg, avg_daily_vitamin_b12_mcg, avg_daily_folate_mcg, avg_daily_calcium_mg,
    avg_daily_iron_mg, avg_daily_magnesium_mg, avg_daily_phosphorus_mg, avg_daily_potassium_mg, avg_daily_zinc_mg,
    avg_daily_copper_mg, avg_daily_manganese_mg, avg_daily_selenium_mcg, total_monthly_calories, total_monthly_meals,
    days_with_data, primary_source, sources_included, created_at, updated_at
)
SELECT
    :user, fresh.year, fresh.month, fresh.avg_daily_calories, fresh.avg_daily_protein_g, fresh.avg_daily_fat_g,
    fresh.avg_daily_carbs_g, fresh.avg_daily_fiber_g, fresh.avg_daily_sugar_g, fresh.avg_daily_sodium_mg,
    fresh.avg_daily_vitamin_a_mcg, fresh.avg_daily_vitamin_c_mg, fresh.avg_daily_vitamin_d_mcg,
    fresh.avg_daily_vitamin_e_mg, fresh.avg_daily_vitamin_k_mcg, fresh.avg_daily_vitamin_b1_mg,
    fresh.avg_daily_vitamin_b2_mg, fresh.avg_daily_vitamin_b3_mg, fresh.avg_daily_vitamin_b6_mg,
    fresh.avg_daily_vitamin_b12_mcg, fresh.avg_daily_folate_mcg, fresh.avg_daily_calcium_mg, fresh.avg_daily_iron_mg,
    fresh.avg_daily_magnesium_mg, fresh.avg_daily_phosphorus_mg, fresh.avg_daily_potassium_mg, fresh.avg_daily_zinc_mg,
    fresh.avg_daily_copper_mg, fresh.avg_daily_manganese_mg, fresh.avg_daily_selenium_mcg, fresh.total_monthly_calories,
    fresh.total_monthly_meals, fresh.days_with_data, fresh.primary_source, fresh.sources_included, now() AT TIME ZONE :zone,
    now() AT TIME ZONE :zone
FROM fresh WHERE NOT EXISTS (SELECT 1 FROM changed WHERE changed.year = fresh.year AND changed.month = fresh.month);
