-- Takes a value off a list, and perhaps adds another in its place, if the turn is still ours. KEYS as in head.lua.
-- ARGV: 1 who asks 2 the value 3 another, or empty. Returns 1, or 0 when the turn was over.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
redis.call('LREM', KEYS[1], 1, ARGV[2])
if ARGV[3] ~= '' then
  redis.call('RPUSH', KEYS[1], ARGV[3])
end
redis.call('DEL', KEYS[2])
return 1
