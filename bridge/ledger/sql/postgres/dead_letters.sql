-- name: bury
-- Keeps a message whole; one that dies again is kept once, with its newest reason.
INSERT INTO lamina.dead_letters (source, queue, message_id, job_key, reason, body, attributes, dead_at)
SELECT :source, :queue, :message_id, :job_key, :reason, :body, :attributes, now FROM lamina.clock
ON CONFLICT (source, queue, message_id) DO UPDATE SET
    job_key = excluded.job_key, reason = excluded.reason, dead_at = excluded.dead_at, replayed_at = NULL;

-- name: list
-- The newest first.
SELECT id, source, queue, message_id, job_key, reason, body, attributes, dead_at, replayed_at
FROM lamina.dead_letters ORDER BY dead_at DESC, id DESC LIMIT :limit;

-- name: find
-- One letter.
SELECT id, source, queue, message_id, job_key, reason, body, attributes, dead_at, replayed_at FROM lamina.dead_letters WHERE id = :id;

-- name: mark_replayed
-- Records that the letter's bytes have been sent again.
UPDATE lamina.dead_letters SET replayed_at = (SELECT now FROM lamina.clock) WHERE id = :id;

-- name: waiting
-- How many nobody has replayed.
SELECT count(*) AS letters FROM lamina.dead_letters WHERE replayed_at IS NULL;
