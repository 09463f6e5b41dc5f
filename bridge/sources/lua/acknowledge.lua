-- Takes an item away for good. KEYS as in claim.lua. ARGV: 1 item 2 receipt. Returns 1, or 0 when the receipt is stale.
local item = ARGV[1]
if redis.call('HGET', KEYS[7], item) ~= ARGV[2] then
  return 0
end
redis.call('SREM', KEYS[2], item)
redis.call('ZREM', KEYS[3], item)
for _, hash in ipairs({ KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9] }) do
  redis.call('HDEL', hash, item)
end
return 1
