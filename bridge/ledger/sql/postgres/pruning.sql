-- name: jobs
-- Jobs that ended long ago. A message of theirs that is still to be sent is kept.
DELETE FROM lamina.jobs WHERE key IN (
    SELECT key FROM lamina.jobs
    WHERE finished_at IS NOT NULL AND finished_at < (SELECT now FROM lamina.clock) - CAST(:keep AS double precision)
    LIMIT :limit FOR UPDATE SKIP LOCKED
);

-- name: forsaken
-- Jobs that were begun, and whose messages have not come again since: another program has done them, such as the worker that was here before.
-- One whose message, or replay (whose id has a point and twelve digits more), still lies in a queue of ours is only late.
DELETE FROM lamina.jobs WHERE key IN (
    SELECT key FROM lamina.jobs
    WHERE state IN ('queued', 'waiting', 'running') AND created_at < (SELECT now FROM lamina.clock) - CAST(:keep AS double precision)
      AND greatest(started_at, due_at, lease_until) < (SELECT now FROM lamina.clock) - CAST(:keep AS double precision)
      AND NOT EXISTS (SELECT 1 FROM lamina.local_messages WHERE message_id = jobs.key)
      AND NOT EXISTS (SELECT 1 FROM lamina.local_messages WHERE left(message_id, -13) = jobs.key)
    LIMIT :limit FOR UPDATE SKIP LOCKED
);

-- name: outbox
-- Messages that were sent long ago.
DELETE FROM lamina.outbox WHERE id IN (
    SELECT id FROM lamina.outbox
    WHERE sent_at IS NOT NULL AND sent_at < (SELECT now FROM lamina.clock) - CAST(:keep AS double precision)
    LIMIT :limit FOR UPDATE SKIP LOCKED
);

-- name: dead_letters
-- Letters that nobody has replayed for long, or whose replay is long ago.
DELETE FROM lamina.dead_letters WHERE id IN (
    SELECT id FROM lamina.dead_letters
    WHERE dead_at < (SELECT now FROM lamina.clock) - CAST(:keep AS double precision)
      AND coalesce(replayed_at, dead_at) < (SELECT now FROM lamina.clock) - CAST(:keep AS double precision)
    LIMIT :limit FOR UPDATE SKIP LOCKED
);
