-- name: claim
-- Inserts each job, or takes it over when it has not ended, is due, and nobody's lease is left on it. Sorted, so that rivals meet in one order.
-- One over which servers were lost again and again waits while another such job runs, or is claimed by this statement: together, nothing would
-- tell whose fault the next loss is. Two that two programs claim in the same moment do not see each other: one loss more, which an innocent
-- one can bear.
INSERT INTO lamina.jobs AS jobs (key, system, request, reply_queue, priority, trace, state, fence, worker, lease_until, created_at, started_at)
SELECT asked.key, asked.system, asked.request, asked.reply_queue, asked.priority, asked.trace, 'running', 1, asked.worker, clock.now + asked.lease,
       clock.now, clock.now
FROM lamina.clock, json_to_recordset(CAST(:jobs AS json)) AS asked (
    key text, system text, request text, reply_queue text, priority integer, trace text, worker text, lease double precision
)
ORDER BY asked.key COLLATE "C"
ON CONFLICT (key) DO UPDATE SET
    system = excluded.system,
    request = excluded.request,
    reply_queue = excluded.reply_queue,
    state = 'running',
    fence = jobs.fence + 1,
    revision = jobs.revision + 1,
    interruptions = jobs.interruptions + CASE jobs.state WHEN 'running' THEN 1 ELSE 0 END,
    -- Each is an interruption too: an earlier bridge, which takes those back alone, has seen the job get on.
    server_losses = least(jobs.server_losses, jobs.interruptions),
    worker = excluded.worker,
    trace = CASE jobs.trace WHEN '' THEN excluded.trace ELSE jobs.trace END,
    lease_until = excluded.lease_until,
    due_at = NULL,
    started_at = coalesce(jobs.started_at, excluded.started_at)
WHERE (
    jobs.state = 'queued'
    OR (jobs.state = 'waiting' AND coalesce(jobs.due_at, 0) <= excluded.created_at)
    OR (jobs.state = 'running' AND coalesce(jobs.lease_until, 0) <= excluded.created_at)
) AND (
    jobs.server_losses < :suspect OR NOT EXISTS (
        SELECT 1 FROM lamina.jobs AS other
        WHERE other.server_losses >= :suspect AND (
            (other.state = 'running' AND other.lease_until > excluded.created_at)
            OR (
                other.key < jobs.key
                AND other.key = ANY (ARRAY(SELECT each ->> 'key' FROM json_array_elements(CAST(:jobs AS json)) AS each))
                AND other.state IN ('queued', 'waiting', 'running') AND coalesce(other.due_at, 0) <= excluded.created_at
            )
        )
    )
)
RETURNING jobs.key, jobs.fence, jobs.attempts, jobs.interruptions, jobs.server_losses, jobs.checkpoint, jobs.trace,
          (SELECT now FROM lamina.clock) - jobs.started_at AS age;

-- name: refusal
-- Why claims found nothing to take: where each job stands, and for how long; of one that waits for another one, as long as that one's lease.
SELECT key, state, greatest(
    0,
    coalesce(CASE state WHEN 'running' THEN lease_until WHEN 'waiting' THEN due_at END, now) - now,
    CASE WHEN server_losses >= :suspect THEN (
        SELECT max(other.lease_until) FROM lamina.jobs AS other WHERE other.state = 'running' AND other.server_losses >= :suspect
    ) END - now
) AS retry_after
FROM lamina.jobs, lamina.clock WHERE key = ANY (ARRAY(SELECT json_array_elements_text(CAST(:keys AS json))));

-- name: renew
-- Prolongs the holder's lease.
UPDATE lamina.jobs SET lease_until = (SELECT now FROM lamina.clock) + CAST(:lease AS double precision)
WHERE key = :key AND fence = :fence AND state = 'running';

-- name: advance
-- Prolongs the holder's lease and tells how far the work is. It never goes back: a holder that began anew is told of once it has caught up.
UPDATE lamina.jobs AS jobs
SET lease_until = (SELECT now FROM lamina.clock) + CAST(:lease AS double precision),
    stage = CASE WHEN told.progress >= jobs.progress THEN told.stage ELSE jobs.stage END,
    units_done = CASE WHEN told.progress >= jobs.progress THEN told.units_done ELSE jobs.units_done END,
    units_total = CASE WHEN told.progress >= jobs.progress THEN told.units_total ELSE jobs.units_total END,
    units_per_second = CASE WHEN told.progress >= jobs.progress THEN told.units_per_second ELSE jobs.units_per_second END,
    seconds_left = CASE WHEN told.progress >= jobs.progress THEN told.seconds_left ELSE jobs.seconds_left END,
    revision = jobs.revision + CASE WHEN told.progress >= jobs.progress THEN 1 ELSE 0 END,
    progress = greatest(jobs.progress, told.progress)
FROM (
    SELECT CAST(:progress AS double precision) AS progress, CAST(:stage AS text) AS stage, CAST(:units_done AS bigint) AS units_done,
           CAST(:units_total AS bigint) AS units_total, CAST(:units_per_second AS double precision) AS units_per_second,
           CAST(:seconds_left AS double precision) AS seconds_left
) AS told
WHERE jobs.key = :key AND jobs.fence = :fence AND jobs.state = 'running';

-- name: checkpoint
-- Saves what a later claim can go on from. Work that gets on is not stuck, however often it is interrupted; saving the same again is not.
UPDATE lamina.jobs
SET interruptions = CASE checkpoint WHEN CAST(:checkpoint AS text) THEN interruptions ELSE 0 END,
    server_losses = CASE checkpoint WHEN CAST(:checkpoint AS text) THEN server_losses ELSE 0 END, checkpoint = CAST(:checkpoint AS text)
