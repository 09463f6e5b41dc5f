-- How much there is, and what comes next. KEYS as in claim.lua.
-- Returns: waiting, worked on, delayed, the item at the head, its attributes, and the time in ms.
local time = redis.call('TIME')
local head = redis.call('LINDEX', KEYS[1], 0)
return {
  redis.call('LLEN', KEYS[1]), redis.call('SCARD', KEYS[2]), redis.call('ZCARD', KEYS[4]),
  head or '', head and redis.call('HGET', KEYS[9], head) or '{}', time[1] * 1000 + math.floor(time[2] / 1000)
}
