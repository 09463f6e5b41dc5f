-- Adds an item that is its own body, unless it lies there or is being worked on. KEYS as in claim.lua. ARGV: 1 item 2 its id, for a queue with ids.
-- Returns 1, or 0 when it was there.
local item = ARGV[1]
check_kinds()
if redis.call('LPOS', KEYS[1], item) or redis.call('SISMEMBER', KEYS[2], item) == 1 or redis.call('ZSCORE', KEYS[4], item) then
  return 0
end
if KEYS[10] ~= KEYS[1] then
  -- What is worked on in another list keeps its id: a try that follows goes on with the same job.
  local locked = KEYS[11] ~= KEYS[1] and redis.call('EXISTS', KEYS[11] .. item) == 1
  redis.call(locked and 'HSETNX' or 'HSET', KEYS[10], item, ARGV[2])
end
redis.call('RPUSH', KEYS[1], item)
redis.call('HSET', KEYS[5], item, '0')
return 1
