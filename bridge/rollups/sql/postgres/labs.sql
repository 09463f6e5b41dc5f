-- name: waiting
-- The rows of a user that a batch takes, with what is known of their names, which people may have written in any casing.
WITH batch AS (
    SELECT raw.id, raw.created_at, raw.test_name, raw.test_value, raw.test_unit, raw.reference_range, raw.test_category
    FROM lab_reports raw LEFT JOIN lamina.row_failures failures ON failures.domain = 'labs' AND failures.row_id = raw.id
    WHERE raw.user_id = :user AND raw.categorization_status IN ('pending', 'failed') AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.categorization_status = 'pending')
      AND (CAST(:document AS integer) IS NULL OR raw.extracted_from_document_id = CAST(:document AS integer))
    ORDER BY raw.created_at, raw.id LIMIT :limit
), names AS (
    SELECT DISTINCT ON (lower(test_name)) lower(test_name) AS folded, test_name_standardized, test_code, test_category, loinc_code FROM lab_test_mappings
    WHERE is_active AND lower(test_name) IN (SELECT lower(test_name) FROM batch)
    ORDER BY lower(test_name), loinc_code IS NULL, test_name <> lower(test_name), id
)
SELECT batch.id, batch.test_name, batch.test_value, batch.test_unit, batch.reference_range, batch.test_category, names.test_name_standardized AS known_name,
       names.test_code AS known_code, names.test_category AS known_category, names.loinc_code AS known_loinc
FROM batch LEFT JOIN names ON names.folded = lower(batch.test_name) ORDER BY batch.created_at, batch.id;

-- name: report
-- Writes the rows of a job's tests that the platform has not written. A test that tells no date is of the day of its report, or of the document's others.
INSERT INTO lab_reports (user_id, test_name, test_category, test_value, test_unit, reference_range, test_status, lab_name, test_date, report_date,
                         extracted_from_document_id, categorization_status, created_at, updated_at)
SELECT :user, left(test.test_name, 255), left(test.test_category, 100), left(test.test_value, 100), left(test.test_unit, 50),
       left(test.reference_range, 100), left(test.test_status, 20), left(test.lab_name, 255),
       coalesce(test.test_date, test.report_date, (SELECT max(other.test_date) FROM lab_reports other WHERE other.user_id = :user
                                                   AND other.extracted_from_document_id = :document), CAST(now() AT TIME ZONE :zone AS date)),
       test.report_date, :document, 'pending', now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
FROM jsonb_to_recordset(CAST(:tests AS jsonb)) AS test (
    test_name text, test_category text, test_value text, test_unit text, reference_range text, test_status text, lab_name text, test_date date, report_date date
)
WHERE NOT EXISTS (
    SELECT 1 FROM lab_reports written
    WHERE written.user_id = :user
      AND (written.extracted_from_document_id = :document
           OR written.extracted_from_document_id IS NULL AND written.test_date = coalesce(test.test_date, test.report_date))
      AND lower(btrim(written.test_name)) = lower(btrim(left(test.test_name, 255)))
      AND btrim(coalesce(written.test_value, '')) = btrim(coalesce(left(test.test_value, 100), ''))
);

-- name: hasten
-- What failed is tried at once, as often as a job is; then it waits as long as it is told, so that no burst of jobs has it parked.
UPDATE lamina.row_failures SET due_at = now FROM lamina.clock
WHERE domain = 'labs' AND due_at > now AND attempts < 3 AND row_id IN (
    SELECT raw.id FROM lab_reports raw WHERE raw.categorization_status = 'failed' AND (CAST(:user AS integer) IS NULL OR raw.user_id = CAST(:user AS integer))
);

-- name: learn
-- What a name means. What people have written stays, in whatever casing.
INSERT INTO lab_test_mappings AS mappings (test_name, test_name_standardized, test_code, test_category, loinc_code, loinc_source, is_standardized, is_active,
                                           created_at, updated_at)
