-- name: find
-- A document as its worker needs it.
SELECT CAST(id AS text) AS id, CAST(user_id AS text) AS user_id, type, file_url, CAST(status AS text) AS status, verification_status, buli2_ticket_id
FROM documents WHERE id = CAST(:id AS uuid);

-- name: processing
-- A worker has begun.
UPDATE documents SET status = 'processing' WHERE id = CAST(:id AS uuid) AND status <> 'completed';

-- name: read
-- What was read.
UPDATE documents SET verification_status = 'ocr_completed', ocr_text = :text WHERE id = CAST(:id AS uuid);

-- name: evaluated
-- What it comes to.
UPDATE documents
SET verification_status = 'ai_evaluated', ai_score = CAST(:score AS integer), ai_decision = :decision, result_json = CAST(:fields AS jsonb)
WHERE id = CAST(:id AS uuid);

-- name: completed
-- The end of a document that was read.
UPDATE documents
SET status = 'completed', verification_status = :outcome, processed_at = now(), buli2_ticket_id = coalesce(CAST(:ticket AS text), buli2_ticket_id)
WHERE id = CAST(:id AS uuid);

-- name: ticket
-- The ticket of a case that was handed over later.
UPDATE documents SET buli2_ticket_id = :ticket WHERE id = CAST(:id AS uuid);

-- name: failed
-- The end of a document that is given up.
UPDATE documents
SET status = 'failed', result_json = jsonb_build_object('error', CAST(:error AS text), 'failedAt', CAST(:moment AS text), 'maxRetriesExceeded', true)
WHERE id = CAST(:id AS uuid) AND status <> 'completed';

-- name: tables
-- Which of the platform's tables are missing.
SELECT name FROM unnest(ARRAY['documents']) AS name WHERE to_regclass(name) IS NULL;
