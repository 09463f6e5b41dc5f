-- Adds values to a list. KEYS: 1 list. ARGV: the values. Returns how many it holds.
return redis.call('RPUSH', KEYS[1], unpack(ARGV))
