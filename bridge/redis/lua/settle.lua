-- Ends a turn: takes a value off a list, and perhaps adds another to the end of the same or of another list, if the turn is still ours.
-- KEYS: 1 and 2 as in head.lua, 3 the list that the other is added to. ARGV: 1 who asks 2 the value 3 the other, or empty for none.
-- Returns 1, or 0 when the turn was over.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  return 0
end
-- First what may fail: nothing is undone.
redis.call('LLEN', KEYS[3])
redis.call('LREM', KEYS[1], 1, ARGV[2])
if ARGV[3] ~= '' then
  redis.call('RPUSH', KEYS[3], ARGV[3])
end
redis.call('DEL', KEYS[2])
return 1
