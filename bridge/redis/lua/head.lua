-- The first value of a list that is due, for whoever comes first: it stays where it is until it is settled, or the turn is over.
-- A value that is a JSON object with a `notBefore` in ms is due then; any other is due at once.
-- KEYS: 1 list 2 whose turn it is. ARGV: 1 who asks 2 the turn's length in ms. Returns the value, or nil.
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return nil
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local first = 0
while true do
  local values = redis.call('LRANGE', KEYS[1], first, first + 99)
  for _, value in ipairs(values) do
    local read, content = pcall(cjson.decode, value)
    local due = read and type(content) == 'table' and tonumber(content['notBefore'])
    if not due or due <= now then
      return value
    end
  end
  if #values < 100 then
    break
  end
  first = first + 100
end
redis.call('DEL', KEYS[2])
return nil
