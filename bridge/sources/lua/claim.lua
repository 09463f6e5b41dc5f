-- Takes items off the list and into the set of items in work, each under a lease.
-- KEYS: 1 queue (LIST) 2 processing (SET) 3 leases (ZSET, score: end in ms) 4 delayed (ZSET, score: due in ms) 5 deliveries (HASH, count)
--       6 started (HASH, ms) 7 holders (HASH, receipt) 8 bodies (HASH) 9 attributes (HASH, JSON) 10 correlation (HASH)
--       11 what locks begin with 12 another list (LIST) where equal items ask for the same. The first once more stands for none of 10 to 12.
-- ARGV: 1 most items 2 lease in ms 3 how long locks last, in ms 4 receipt of all that are taken, then ids for items that have none
-- Returns for each: item, body, attributes, deliveries so far.
local queue, processing, leases, delayed, deliveries = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local started, holders, bodies, attributes, correlation, locks, twin = KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local most, lease, lock, receipt = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local taken = {}

local function take(item)
  local held = redis.call('ZSCORE', leases, item)
  -- One that another program took, and has ended since, is nobody's.
  if held and (redis.call('HEXISTS', holders, item) == 1 or redis.call('SISMEMBER', processing, item) == 1) then
    -- The same item is being worked on: this one waits until that has ended.
    redis.call('ZADD', delayed, math.max(tonumber(held), now + 1), item)
    return nil
  end
  if locks ~= queue and redis.call('EXISTS', locks .. item) == 1 then
    -- Another program has it.
    redis.call('ZADD', delayed, now + 1000, item)
    return nil
  end
  redis.call('SADD', processing, item)
  redis.call('ZADD', leases, now + lease, item)
  redis.call('HSET', holders, item, receipt)
  redis.call('HSET', started, item, now)
  local count = redis.pcall('HINCRBY', deliveries, item, 1)
  if type(count) ~= 'number' then
    -- Another program has written what is no count.
    count = 1
    redis.call('HSET', deliveries, item, count)
  end
  local body = redis.call('HGET', bodies, item)
  local told = redis.call('HGET', attributes, item) or '{}'
  if correlation ~= queue then
    local id = redis.call('HGET', correlation, item)
    if not id then
      id = ARGV[5 + #taken]
      redis.call('HSET', correlation, item, id)
    end
    local decoded = cjson.decode(told)
    decoded['correlationId'] = id
    told = cjson.encode(decoded)
    if locks ~= queue then
      redis.call('SET', locks .. item, id, 'PX', lock)
    end
  end
  if twin ~= queue then
    redis.call('LREM', twin, 0, item)
  end
  return { item, body or item, told, count }
end

while #taken < most do
  local item = redis.call('LPOP', queue)
  if not item then
    break
  end
  local done, row = pcall(take, item)
  if not done then
    -- A key is used for something else, or we may not use it. Redis undoes nothing: the item is put back here, and told of once it comes first.
    redis.call('LPUSH', queue, item)
    redis.pcall('SREM', processing, item)
    redis.pcall('ZREM', leases, item)
    redis.pcall('HDEL', holders, item)
    redis.pcall('HDEL', started, item)
    if #taken > 0 then
      break
    end
    return type(row) == 'table' and row or redis.error_reply(row)
  end
  taken[#taken + 1] = row
end
return taken
