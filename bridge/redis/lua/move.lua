-- Takes a value off a list, and adds another to a second list in its place. KEYS: 1 list 2 the second. ARGV: 1 the value 2 the other, or empty
-- for none. Returns 1, or 0 when the value is not there.
-- First what may fail: nothing is undone.
redis.call('LLEN', KEYS[2])
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 then
  return 0
end
if ARGV[2] ~= '' then
  redis.call('RPUSH', KEYS[2], ARGV[2])
end
return 1
