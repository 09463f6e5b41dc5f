-- name: find
-- A run with all that hangs on it. Enums are stored as their names; either case is read.
SELECT CAST(runs.id AS text) AS id, runs.created_at, runs.updated_at, lower(runs.status) AS status, runs.queued_at, runs.started_at, runs.completed_at,
       runs.retry_count, lower(runs.run_type) AS run_type, lower(runs.priority) AS priority, CAST(runs.parent_run_id AS text) AS parent_run_id,
       runs.input_idea, runs.extra_context, runs.model, CAST(runs.temperature AS double precision) AS temperature, runs.parameters_json,
       CAST(runs.overall_weighted_confidence AS double precision) AS overall_weighted_confidence, runs.decision_label, runs.schema_version,
       runs.prompt_set_version,
       (SELECT expanded_proposal_json FROM proposal_versions WHERE run_id = runs.id) AS proposal,
       (SELECT edit_notes FROM proposal_versions WHERE run_id = runs.id) AS edit_notes,
       (SELECT decision_json FROM decisions WHERE run_id = runs.id) AS decision,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'persona_id', persona_id, 'persona_name', persona_name, 'confidence_score', CAST(confidence_score AS double precision),
            'blocking_issues_present', blocking_issues_present, 'security_concerns_present', security_concerns_present,
            'prompt_parameters_json', prompt_parameters_json, 'review', review_json
        ) ORDER BY created_at, persona_id), '[]') FROM persona_reviews WHERE run_id = runs.id) AS reviews,
       (SELECT coalesce(jsonb_agg(jsonb_build_object(
            'step_name', step_name, 'step_order', step_order, 'status', lower(status), 'started_at', started_at, 'completed_at', completed_at,
            'error_message', error_message, 'step_metadata', step_metadata
        ) ORDER BY step_order), '[]') FROM step_progress WHERE run_id = runs.id) AS steps
FROM runs WHERE runs.id = CAST(:run_id AS uuid);

-- name: queued
-- A run that is to be worked on, and that nobody has begun.
SELECT 1 AS found FROM runs WHERE id = CAST(:run_id AS uuid) AND upper(status) = 'QUEUED';

-- name: create
-- A queued run with its seven pending steps. The same run twice is one.
WITH made AS (
    INSERT INTO runs (id, created_at, updated_at, status, queued_at, retry_count, input_idea, extra_context, run_type, priority, parent_run_id,
                      model, temperature, parameters_json, schema_version, prompt_set_version)
    VALUES (CAST(:run_id AS uuid), now(), now(), 'QUEUED', now(), 0, :input_idea, CAST(:extra_context AS jsonb), upper(:run_type), upper(:priority),
            CAST(:parent_run_id AS uuid), :model, CAST(:temperature AS numeric), CAST(:parameters AS jsonb), CAST(:version AS text), CAST(:version AS text))
    ON CONFLICT (id) DO NOTHING
    RETURNING id
), steps AS (
    INSERT INTO step_progress (id, run_id, step_name, step_order, status)
    SELECT gen_random_uuid(), made.id, step.name, step.place, 'PENDING'
    FROM made, jsonb_to_recordset(CAST(:steps AS jsonb)) AS step (name text, place integer)
)
SELECT id FROM made;

-- name: requeue
-- A run that failed, or whose message never came, made ready to be asked for again.
WITH reset AS (
    UPDATE runs SET status = 'QUEUED', queued_at = now(), updated_at = now(), completed_at = NULL,
                    retry_count = retry_count + CASE upper(status) WHEN 'FAILED' THEN 1 ELSE 0 END
    WHERE id = CAST(:run_id AS uuid) AND upper(status) IN ('FAILED', 'QUEUED')
    RETURNING id
), steps AS (
    UPDATE step_progress SET status = 'PENDING', error_message = NULL FROM reset
    WHERE run_id = reset.id AND upper(step_progress.status) IN ('FAILED', 'RUNNING')
)
SELECT id FROM reset;

