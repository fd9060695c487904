-- Six connections of one process to one address whose pauses differ by less than a fifth, each a second or more.
function detect(e)
  local key = tostring(e.pid) .. " " .. tostring(e.destination) .. " " .. tostring(e.destination_port)
  local now = omega.now()
  local seen = omega.get(key)
  if seen == "told" then return nil end
  local times = seen and seen:split(" ") or {}
  if #times > 0 and now - tonumber(times[#times]) < 1000 then return nil end
  table.insert(times, string.format("%d", now))
  if #times > 6 then table.remove(times, 1) end
  omega.put(key, table.concat(times, " "), 7200000)
  if #times < 6 then return nil end
  local least, most = math.huge, 0
  for i = 2, #times do
    local pause = tonumber(times[i]) - tonumber(times[i - 1])
    least, most = math.min(least, pause), math.max(most, pause)
  end
  if most - least > most / 5 then return nil end
  omega.put(key, "told", 7200000)
  return {rule = "beacon", severity = "medium", confidence = 50, title = "A program calls home like a clock", attack = {"T1071.001"},
          about = {"process", "remote"}, evidence = {pause_ms = string.format("%d", most)}}
end
