-- Five or more different questions about the host, of one parent within a minute.
local asks = {
  whoami = "T1033", id = "T1033", w = "T1033", who = "T1033", last = "T1033", lastlog = "T1033",
  uname = "T1082", lscpu = "T1082", lsb_release = "T1082", hostnamectl = "T1082", dmidecode = "T1082",
  ifconfig = "T1016", ip = "T1016", arp = "T1016", route = "T1016",
  netstat = "T1049", ss = "T1049",
  ps = "T1057", top = "T1057",
  groups = "T1069.001",
  systemctl = "T1007", service = "T1007",
  lsmod = "T1652", modinfo = "T1652",
}
local files = {
  {"/etc/passwd", "T1087.001"}, {"/etc/group", "T1069.001"}, {"/etc/issue", "T1082"}, {"/etc/os-release", "T1082"},
  {"/proc/version", "T1082"}, {"/proc/cpuinfo", "T1082"}, {"/etc/resolv.conf", "T1016"}, {"/etc/hosts", "T1016"},
  {"/proc/modules", "T1652"}, {"/proc/net/tcp", "T1049"},
}

function detect(e)
  local name = e.exe:match("[^/]*$")
  local technique = asks[name]
  if name == "cat" then
    for _, f in ipairs(files) do
      if e.args:contains(f[1]) then technique = f[2] end
    end
  elseif name == "getent" then
    technique = "T1087.001"
    if e.args:endswith(" group") then technique = "T1069.001" end
  end
  if not technique then return nil end
  local key = tostring(e.ppid)
  local seen = omega.get(key) or ""
  if seen == "told" or seen:contains(technique .. ",") then return nil end
  seen = seen .. technique .. ","
  local list = seen:sub(1, seen:len() - 1):split(",")
  if #list < 5 then
    omega.put(key, seen, 60000)
    return nil
  end
  omega.put(key, "told", 600000)
  return {rule = "burst", severity = "low", confidence = 50, title = "Many things about the host were asked in a row", attack = list,
          about = {"process"}, evidence = {parent = e.parent}}
end
