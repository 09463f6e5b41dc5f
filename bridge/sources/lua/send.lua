-- Adds an item with a body of its own. KEYS as in claim.lua. ARGV: 1 item 2 body 3 attributes as JSON, which get the time in ms.
-- Returns 1, or 0 when an item of this name is there already.
check_kinds()
if redis.call('HSETNX', KEYS[8], ARGV[1], ARGV[2]) == 0 then
  return 0
end
local time = redis.call('TIME')
local attributes = cjson.decode(ARGV[3])
attributes['SentTimestamp'] = string.format('%d', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[9], ARGV[1], cjson.encode(attributes))
redis.call('RPUSH', KEYS[1], ARGV[1])
return 1