SELECT coalesce((SELECT known.test_name FROM lab_test_mappings known WHERE lower(known.test_name) = left(lower(:name), 255) ORDER BY known.id LIMIT 1),
                left(lower(:name), 255)),
       left(:name, 255), :code, :category, CAST(:loinc AS text), CASE WHEN CAST(:loinc AS text) IS NOT NULL THEN 'LOINC' END, false, true,
       now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
ON CONFLICT (test_name) DO UPDATE SET
    loinc_source = CASE WHEN mappings.loinc_code IS NULL THEN excluded.loinc_source ELSE mappings.loinc_source END,
    loinc_code = coalesce(mappings.loinc_code, excluded.loinc_code), updated_at = now() AT TIME ZONE :zone;

-- name: touched
-- The days whose buckets are computed anew.
CREATE TEMPORARY TABLE lamina_touched (day date) ON COMMIT DROP;

-- name: touch
-- All of a user's days between two, for a recomputation.
INSERT INTO lamina_touched SELECT generate_series(CAST(:since AS date), CAST(:until AS date), interval '1 day');

-- name: forget
-- Copies whose report is gone from a user's days between two. Equal reports have one copy: where another of them is left, it is taken up anew.
WITH gone AS (
    DELETE FROM lab_report_categorized copy
    WHERE copy.user_id = :user AND copy.test_date BETWEEN CAST(:since AS date) AND CAST(:until AS date)
      AND NOT EXISTS (SELECT 1 FROM lab_reports raw WHERE raw.id = copy.id AND raw.test_date = copy.test_date)
    RETURNING copy.test_value, copy.test_date
)
UPDATE lab_reports twin SET categorization_status = 'pending'
FROM gone WHERE twin.user_id = :user AND twin.test_date = gone.test_date AND twin.test_value = gone.test_value AND twin.categorization_status = 'categorized'
  AND NOT EXISTS (SELECT 1 FROM lab_report_categorized own WHERE own.user_id = twin.user_id AND own.id = twin.id);

