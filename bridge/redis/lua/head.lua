-- The first value of a list, for whoever comes first: it stays where it is until it is settled, or the turn is over.
-- KEYS: 1 list 2 whose turn it is. ARGV: 1 who asks 2 the turn's length in ms. Returns the value, or nil.
if not redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return nil
end
local value = redis.call('LINDEX', KEYS[1], 0)
if not value then
  redis.call('DEL', KEYS[2])
  return nil
end
return value
