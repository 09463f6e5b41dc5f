-- name: take
-- Leases the messages that have been due for longest; those that another relay is just taking are passed over. In the order of the
-- index, so that reading stops at the limit and what was sent since the last vacuum is skipped.
WITH due AS MATERIALIZED (
    SELECT o.id FROM lamina.outbox AS o
    WHERE o.sent_at IS NULL AND o.due_at <= (SELECT now FROM lamina.clock)
    ORDER BY o.due_at, o.id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE lamina.outbox AS o SET due_at = (SELECT now FROM lamina.clock) + CAST(:lease AS double precision)
FROM due WHERE o.id = due.id
RETURNING o.id, o.message_id, o.job_key, o.type, o.destination, o.body, o.attributes, o.attempts, o.created_at;

-- name: mark_sent
-- Records that messages have arrived.
UPDATE lamina.outbox SET sent_at = (SELECT now FROM lamina.clock), attempts = attempts + 1, last_error = ''
WHERE message_id = ANY (ARRAY(SELECT json_array_elements_text(CAST(:message_ids AS json)))) AND sent_at IS NULL;

-- name: postpone
-- Records a try that failed, and when to try again.
UPDATE lamina.outbox
SET due_at = (SELECT now FROM lamina.clock) + CAST(:delay AS double precision), attempts = attempts + 1, last_error = :error
WHERE message_id = :message_id AND sent_at IS NULL;

-- name: backlog
-- How much is still to be sent, and the age in seconds of the oldest.
SELECT count(*) AS depth, coalesce(max((SELECT now FROM lamina.clock) - created_at), 0) AS oldest_age
FROM lamina.outbox WHERE sent_at IS NULL;
