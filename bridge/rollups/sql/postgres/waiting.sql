-- name: users
-- Whose rows wait, the longest waiting first. What failed waits for its time, or to be asked for anew.
SELECT raw.user_id FROM {rows} raw LEFT JOIN lamina.row_failures failures ON failures.domain = '{domain}' AND failures.row_id = raw.id
WHERE raw.{status} IN ({waiting}) AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.{status} IN ({asked}))
GROUP BY raw.user_id ORDER BY min(raw.created_at), raw.user_id;

-- name: due
-- Whose rows have failed and are to be tried again now, the longest due first.
SELECT raw.user_id FROM lamina.row_failures failures JOIN {rows} raw ON raw.id = failures.row_id
WHERE failures.domain = '{domain}' AND failures.due_at <= (SELECT now FROM lamina.clock) AND raw.{status} = 'failed'
GROUP BY raw.user_id ORDER BY min(failures.due_at), raw.user_id;

-- name: waiting
-- The rows of a user that a batch would take. Of lab reports more is to be known: labs.sql has its own.
SELECT raw.id FROM {rows} raw LEFT JOIN lamina.row_failures failures ON failures.domain = '{domain}' AND failures.row_id = raw.id
WHERE raw.user_id = :user AND raw.{status} IN ({waiting})
  AND (failures.row_id IS NULL OR failures.due_at <= (SELECT now FROM lamina.clock) OR raw.{status} IN ({asked}))
ORDER BY raw.created_at, raw.id LIMIT :limit;

-- name: lock
-- One batch of a user at a time: buckets without keys have nothing else that would keep rivals apart.
SELECT 1 AS locked FROM (SELECT pg_advisory_xact_lock(hashtext('lamina {domain}'), :user)) AS lock;

-- name: failed
-- A row that cannot be rolled up is tried again later and later, and then parked. Gives when; nothing of one that is parked.
-- What failed for several workers at once has failed once, and what another has done meanwhile has not failed.
WITH held AS (
    SELECT {status} = 'failed' AS is_told FROM {rows} WHERE id = :row AND {status} IN ({waiting}) FOR UPDATE
), told AS (
    INSERT INTO lamina.row_failures AS failures (domain, row_id, attempts, due_at, error)
    SELECT '{domain}', :row, 1, now + 60, CAST(:error AS text) FROM lamina.clock, held
    ON CONFLICT (domain, row_id) DO UPDATE SET
        attempts = failures.attempts + 1, error = excluded.error,
        due_at = CASE WHEN failures.attempts + 1 >= :most THEN NULL ELSE excluded.due_at + 60 * (2 ^ failures.attempts - 1) END
    WHERE failures.due_at <= excluded.due_at - 60 OR NOT (SELECT is_told FROM held)
    RETURNING due_at
)
UPDATE {rows} SET {failure} FROM held WHERE id = :row RETURNING (SELECT due_at FROM told) AS due_at, EXISTS (SELECT 1 FROM told) AS is_counted;
