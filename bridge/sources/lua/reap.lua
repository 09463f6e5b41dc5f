-- Brings back what nobody holds any more and what has waited long enough. One step: it needs no lock, and any number of workers may run it.
-- KEYS as in claim.lua. ARGV: 1 lease in ms for items that are being worked on under no lease of ours; 0 to leave them alone.
-- Returns how many items it brought back.
local queue, processing, leases, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local started, holders = KEYS[6], KEYS[7]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local returned = 0

-- What another program left in the set of items in work gets a lease; if it is still there when that runs out, it is done again.
local foreign = tonumber(ARGV[1])
if foreign > 0 then
  for _, item in ipairs(redis.call('SMEMBERS', processing)) do
    redis.call('ZADD', leases, 'NX', now + foreign, item)
  end
end

local expired = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 100)
local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, 100)
if #expired + #due > 0 then
  check_kinds()
end
-- The oldest ends up at the head.
for index = #expired, 1, -1 do
  local item = expired[index]
  -- First where it goes: we may not be allowed everything. Gone from the set: whoever had it has finished it.
  if redis.call('SISMEMBER', processing, item) == 1 then
    redis.call('LPUSH', queue, item)
    redis.call('SREM', processing, item)
    returned = returned + 1
  end
  redis.call('ZREM', leases, item)
  redis.call('HDEL', holders, item)
  redis.call('HDEL', started, item)
  if KEYS[11] ~= KEYS[1] then
    redis.call('DEL', KEYS[11] .. item)
  end
end

for index = #due, 1, -1 do
  redis.call('LPUSH', queue, due[index])
  redis.call('ZREM', delayed, due[index])
  returned = returned + 1
end
return returned
