-- name: send
-- Adds a message; the same id on the same queue is kept once. It may be had at once, also by a clock that was set back since.
INSERT INTO local_messages (queue, message_id, body, attributes, priority, sent_at, visible_at)
SELECT :queue, :message_id, :body, :attributes, :priority, now, 0 FROM clock
WHERE true
ON CONFLICT (queue, message_id) DO NOTHING;

-- name: waiting
-- Whether a message can be had, without taking the write lock.
SELECT 1 FROM local_messages, clock WHERE queue = :queue AND priority BETWEEN :first AND :last AND visible_at <= now LIMIT 1;

-- name: receive
-- Leases the next messages of some urgencies: the most urgent first, then the oldest.
UPDATE local_messages
SET receipt = lower(hex(randomblob(16))),
    receive_count = receive_count + 1,
    visible_at = (SELECT now FROM clock) + :lease
WHERE id IN (
    SELECT id FROM local_messages, clock
    WHERE queue = :queue AND priority BETWEEN :first AND :last AND visible_at <= now
    ORDER BY priority, id
    LIMIT :limit
)
RETURNING id, queue, message_id, body, attributes, priority, receipt, receive_count;

-- name: renew
-- Prolongs the lease of the newest delivery.
UPDATE local_messages SET visible_at = (SELECT now FROM clock) + :lease WHERE receipt = :receipt;

-- name: release
-- Gives a message back, to be delivered again after the delay.
UPDATE local_messages SET visible_at = CASE WHEN :delay > 0 THEN (SELECT now FROM clock) + :delay ELSE 0 END, receipt = NULL WHERE receipt = :receipt;

-- name: delete
-- Takes messages off their queue.
DELETE FROM local_messages WHERE receipt IN (SELECT value FROM json_each(:receipts)) RETURNING receipt;

-- name: peek
-- The messages of a queue after a given one, oldest first, without taking them.
SELECT id, queue, message_id, body, attributes, priority, '' AS receipt, receive_count
FROM local_messages WHERE queue = :queue AND id > :after ORDER BY id LIMIT :limit;

-- name: depth
-- How many messages lie in a queue, leased and delayed ones included.
SELECT count(*) AS depth FROM local_messages WHERE queue = :queue;

-- name: level
-- What lies in a queue: what could be had now, what is leased, what is delayed, and the age in seconds of the oldest that could be had.
SELECT coalesce(sum(CASE WHEN visible_at <= now THEN 1 ELSE 0 END), 0) AS waiting,
       coalesce(sum(CASE WHEN visible_at > now AND receipt IS NOT NULL THEN 1 ELSE 0 END), 0) AS leased,
       coalesce(sum(CASE WHEN visible_at > now AND receipt IS NULL THEN 1 ELSE 0 END), 0) AS delayed,
       coalesce(max(CASE WHEN visible_at <= now THEN max(0.0, now - sent_at) END), 0.0) AS oldest_seconds
FROM local_messages, (SELECT now FROM clock) AS moment WHERE queue = :queue;
