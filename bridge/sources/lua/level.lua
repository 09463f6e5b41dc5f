-- How much there is, and what comes next. KEYS as in claim.lua. ARGV: items, and how many may stand before each.
-- Returns: waiting, worked on, delayed, the attributes of the item at the head, the item at the end, the first of ARGV's items that is there
-- (from 1, 0 for none), and the time in ms.
local time = redis.call('TIME')
local head = redis.call('LINDEX', KEYS[1], 0)
local found = 0
for place = 1, #ARGV, 2 do
  local before = redis.call('LPOS', KEYS[1], ARGV[place])
  if before and before <= tonumber(ARGV[place + 1]) then
    found = (place + 1) / 2
    break
  end
end
return {
  redis.call('LLEN', KEYS[1]), redis.call('SCARD', KEYS[2]), redis.call('ZCARD', KEYS[4]),
  head and redis.call('HGET', KEYS[9], head) or '{}', redis.call('LINDEX', KEYS[1], -1) or '', found,
  time[1] * 1000 + math.floor(time[2] / 1000)
}
