-- Takes items away for good. KEYS as in claim.lua. ARGV: item and receipt of each. Returns 1 for each, or 0 when its receipt is stale.
local answers = {}
for place = 1, #ARGV, 2 do
  local item = ARGV[place]
  local held = redis.call('HGET', KEYS[7], item) == ARGV[place + 1]
  if held then
    redis.call('SREM', KEYS[2], item)
    redis.call('ZREM', KEYS[3], item)
    for _, hash in ipairs({ KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9] }) do
      redis.call('HDEL', hash, item)
    end
    if KEYS[10] ~= KEYS[1] then
      redis.call('HDEL', KEYS[10], item)
    end
    if KEYS[11] ~= KEYS[1] then
      redis.call('DEL', KEYS[11] .. item)
    end
  end
  answers[#answers + 1] = held and 1 or 0
end
return answers
