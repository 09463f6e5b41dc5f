-- name: note
-- Names that a person is to look at. What is decided stays so.
INSERT INTO lamina.lab_reviews AS known (id, name, unit, specimen, seen, candidates, catalogue, first_seen_at, last_seen_at)
SELECT row.id, row.name, row.unit, row.specimen, row.seen, row.candidates, row.catalogue, now, now
FROM jsonb_to_recordset(CAST(:rows AS jsonb))
    AS row (id text, name text, unit text, specimen text, seen integer, candidates text, catalogue text), lamina.clock
WHERE true
ON CONFLICT (id) DO UPDATE
SET seen = known.seen + excluded.seen, candidates = excluded.candidates, catalogue = excluded.catalogue, last_seen_at = excluded.last_seen_at
WHERE known.state = 'open';

-- name: waiting
-- What is in one state, the most often printed first.
SELECT id, name, unit, specimen, state, seen, candidates, catalogue, code, decided_by
FROM lamina.lab_reviews WHERE state = :state ORDER BY seen DESC, last_seen_at DESC, id LIMIT :limit;

-- name: find
-- One, by how its id starts.
SELECT id, name, unit, specimen, state, seen, candidates, catalogue, code, decided_by
FROM lamina.lab_reviews WHERE starts_with(id, :id) ORDER BY id LIMIT 2;

-- name: decide
-- What a person said; the last word counts.
UPDATE lamina.lab_reviews
SET state = :state, code = :code, decided_by = :by, decided_at = (SELECT now FROM lamina.clock)
WHERE id = :id;

-- name: decided
-- Every name that has a code, in portions.
SELECT id, name, unit, specimen, code FROM lamina.lab_reviews
WHERE state IN ('accepted', 'corrected') AND id > :after ORDER BY id LIMIT :limit;
