-- name: claim
-- Inserts the job, or takes it over when it has not ended, is due, and nobody's lease is left on it. One over which servers were lost again and
-- again waits while another such job runs: together, nothing would tell whose fault the next loss is.
INSERT INTO jobs (key, system, request, reply_queue, priority, trace, state, fence, worker, lease_until, created_at, started_at)
SELECT :key, :system, :request, :reply_queue, :priority, :trace, 'running', 1, :worker, now + :lease, now, now FROM clock
WHERE true
ON CONFLICT (key) DO UPDATE SET
    system = excluded.system,
    request = excluded.request,
    reply_queue = excluded.reply_queue,
    state = 'running',
    fence = jobs.fence + 1,
    revision = jobs.revision + 1,
    interruptions = jobs.interruptions + (jobs.state = 'running'),
    -- Each is an interruption too: an earlier bridge, which takes those back alone, has seen the job get on.
    server_losses = min(jobs.server_losses, jobs.interruptions),
    worker = excluded.worker,
    trace = CASE jobs.trace WHEN '' THEN excluded.trace ELSE jobs.trace END,
    lease_until = excluded.lease_until,
    due_at = NULL,
    started_at = coalesce(jobs.started_at, excluded.started_at)
WHERE (
    jobs.state = 'queued'
    OR (jobs.state = 'waiting' AND coalesce(jobs.due_at, 0) <= (SELECT now FROM clock))
    OR (jobs.state = 'running' AND coalesce(jobs.lease_until, 0) <= (SELECT now FROM clock))
) AND (
    jobs.server_losses < :suspect OR NOT EXISTS (
        SELECT 1 FROM jobs AS other, clock WHERE other.state = 'running' AND other.server_losses >= :suspect AND other.lease_until > now
    )
)
RETURNING fence, attempts, interruptions, server_losses, checkpoint, trace, (SELECT now FROM clock) - started_at AS age;

-- name: refusal
-- Why a claim found nothing to take: where the job stands, and for how long; of one that waits for another one, as long as that one's lease.
SELECT state, max(
    0.0,
    coalesce(CASE state WHEN 'running' THEN lease_until WHEN 'waiting' THEN due_at END, now) - now,
    coalesce(CASE WHEN server_losses >= :suspect THEN (
        SELECT max(other.lease_until) FROM jobs AS other WHERE other.state = 'running' AND other.server_losses >= :suspect
    ) END, now) - now
) AS retry_after
FROM jobs, clock WHERE key = :key;

-- name: renew
-- Prolongs the holder's lease.
UPDATE jobs SET lease_until = (SELECT now FROM clock) + :lease WHERE key = :key AND fence = :fence AND state = 'running';

-- name: advance
-- Prolongs the holder's lease and tells how far the work is. It never goes back: a holder that began anew is told of once it has caught up.
UPDATE jobs
SET lease_until = (SELECT now FROM clock) + :lease,
    stage = CASE WHEN :progress >= progress THEN :stage ELSE stage END,
    units_done = CASE WHEN :progress >= progress THEN :units_done ELSE units_done END,
    units_total = CASE WHEN :progress >= progress THEN :units_total ELSE units_total END,
    units_per_second = CASE WHEN :progress >= progress THEN :units_per_second ELSE units_per_second END,
    seconds_left = CASE WHEN :progress >= progress THEN :seconds_left ELSE seconds_left END,
    revision = revision + CASE WHEN :progress >= progress THEN 1 ELSE 0 END,
    progress = max(progress, :progress)
WHERE key = :key AND fence = :fence AND state = 'running';

-- name: checkpoint
-- Saves what a later claim can go on from. Work that gets on is not stuck, however often it is interrupted; saving the same again is not.
UPDATE jobs
SET interruptions = CASE WHEN checkpoint = :checkpoint THEN interruptions ELSE 0 END,
    server_losses = CASE WHEN checkpoint = :checkpoint THEN server_losses ELSE 0 END, checkpoint = :checkpoint
WHERE key = :key AND fence = :fence AND state = 'running'
RETURNING interruptions, server_losses;

-- name: finish
-- Ends the job, for the holder of the fence alone.
UPDATE jobs
SET state = :state, result = :result, last_error = :error, finished_at = (SELECT now FROM clock), lease_until = NULL,
    progress = CASE :state WHEN 'succeeded' THEN 1.0 ELSE progress END,
    units_done = CASE :state WHEN 'succeeded' THEN units_total ELSE units_done END, seconds_left = NULL, revision = revision + 1
WHERE key = :key AND fence = :fence AND state = 'running';

-- name: release
-- Gives the job back. An interruption is no error: it counts no attempt and leaves the last error as it is.
-- A holder that came to an end of its own has survived the job; one that found no server, or lost it over the job, proves nothing.
UPDATE jobs
SET state = :state, due_at = (SELECT now FROM clock) + :delay, lease_until = NULL, attempts = attempts + :counted,
    interruptions = CASE WHEN :unproved THEN interruptions ELSE 0 END + :lost,
    server_losses = CASE WHEN :unproved THEN server_losses ELSE 0 END + :lost, seconds_left = NULL, revision = revision + 1,
    last_error = CASE :error WHEN '' THEN last_error ELSE :error END
WHERE key = :key AND fence = :fence AND state = 'running';

-- name: reopen
-- Lets a failed job be claimed anew, with all its attempts; where `ended` is 1, one that succeeded too.
UPDATE jobs SET state = 'queued', attempts = 0, interruptions = 0, server_losses = 0, finished_at = NULL, result = NULL,
    due_at = (SELECT now FROM clock), progress = 0, stage = '', units_done = 0, units_total = 0, units_per_second = 0, seconds_left = NULL,
    revision = revision + 1
WHERE key = :key AND (state = 'failed' OR (state = 'succeeded' AND CAST(:ended AS integer) = 1));

-- name: forget_sent
-- Forgets a message that was sent of a job that begins anew, so that it is sent again if it comes to the same. One that was not sent yet is
-- enough.
DELETE FROM outbox WHERE message_id = :message_id AND sent_at IS NOT NULL;

-- name: announce
-- Records a job whose message has been sent.
INSERT INTO jobs (key, system, request, reply_queue, priority, trace, state, created_at)
SELECT :key, :system, :request, :reply_queue, :priority, :trace, 'queued', now FROM clock
WHERE true
ON CONFLICT (key) DO NOTHING;

-- name: find
-- The jobs whose key lies between a prefix and the last key that starts so; the prefix itself first.
SELECT key, system, state, fence, attempts, request, result, last_error, progress, stage, created_at, started_at, finished_at,
       units_done, units_total, units_per_second, seconds_left, revision
FROM jobs WHERE key >= :first AND key <= :last ORDER BY key LIMIT 2;

-- name: find_open
-- Of the jobs whose key lies between them, the newest that has not ended.
SELECT key, system, state, fence, attempts, request, result, last_error, progress, stage, created_at, started_at, finished_at,
       units_done, units_total, units_per_second, seconds_left, revision
FROM jobs WHERE key >= :first AND key <= :last AND state NOT IN ('succeeded', 'failed') ORDER BY created_at DESC, key LIMIT 1;

-- name: list
-- The newest jobs, of one state or of any.
SELECT key, system, state, fence, attempts, request, result, last_error, progress, stage, created_at, started_at, finished_at,
       units_done, units_total, units_per_second, seconds_left, revision
FROM jobs WHERE :state IS NULL OR state = :state ORDER BY created_at DESC, key LIMIT :limit;
