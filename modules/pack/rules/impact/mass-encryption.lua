-- Thirty files of one process get the same further ending within ten seconds.
function detect(e)
  local ending = e.file:sub(e.other:len() + 1)
  if not ending:startswith(".") or ending:contains("/") or ending:len() > 24 then return nil end
  local key = tostring(e.pid) .. ending
  local now = omega.now()
  local since, count = now, 0
  local seen = omega.get(key)
  if seen then
    local parts = seen:split(" ")
    since, count = tonumber(parts[1]), tonumber(parts[2])
    if now - since > 10000 then since, count = now, 0 end
  end
  count = count + 1
  omega.put(key, string.format("%d %d", since, count), 600000)
  if count ~= 30 then return nil end
  return {rule = "mass-encryption", severity = "critical", confidence = 65, title = "A process gave many files the ending " .. ending,
          attack = {"T1486"}, about = {"process", "file"}, evidence = {ending = ending}}
end
