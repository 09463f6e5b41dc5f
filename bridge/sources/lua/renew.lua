-- Prolongs a lease. KEYS as in claim.lua. ARGV: 1 item 2 receipt 3 lease in ms 4 how long its lock lasts, in ms. Returns 1, or 0 when the receipt is stale.
local leases, holders = KEYS[3], KEYS[7]
if redis.call('HGET', holders, ARGV[1]) ~= ARGV[2] then
  return 0
end
local time = redis.call('TIME')
redis.call('ZADD', leases, time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[3]), ARGV[1])
if KEYS[11] ~= KEYS[1] then
  redis.call('PEXPIRE', KEYS[11] .. ARGV[1], ARGV[4])
end
return 1
