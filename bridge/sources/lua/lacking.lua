-- Which items lie nowhere in a queue. KEYS as in claim.lua. ARGV: items. Returns those that neither wait nor are worked on, by anybody.
local lacking = {}
for _, item in ipairs(ARGV) do
  local lies = redis.call('SISMEMBER', KEYS[2], item) == 1 or redis.call('ZSCORE', KEYS[4], item) or redis.call('HEXISTS', KEYS[7], item) == 1
  local locked = KEYS[11] ~= KEYS[1] and redis.call('EXISTS', KEYS[11] .. item) == 1
  if not (lies or locked or redis.call('LPOS', KEYS[1], item)) then
    lacking[#lacking + 1] = item
  end
end
return lacking
