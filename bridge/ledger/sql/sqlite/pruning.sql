-- name: jobs
-- Jobs that ended long ago. A message of theirs that is still to be sent is kept.
DELETE FROM jobs WHERE key IN (
    SELECT key FROM jobs WHERE finished_at IS NOT NULL AND finished_at < (SELECT now FROM clock) - :keep LIMIT :limit
);

-- name: forsaken
-- Jobs that were begun, and whose messages have not come again since: another program has done them, such as the worker that was here before.
-- One whose message, or replay (whose id has a point and twelve digits more), still lies in a queue of ours is only late.
DELETE FROM jobs WHERE key IN (
    SELECT key FROM jobs
    WHERE state IN ('queued', 'waiting', 'running') AND created_at < (SELECT now FROM clock) - :keep
      AND max(coalesce(started_at, due_at, lease_until), coalesce(due_at, 0), coalesce(lease_until, 0)) < (SELECT now FROM clock) - :keep
      AND key NOT IN (SELECT message_id FROM local_messages UNION ALL SELECT substr(message_id, 1, length(message_id) - 13) FROM local_messages)
    LIMIT :limit
);

-- name: outbox
-- Messages that were sent long ago.
DELETE FROM outbox WHERE id IN (
    SELECT id FROM outbox WHERE sent_at IS NOT NULL AND sent_at < (SELECT now FROM clock) - :keep LIMIT :limit
);

-- name: dead_letters
-- Letters that nobody has replayed for long, or whose replay is long ago.
DELETE FROM dead_letters WHERE id IN (
    SELECT id FROM dead_letters
    WHERE dead_at < (SELECT now FROM clock) - :keep AND coalesce(replayed_at, dead_at) < (SELECT now FROM clock) - :keep
    LIMIT :limit
);
