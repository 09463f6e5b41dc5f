-- name: find
-- A document as its worker needs it.
SELECT CAST(id AS text) AS id, CAST(user_id AS text) AS user_id, type, file_url, CAST(status AS text) AS status, verification_status, buli2_ticket_id
FROM documents WHERE id = CAST(:id AS uuid);

-- name: in_work
-- Those that a worker is to have: the platform says so before it queues them.
SELECT CAST(id AS text) AS id FROM documents WHERE status = 'processing' ORDER BY created_at, id;

-- name: processing
-- A worker has begun. Here and below: what has been completed meanwhile, by whomever, is left as it is, and so is what a person has decided.
UPDATE documents SET status = 'processing' WHERE id = CAST(:id AS uuid) AND status IS DISTINCT FROM 'completed';

-- name: read
-- What was read.
UPDATE documents
SET ocr_text = :text,
    verification_status = CASE
        WHEN verification_status IN ('manually_approved', 'manually_rejected', 'escalation_cancelled') THEN verification_status
        ELSE 'ocr_completed'
    END
WHERE id = CAST(:id AS uuid) AND status IS DISTINCT FROM 'completed';

-- name: evaluated
-- What it comes to.
UPDATE documents
SET ai_score = CAST(:score AS integer), ai_decision = :decision, result_json = CAST(:fields AS jsonb),
    verification_status = CASE
        WHEN verification_status IN ('manually_approved', 'manually_rejected', 'escalation_cancelled') THEN verification_status
        ELSE 'ai_evaluated'
    END
WHERE id = CAST(:id AS uuid) AND status IS DISTINCT FROM 'completed';

-- name: completed
-- The end of a document that was read. A ticket is kept in any case: a reviewer may be quicker than this. The platform's moments have no
-- zone, and are UTC's.
UPDATE documents
SET status = 'completed', buli2_ticket_id = coalesce(CAST(:ticket AS text), buli2_ticket_id),
    processed_at = CASE WHEN status = 'completed' THEN coalesce(processed_at, now() AT TIME ZONE 'UTC') ELSE now() AT TIME ZONE 'UTC' END,
    verification_status = CASE
        WHEN verification_status IN ('manually_approved', 'manually_rejected', 'escalation_cancelled') THEN verification_status
        WHEN status = 'completed' THEN verification_status
        ELSE :outcome
    END
WHERE id = CAST(:id AS uuid);

-- name: ticket
-- The ticket of a case that was handed over later. That of a platform's review replaces none.
UPDATE documents SET buli2_ticket_id = :ticket
WHERE id = CAST(:id AS uuid) AND (CAST(:of_review AS boolean) IS FALSE OR coalesce(buli2_ticket_id, '') = '');

-- name: reviews
-- Whether the platform's reviews can be told of; not every worker's account may.
SELECT 1 AS found FROM to_regclass('manual_reviews') AS kept (place)
WHERE CASE WHEN place IS NULL THEN false ELSE has_table_privilege(place, 'SELECT') AND has_table_privilege(place, 'UPDATE') END;

-- name: review
-- A review that the platform's web service asks for and that has its task, or is decided.
SELECT 1 AS found FROM manual_reviews
WHERE id = CAST(:review AS uuid) AND (coalesce(buli2_task_id, '') <> '' OR coalesce(decision, '') <> '');

-- name: task
-- The task of such a review.
UPDATE manual_reviews SET buli2_task_id = :ticket, updated_at = now() AT TIME ZONE 'UTC' WHERE id = CAST(:review AS uuid);

-- name: failed
-- The end of a document that is given up. What a person has decided on stays readable.
UPDATE documents
SET status = 'failed',
    result_json = CASE
        WHEN result_json IS NOT NULL AND verification_status IN ('manually_approved', 'manually_rejected', 'escalation_cancelled')
        THEN result_json
        ELSE jsonb_build_object('error', CAST(:error AS text), 'failedAt', CAST(:moment AS text), 'maxRetriesExceeded', true)
    END
WHERE id = CAST(:id AS uuid) AND status IS DISTINCT FROM 'completed';

-- name: tables
-- Which of the platform's tables are missing.
SELECT name FROM unnest(ARRAY['documents']) AS name WHERE to_regclass(name) IS NULL;