-- name: take
-- Copies reports with their categories and codes, learns their names, and remembers which days they touch. A report that was copied before is moved;
-- an equal one, which had no copy of its own, is taken up anew.
WITH told AS (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS told (
        id integer, read jsonb, reason text, name text, code text, category text, loinc text, matched boolean, number double precision, unit text,
        converted_number double precision, converted_unit text, flag text
    )
), moved AS (
    UPDATE lab_reports raw
    SET categorization_status = CASE WHEN told.reason IS NULL THEN 'categorized' ELSE 'insufficient' END, failure_reason = told.reason,
        updated_at = now() AT TIME ZONE :zone
    FROM told WHERE raw.id = told.id AND raw.user_id = :user AND raw.categorization_status IN ('pending', 'failed')
      -- What was edited since it was read is read again.
      AND told.read = jsonb_build_array(raw.test_name, raw.test_value, raw.test_unit, raw.reference_range)
    RETURNING raw.*, told.reason, told.name, told.code, told.category, told.loinc, told.matched, told.number, told.unit, told.converted_number,
              told.converted_unit, told.flag
), forgiven AS (
    DELETE FROM lamina.row_failures USING moved WHERE domain = 'labs' AND row_id = moved.id
), stale AS (
    DELETE FROM lab_report_categorized copy USING moved
    WHERE copy.id = moved.id AND copy.user_id = moved.user_id
      AND (copy.loinc_code, copy.test_value, copy.test_date) IS DISTINCT FROM (moved.loinc, moved.test_value, moved.test_date)
    RETURNING copy.test_date, copy.test_value
), twins AS (
    UPDATE lab_reports twin SET categorization_status = 'pending'
    FROM stale WHERE twin.user_id = :user AND twin.test_date = stale.test_date AND twin.test_value = stale.test_value AND twin.categorization_status = 'categorized'
      AND NOT EXISTS (SELECT 1 FROM lab_report_categorized own WHERE own.user_id = twin.user_id AND own.id = twin.id)
), sound AS (
    SELECT DISTINCT ON (loinc, test_value, test_date) * FROM moved WHERE reason IS NULL ORDER BY loinc, test_value, test_date, id DESC
), copied AS (
    INSERT INTO lab_report_categorized (
        id, user_id, test_name, test_category, test_value, test_unit, reference_range, test_status, lab_name, lab_address, ordering_physician, test_date,
        report_date, test_notes, test_methodology, extracted_from_document_id, confidence_score, raw_text, test_code, loinc_code,
        inferred_test_category, aggregation_status, created_at, updated_at
    )
    SELECT id, user_id, left(name, 255), test_category, test_value, test_unit, reference_range, test_status, lab_name, lab_address, ordering_physician,
           test_date, report_date, test_notes, test_methodology, extracted_from_document_id, confidence_score, raw_text, code, loinc, category, 'complete',
           created_at, updated_at
    FROM sound
    ON CONFLICT (user_id, loinc_code, test_value, test_date) DO UPDATE SET
        id = excluded.id, test_name = excluded.test_name, test_category = excluded.test_category, test_unit = excluded.test_unit,
        reference_range = excluded.reference_range, test_status = excluded.test_status, report_date = excluded.report_date,
        test_code = excluded.test_code, inferred_test_category = excluded.inferred_test_category, aggregation_status = 'complete',
        updated_at = excluded.updated_at
), valued AS (
    INSERT INTO lamina.lab_values (user_id, loinc_code, test_value, test_date, number, unit, converted_number, converted_unit, flag)
    SELECT user_id, loinc, test_value, test_date, number, coalesce(unit, ''), converted_number, coalesce(converted_unit, ''), coalesce(flag, '') FROM sound
    ON CONFLICT (user_id, loinc_code, test_value, test_date) DO UPDATE SET
        number = excluded.number, unit = excluded.unit, converted_number = excluded.converted_number, converted_unit = excluded.converted_unit,
        flag = excluded.flag
), known AS (
    SELECT DISTINCT ON (lower(test_name)) lower(test_name) AS folded, test_name FROM lab_test_mappings
    WHERE lower(test_name) IN (SELECT lower(test_name) FROM sound)
    ORDER BY lower(test_name), NOT is_active, loinc_code IS NULL, test_name <> lower(test_name), id
), learnt AS (
    INSERT INTO lab_test_mappings AS mappings (
        test_name, test_name_standardized, test_code, test_category, gpt_suggested_category, loinc_code, loinc_source, is_standardized, is_active,
        created_at, updated_at
    )
    SELECT DISTINCT ON (lower(sound.test_name)) coalesce(known.test_name, lower(sound.test_name)), left(name, 255), code, category, test_category,
           CASE WHEN matched THEN loinc END, CASE WHEN matched THEN 'LOINC' END, false, true, now() AT TIME ZONE :zone, now() AT TIME ZONE :zone
    FROM sound LEFT JOIN known ON known.folded = lower(sound.test_name) ORDER BY lower(sound.test_name), sound.id DESC
    ON CONFLICT (test_name) DO UPDATE SET
        gpt_suggested_category = coalesce(excluded.gpt_suggested_category, mappings.gpt_suggested_category),
        loinc_source = CASE WHEN mappings.loinc_code IS NULL THEN excluded.loinc_source ELSE mappings.loinc_source END,
        loinc_code = coalesce(mappings.loinc_code, excluded.loinc_code), updated_at = now() AT TIME ZONE :zone
)
INSERT INTO lamina_touched SELECT test_date FROM sound UNION SELECT test_date FROM stale;

-- name: counted
-- How many of a batch were taken up.
SELECT count(*) AS taken, 0 AS failed FROM lab_reports raw JOIN jsonb_to_recordset(CAST(:rows AS jsonb)) AS told (id integer) ON told.id = raw.id
WHERE raw.user_id = :user AND raw.categorization_status IN ('categorized', 'insufficient');
