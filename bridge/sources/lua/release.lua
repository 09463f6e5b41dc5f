-- Gives an item back. KEYS as in claim.lua. ARGV: 1 item 2 receipt 3 delay in ms 4 0 where nothing was tried. Returns 1, or 0 when the receipt is stale.
local item, delay = ARGV[1], tonumber(ARGV[3])
if redis.call('HGET', KEYS[7], item) ~= ARGV[2] then
  return 0
end
check_kinds()
-- First where it goes: we may not be allowed everything.
if delay > 0 then
  local time = redis.call('TIME')
  redis.call('ZADD', KEYS[4], time[1] * 1000 + math.floor(time[2] / 1000) + delay, item)
else
  redis.call('LPUSH', KEYS[1], item)
end
redis.call('SREM', KEYS[2], item)
redis.call('ZREM', KEYS[3], item)
if ARGV[4] == '0' and (tonumber(redis.call('HGET', KEYS[5], item) or '') or 0) > 0 then
  -- Other programs on the list take the count for tries.
  redis.pcall('HINCRBY', KEYS[5], item, -1)
end
redis.call('HDEL', KEYS[6], item)
redis.call('HDEL', KEYS[7], item)
if KEYS[11] ~= KEYS[1] then
  redis.call('DEL', KEYS[11] .. item)
end
return 1
