-- How many items there are: waiting, worked on and delayed. KEYS as in claim.lua.
return redis.call('LLEN', KEYS[1]) + redis.call('SCARD', KEYS[2]) + redis.call('ZCARD', KEYS[4])