WHERE key = :key AND fence = :fence AND state = 'running'
RETURNING interruptions, server_losses;

-- name: finish
-- Ends each job, for the holder of its fence alone, and puts its messages and its dead letter behind it: all or nothing.
WITH ended AS (
    UPDATE lamina.jobs AS jobs
    SET state = job.state, result = job.result, last_error = job.error, finished_at = (SELECT now FROM lamina.clock),
        lease_until = NULL, progress = CASE job.state WHEN 'succeeded' THEN 1 ELSE jobs.progress END,
        units_done = CASE job.state WHEN 'succeeded' THEN jobs.units_total ELSE jobs.units_done END, seconds_left = NULL,
        revision = jobs.revision + 1
    FROM json_to_recordset(CAST(:jobs AS json)) AS job (key text, fence integer, state text, result text, error text)
    WHERE jobs.key = job.key AND jobs.fence = job.fence AND jobs.state = 'running'
    RETURNING jobs.key
), messages AS (
    INSERT INTO lamina.outbox (message_id, job_key, type, destination, body, attributes, created_at, due_at)
    SELECT event.message_id, ended.key, event.type, event.destination, decode(event.body, 'hex'), event.attributes, clock.now, clock.now
    FROM lamina.clock, ended JOIN json_to_recordset(CAST(:events AS json)) AS event (
        place integer, key text, message_id text, type text, destination text, body text, attributes text
    ) ON event.key = ended.key
    ORDER BY event.place
    ON CONFLICT (message_id) DO NOTHING
), letter AS (
    INSERT INTO lamina.dead_letters AS letters (source, queue, message_id, job_key, reason, body, attributes, dead_at)
    SELECT buried.source, buried.queue, buried.message_id, ended.key, buried.reason, decode(buried.body, 'hex'), buried.attributes,
           clock.now
    FROM lamina.clock, ended JOIN json_to_recordset(CAST(:letters AS json)) AS buried (
        key text, source text, queue text, message_id text, reason text, body text, attributes text
    ) ON buried.key = ended.key
    ON CONFLICT (source, queue, message_id) DO UPDATE SET
        job_key = excluded.job_key, reason = excluded.reason, dead_at = excluded.dead_at, replayed_at = NULL
)
SELECT key FROM ended;

-- name: ended_by
-- Whether the holder of a fence has ended the job so.
SELECT 1 AS found FROM lamina.jobs WHERE key = :key AND fence = :fence AND state = :state;

-- name: release
-- Gives the job back. An interruption is no error: it counts no attempt and leaves the last error as it is.
-- A holder that came to an end of its own has survived the job; one that found no server, or lost it over the job, proves nothing.
UPDATE lamina.jobs
SET state = :state, due_at = (SELECT now FROM lamina.clock) + CAST(:delay AS double precision), lease_until = NULL,
    attempts = attempts + CAST(:counted AS integer),
    interruptions = CASE CAST(:unproved AS integer) WHEN 0 THEN 0 ELSE interruptions END + CAST(:lost AS integer),
    server_losses = CASE CAST(:unproved AS integer) WHEN 0 THEN 0 ELSE server_losses END + CAST(:lost AS integer),
    seconds_left = NULL, revision = revision + 1,
    last_error = CASE CAST(:error AS text) WHEN '' THEN last_error ELSE CAST(:error AS text) END
WHERE key = :key AND fence = :fence AND state = 'running';

-- name: reopen
-- Lets a failed job be claimed anew, with all its attempts; where `ended` is 1, one that succeeded too.
UPDATE lamina.jobs
SET state = 'queued', attempts = 0, interruptions = 0, server_losses = 0, finished_at = NULL, result = NULL,
    due_at = (SELECT now FROM lamina.clock), progress = 0, stage = '', units_done = 0, units_total = 0, units_per_second = 0, seconds_left = NULL,
    revision = revision + 1
WHERE key = :key AND (state = 'failed' OR (state = 'succeeded' AND CAST(:ended AS integer) = 1));

-- name: forget_sent
-- Forgets a message that was sent of a job that begins anew, so that it is sent again if it comes to the same. One that was not sent yet is
-- enough.
DELETE FROM lamina.outbox WHERE message_id = :message_id AND sent_at IS NOT NULL;

-- name: announce
-- Records a job whose message has been sent.
INSERT INTO lamina.jobs (key, system, request, reply_queue, priority, trace, state, created_at)
SELECT :key, :system, :request, :reply_queue, :priority, :trace, 'queued', now FROM lamina.clock
ON CONFLICT (key) DO NOTHING;

-- name: find
-- The jobs whose key lies between a prefix and the last key that starts so; the prefix itself first.
SELECT key, system, state, fence, attempts, request, result, last_error, progress, stage, created_at, started_at, finished_at,
       units_done, units_total, units_per_second, seconds_left, revision
FROM lamina.jobs WHERE key >= :first AND key <= :last ORDER BY key LIMIT 2;

-- name: find_open
-- Of the jobs whose key lies between them, the newest that has not ended.
SELECT key, system, state, fence, attempts, request, result, last_error, progress, stage, created_at, started_at, finished_at,
       units_done, units_total, units_per_second, seconds_left, revision
FROM lamina.jobs WHERE key >= :first AND key <= :last AND state NOT IN ('succeeded', 'failed') ORDER BY created_at DESC, key LIMIT 1;

-- name: list
-- The newest jobs, of one state or of any.
SELECT key, system, state, fence, attempts, request, result, last_error, progress, stage, created_at, started_at, finished_at,
       units_done, units_total, units_per_second, seconds_left, revision
FROM lamina.jobs WHERE CAST(:state AS text) IS NULL OR state = CAST(:state AS text) ORDER BY created_at DESC, key LIMIT :limit;