-- name: started
-- A worker has begun, or has taken over.
UPDATE runs SET status = 'RUNNING', started_at = coalesce(started_at, now()), updated_at = now(), completed_at = NULL WHERE id = CAST(:run_id AS uuid);

-- name: step
-- Where a step stands. Times are kept unless they are told; an error stays only with a failed step.
INSERT INTO step_progress AS steps (id, run_id, step_name, step_order, status, started_at, completed_at, error_message, step_metadata)
VALUES (gen_random_uuid(), CAST(:run_id AS uuid), :name, CAST(:place AS integer), CAST(:status AS text), CASE WHEN CAST(:status AS text) = 'RUNNING' THEN now() END,
        CASE WHEN CAST(:status AS text) IN ('COMPLETED', 'FAILED') THEN now() END, CAST(:error AS text), CAST(:metadata AS jsonb))
ON CONFLICT (run_id, step_name) DO UPDATE SET
    status = excluded.status,
    started_at = coalesce(excluded.started_at, steps.started_at, excluded.completed_at),
    completed_at = CASE excluded.status WHEN 'RUNNING' THEN NULL ELSE coalesce(excluded.completed_at, steps.completed_at) END,
    error_message = excluded.error_message,
    step_metadata = coalesce(excluded.step_metadata, steps.step_metadata);

-- name: proposal
-- The expanded proposal of a run.
INSERT INTO proposal_versions (id, run_id, expanded_proposal_json, proposal_diff_json, persona_template_version, edit_notes)
VALUES (gen_random_uuid(), CAST(:run_id AS uuid), CAST(:proposal AS jsonb), CAST(:diff AS jsonb), :version, CAST(:edit_notes AS text))
ON CONFLICT (run_id) DO NOTHING;

-- name: review
-- One persona's review.
INSERT INTO persona_reviews (id, run_id, persona_id, persona_name, review_json, confidence_score, blocking_issues_present,
                             security_concerns_present, prompt_parameters_json, created_at)
VALUES (gen_random_uuid(), CAST(:run_id AS uuid), :persona_id, :persona_name, CAST(:review AS jsonb), CAST(:confidence AS numeric),
        CAST(:blocking AS boolean), CAST(:security AS boolean), CAST(:parameters AS jsonb), now())
ON CONFLICT (run_id, persona_id) DO NOTHING;

-- name: decision
-- What the run came to.
INSERT INTO decisions (id, run_id, decision_json, overall_weighted_confidence, created_at)
VALUES (gen_random_uuid(), CAST(:run_id AS uuid), CAST(:decision AS jsonb), CAST(:confidence AS numeric), now())
ON CONFLICT (run_id) DO NOTHING;

-- name: completed
-- The run has ended well.
UPDATE runs SET status = 'COMPLETED', completed_at = now(), updated_at = now(), overall_weighted_confidence = CAST(:confidence AS numeric),
                decision_label = :decision
WHERE id = CAST(:run_id AS uuid);

-- name: failed
-- The run is given up; so are its steps that were being worked on.
WITH given_up AS (
    UPDATE runs SET status = 'FAILED', completed_at = now(), updated_at = now()
    WHERE id = CAST(:run_id AS uuid) AND upper(status) <> 'COMPLETED' RETURNING id
)
UPDATE step_progress SET status = 'FAILED', completed_at = now(),
       error_message = coalesce((CAST(:beginnings AS jsonb) ->> step_name) || ': ', '') || CAST(:reason AS text) FROM given_up
WHERE run_id = given_up.id AND upper(step_progress.status) = 'RUNNING';

-- name: tables
-- Which of the platform's tables are missing.
SELECT name FROM unnest(ARRAY['runs', 'proposal_versions', 'persona_reviews', 'decisions', 'step_progress']) AS name WHERE to_regclass(name) IS NULL;
