-- Brings back items in work that nobody holds and that were begun too long ago, and those whose delay is over. KEYS as in claim.lua. ARGV: 1 too long, in ms 2 1 to only look.
-- Returns the items.
local queue, processing, leases, started, holders = KEYS[1], KEYS[2], KEYS[3], KEYS[6], KEYS[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
check_kinds()
for _, item in ipairs(redis.call('SMEMBERS', processing)) do
  local lease = tonumber(redis.call('ZSCORE', leases, item) or '0')
  local held = redis.call('HEXISTS', holders, item) == 1 and lease > now
  local begun = tonumber(redis.call('HGET', started, item) or '0') or 0
  if not held and now - begun > tonumber(ARGV[1]) then
    found[#found + 1] = item
    if ARGV[2] ~= '1' then
      redis.call('RPUSH', queue, item)
      redis.call('SREM', processing, item)
      redis.call('ZREM', leases, item)
      redis.call('HDEL', started, item)
      redis.call('HDEL', holders, item)
      if KEYS[11] ~= KEYS[1] then
        redis.call('DEL', KEYS[11] .. item)
      end
    end
  end
end
for _, item in ipairs(redis.call('ZRANGEBYSCORE', KEYS[4], '-inf', now)) do
  found[#found + 1] = item
  if ARGV[2] ~= '1' then
    redis.call('LPUSH', queue, item)
    redis.call('ZREM', KEYS[4], item)
  end
end
return found
