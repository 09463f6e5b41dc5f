-- name: add
-- Puts a message behind the end of its job. A message with this id is there once, whatever happens.
INSERT INTO outbox (message_id, job_key, type, destination, body, attributes, created_at, due_at)
SELECT :message_id, :job_key, :type, :destination, :body, :attributes, now, now FROM clock
WHERE true
ON CONFLICT (message_id) DO NOTHING;

-- name: due
-- Whether there is anything to take, without taking the write lock.
SELECT 1 FROM outbox, clock WHERE sent_at IS NULL AND due_at <= now LIMIT 1;

-- name: take
-- Leases the oldest messages that are due.
UPDATE outbox SET due_at = (SELECT now FROM clock) + :lease
WHERE id IN (SELECT id FROM outbox, clock WHERE sent_at IS NULL AND due_at <= now ORDER BY id LIMIT :limit)
RETURNING id, message_id, job_key, type, destination, body, attributes, attempts, created_at;

-- name: mark_sent
-- Records that messages have arrived.
UPDATE outbox SET sent_at = (SELECT now FROM clock), attempts = attempts + 1, last_error = ''
WHERE message_id IN (SELECT value FROM json_each(:message_ids)) AND sent_at IS NULL;

-- name: postpone
-- Records a try that failed, and when to try again.
UPDATE outbox SET due_at = (SELECT now FROM clock) + :delay, attempts = attempts + 1, last_error = :error
WHERE message_id = :message_id AND sent_at IS NULL;

-- name: backlog
-- How much is still to be sent, and the age in seconds of the oldest.
SELECT count(*) AS depth, coalesce(max((SELECT now FROM clock) - created_at), 0.0) AS oldest_age FROM outbox WHERE sent_at IS NULL;
