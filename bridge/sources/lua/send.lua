-- Adds an item with a body of its own. KEYS as in claim.lua. ARGV: 1 item 2 body 3 attributes as JSON.
-- Returns 1, or 0 when an item of this name is there already.
if redis.call('HSETNX', KEYS[8], ARGV[1], ARGV[2]) == 0 then
  return 0
end
redis.call('HSET', KEYS[9], ARGV[1], ARGV[3])
redis.call('RPUSH', KEYS[1], ARGV[1])
return 1
