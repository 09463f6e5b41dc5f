-- Stores each value for a while and publishes it, unless it was published before. KEYS: where each is stored, and where it is noted that it was
-- published. ARGV: channel, value, milliseconds, and what is noted of each.
for place = 1, #KEYS / 2 do
  local key, noted = KEYS[2 * place - 1], KEYS[2 * place]
  local channel, value, milliseconds, mark = ARGV[4 * place - 3], ARGV[4 * place - 2], ARGV[4 * place - 1], ARGV[4 * place]
  if redis.call('GET', noted) ~= mark then
    redis.call('SET', key, value, 'PX', milliseconds)
    redis.call('SET', noted, mark, 'PX', milliseconds)
    local heard = redis.pcall('PUBLISH', channel, value)
    if type(heard) == 'table' then
      -- Nothing is undone: it is to be sent again.
      redis.call('DEL', noted)
      return heard
    end
  end
end
return #KEYS / 2
