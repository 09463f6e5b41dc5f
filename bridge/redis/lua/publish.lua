-- Stores each value for a while and publishes it. KEYS: where each is stored. ARGV: channel, value and milliseconds of each.
for place, key in ipairs(KEYS) do
  local channel, value, milliseconds = ARGV[3 * place - 2], ARGV[3 * place - 1], ARGV[3 * place]
  redis.call('SET', key, value, 'PX', milliseconds)
  redis.call('PUBLISH', channel, value)
end
return #KEYS
