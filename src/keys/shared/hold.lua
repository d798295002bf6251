-- Takes places, or keeps them for longer. KEYS[1]: the places taken, each with the time when it lapses (of this server's
-- clock, in milliseconds). ARGV: how many there may be; how long a place lasts that nobody renews, in milliseconds; the
-- names of the places. Returns whether they were taken.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) + #ARGV - 2 > tonumber(ARGV[1]) then
  return 0
end
for i = 3, #ARGV do
  redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[i])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
