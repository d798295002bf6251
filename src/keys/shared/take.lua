-- Takes from a meter, or gives back to it. KEYS[1]: the meter, "USED AT": so many of its units were used at that time (of
-- this server's clock, in microseconds). ARGV: the limit, which is also how many come back a minute; how many to take, less
-- than 0 to give back. Returns whether they were taken, and how many are used now.
-- This is GCRA: USED is the time until the meter is full, counted in units, so that nothing is lost to the size of a
-- timestamp and a clock that is set back stops no key.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, n = tonumber(ARGV[1]), tonumber(ARGV[2])
local used, at = string.match(redis.call('GET', KEYS[1]) or '', '^(%S+) (%S+)$')
used, at = tonumber(used) or 0, tonumber(at) or now
-- A limit that was lowered must not close the key for longer than a minute.
used = math.max(0, math.min(used, limit) - math.max(0, now - at) * limit / 60000000)
-- Thousands of small sums must not cost the last unit.
local taken = n <= 0 or used + n <= limit + 0.000001
if taken then
  used = math.max(0, used + n)
  if used > 0 then
    local full_ms = math.ceil(used * 60000 / limit) + 1000
    redis.call('SET', KEYS[1], string.format('%.17g %.0f', used, now), 'PX', full_ms)
  else
    redis.call('DEL', KEYS[1])
  end
end
return {taken and 1 or 0, string.format('%.17g', used)}
