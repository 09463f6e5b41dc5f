-- Brings back what nobody holds any more and what has waited long enough. One step: it needs no lock, and any number of workers may run it.
-- KEYS as in claim.lua. ARGV: 1 lease in ms for items that are being worked on under no lease of ours; 0 to leave them alone. 2 1 to look for
-- such items now, and for ours without a lease 3 how long locks last, in ms 4 our lease in ms.
-- Returns how many items it brought back, and in how many ms the next may be due; -1 for none.
local queue, processing, leases, delayed = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local started, holders, correlation, locks = KEYS[6], KEYS[7], KEYS[10], KEYS[11]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local foreign, lock, lease = tonumber(ARGV[1]), tonumber(ARGV[3]), tonumber(ARGV[4])
local returned = 0

-- Until when an item is left to another program, by when that says it has begun: by its note, and by the age of its lock. 0 where neither tells.
local function left_until(item)
  local ends = 0
  local begun = tonumber(redis.call('HGET', started, item) or '')
  if begun and begun <= now + foreign then
    ends = math.min(begun, now) + foreign
  end
  if locks ~= queue then
    local lasts = redis.call('PTTL', locks .. item)
    if lasts > 0 then
      ends = math.max(ends, math.min(now + lasts - lock, now) + foreign)
    end
  end
  return ends
end

local function is_foreign(item)
  return foreign > 0 and redis.call('HEXISTS', holders, item) == 0
end

-- Whether an item that is not in the set of those in work was ours, and has not ended: then the server has evicted the set. Whoever else ended it
-- took its id away; where there are no ids, nobody else works on it.
local function is_open(item)
  return redis.call('HEXISTS', holders, item) == 1
    and (correlation == queue or redis.call('HEXISTS', correlation, item) == 1)
    and not redis.call('LPOS', queue, item)
    and not redis.call('ZSCORE', delayed, item)
end

-- What another program left in the set of items in work gets a lease; if it is still there when that runs out, it is done again. So does what
-- is ours and has none: the server has evicted it. Whoever has the item renews it.
if ARGV[2] == '1' then
  for _, item in ipairs(redis.call('SMEMBERS', processing)) do
    if is_foreign(item) then
      redis.call('ZADD', leases, 'NX', now + foreign, item)
    end
  end
  for _, item in ipairs(redis.call('HKEYS', holders)) do
    redis.call('ZADD', leases, 'NX', now + lease, item)
  end
  -- No lease is that long: the server's clock was set back. Those of other bridges may be longer than ours: they get an hour more.
  local longest = math.max(lease, lock, foreign)
  for _, item in ipairs(redis.call('ZRANGEBYSCORE', leases, now + 2 * longest + 3600000, '+inf')) do
    redis.call('ZADD', leases, now + longest, item)
  end
  -- What that program has ended keeps no lease: it would run out over the next try.
  for _, item in ipairs(redis.call('ZRANGE', leases, 0, -1)) do
    if is_foreign(item) and redis.call('SISMEMBER', processing, item) == 0 then
      redis.call('ZREM', leases, item)
    end
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
  local ends = is_foreign(item) and left_until(item) or 0
  if ends > now and redis.call('SISMEMBER', processing, item) == 1 then
    -- That program has begun it anew since it was first seen.
    redis.call('ZADD', leases, ends, item)
  else
    -- First where it goes: we may not be allowed everything. Gone from the set: whoever had it has finished it, or brought it back.
    if redis.call('SISMEMBER', processing, item) == 1 or is_open(item) then
      redis.call('LPUSH', queue, item)
      redis.call('SREM', processing, item)
      returned = returned + 1
    end
    redis.call('ZREM', leases, item)
    redis.call('HDEL', holders, item)
    redis.call('HDEL', started, item)
    if locks ~= queue then
      redis.call('DEL', locks .. item)
    end
  end
end

for index = #due, 1, -1 do
  redis.call('LPUSH', queue, due[index])
  redis.call('ZREM', delayed, due[index])
  returned = returned + 1
end

local following = -1
for _, key in ipairs({ leases, delayed }) do
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if first[2] then
    local left = math.max(0, math.ceil(tonumber(first[2]) - now))
    following = following < 0 and left or math.min(following, left)
  end
end
return { returned, following }
