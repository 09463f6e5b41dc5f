-- name: send
-- Adds a message; the same id on the same queue is kept once. It may be had at once, also by a clock that was set back since.
INSERT INTO lamina.local_messages (queue, message_id, body, attributes, priority, sent_at, visible_at)
SELECT :queue, :message_id, :body, :attributes, :priority, now, 0 FROM lamina.clock
ON CONFLICT (queue, message_id) DO NOTHING;

-- name: receive
-- Leases the next messages of some urgencies: the most urgent first, then the oldest. Those that a rival is just taking are passed over.
WITH next AS MATERIALIZED (
    SELECT m.id FROM lamina.local_messages AS m
    WHERE m.queue = :queue AND m.priority BETWEEN :first AND :last AND m.visible_at <= (SELECT now FROM lamina.clock)
    ORDER BY m.priority, m.id
    LIMIT :limit
    FOR UPDATE SKIP LOCKED
)
UPDATE lamina.local_messages AS m
SET receipt = replace(CAST(gen_random_uuid() AS text), '-', ''),
    receive_count = m.receive_count + 1,
    visible_at = (SELECT now FROM lamina.clock) + CAST(:lease AS double precision)
FROM next WHERE m.id = next.id
RETURNING m.id, m.queue, m.message_id, m.body, m.attributes, m.priority, m.receipt, m.receive_count;

-- name: renew
-- Prolongs the lease of the newest delivery.
UPDATE lamina.local_messages SET visible_at = (SELECT now FROM lamina.clock) + CAST(:lease AS double precision) WHERE receipt = :receipt;

-- name: release
-- Gives a message back, to be delivered again after the delay.
UPDATE lamina.local_messages SET receipt = NULL,
    visible_at = CASE WHEN CAST(:delay AS double precision) > 0 THEN (SELECT now FROM lamina.clock) + CAST(:delay AS double precision) ELSE 0 END
WHERE receipt = :receipt;

-- name: delete
-- Takes messages off their queue.
DELETE FROM lamina.local_messages WHERE receipt = ANY (ARRAY(SELECT json_array_elements_text(CAST(:receipts AS json)))) RETURNING receipt;

-- name: peek
-- The messages of a queue after a given one, oldest first, without taking them.
SELECT id, queue, message_id, body, attributes, priority, '' AS receipt, receive_count
FROM lamina.local_messages WHERE queue = :queue AND id > :after ORDER BY id LIMIT :limit;

-- name: depth
-- How many messages lie in a queue, leased and delayed ones included.
SELECT count(*) AS depth FROM lamina.local_messages WHERE queue = :queue;

-- name: level
-- What lies in a queue: what could be had now, what is leased, what is delayed, and the age in seconds of the oldest that could be had.
SELECT coalesce(sum(CASE WHEN visible_at <= now THEN 1 ELSE 0 END), 0) AS waiting,
       coalesce(sum(CASE WHEN visible_at > now AND receipt IS NOT NULL THEN 1 ELSE 0 END), 0) AS leased,
       coalesce(sum(CASE WHEN visible_at > now AND receipt IS NULL THEN 1 ELSE 0 END), 0) AS delayed,
       coalesce(max(CASE WHEN visible_at <= now THEN greatest(0.0, now - sent_at) END), 0.0) AS oldest_seconds
FROM lamina.local_messages, (SELECT now FROM lamina.clock) AS moment WHERE queue = :queue;
