-- Twelve different addresses at the port of SSH within a minute, from programs of one parent.
function detect(e)
  local address = tostring(e.destination)
  if address:startswith("127.") or address == "::1" then return nil end
  local key = tostring(e.ppid) .. " " .. e.exe
  local seen = omega.get(key) or ""
  if seen == "told" or seen:contains(address .. " ") then return nil end
  seen = seen .. address .. " "
  local count = #seen:sub(1, seen:len() - 1):split(" ")
  if count < 12 then
    omega.put(key, seen, 60000)
    return nil
  end
  omega.put(key, "told", 600000)
  return {rule = "ssh-fan-out", severity = "medium", confidence = 50, title = "One program reached for SSH on many hosts", attack = {"T1021.004"},
          about = {"process"}, evidence = {addresses = tostring(count)}}
end
