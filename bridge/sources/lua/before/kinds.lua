-- Goes before each script, which may call it before it moves anything. Redis undoes nothing: a key that is used for something else must end
-- the script first, or what was moved by then would be lost.
local function check_kinds()
  for place, count in ipairs({ 'LLEN', 'SCARD', 'ZCARD', 'ZCARD', 'HLEN', 'HLEN', 'HLEN', 'HLEN', 'HLEN', 'HLEN', '', 'LLEN' }) do
    if count ~= '' and (place == 1 or KEYS[place] ~= KEYS[1]) then
      redis.call(count, KEYS[place])
    end
  end
end

