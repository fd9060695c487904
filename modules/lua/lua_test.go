package lua

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/swarm/event"
)

// library lists what a script has, for its documentation.
func library() []string {
	var all []string
	s := &script{program: &program{manifest: &modules.Manifest{}, limits: modules.Limits{Fuel: 1 << 20}}, state: lua.NewState(lua.Options{SkipOpenLibs: true}), fuel: newFuel(1 << 20)}
	defer s.state.Close()
	s.open()
	s.state.G.Global.ForEach(func(k, v lua.LValue) {
		if t, ok := v.(*lua.LTable); ok {
			t.ForEach(func(name, _ lua.LValue) { all = append(all, k.String()+"."+name.String()) })
		} else if n := k.String(); n[0] != 0 {
			all = append(all, n)
		}
	})
	slices.Sort(all)
	return all
}

type surroundings struct {
	lines []string
	state *modules.State
}

func (s *surroundings) Log(_ modules.LogLevel, text string) { s.lines = append(s.lines, text) }
func (s *surroundings) Now() int64                          { return 0 }
func (s *surroundings) Get(key string) ([]byte, bool)       { return s.state.Get(key, 0) }
func (s *surroundings) Put(key string, value []byte, ttl time.Duration) error {
	return s.state.Put(key, value, 0, ttl)
}
func (s *surroundings) Indicator(kind, value string) (string, bool) {
	return "list", kind == "ipv4-addr" && value == "203.0.113.9"
}
func (s *surroundings) Reputation(netip.Addr) uint32 { return 7 }

func detector(t testing.TB, source string, host modules.Host, fuel uint64) (modules.Detector, error) {
	t.Helper()
	m := &modules.Manifest{Name: "test", Version: "1.0.0", Kind: modules.KindLua, ABI: 1, Limits: modules.Limits{Fuel: fuel},
		Capabilities: []modules.Capability{modules.CapabilityClock, modules.CapabilityIndicators, modules.CapabilityLog, modules.CapabilityReputation, modules.CapabilityState}}
	p, err := Engine{}.Compile(context.Background(), m, []byte(source))
	if err != nil {
		return nil, err
	}
	return p.Detector(context.Background(), host)
}

func started(exe, args string) *event.Event {
	return &event.Event{Class: event.ClassProcess, Activity: event.ActivityExec, Time: 5e9, Boot: 7, Process: event.Process{Key: event.ProcessKey{PID: 9, Start: 3}, UID: 1000, Exe: exe, Args: args},
		Network: event.Network{Remote: netip.MustParseAddrPort("203.0.113.9:443")}}
}

func TestScriptFinds(t *testing.T) {
	s := &surroundings{state: modules.NewState(4096)}
	d, err := detector(t, `
local bad = {"-o", "--output"}
function detect(e)
  if e.class ~= "process" or not e.exe:endswith("/curl") then return end
  local n = tonumber(omega.get("n") or "0") + 1
  assert(omega.put("n", tostring(n), 60000))
  omega.log("curl number " .. n .. " by " .. e.uid)
  for i, word in ipairs(bad) do
    if e.CommandLine:contains(" " .. word .. " ") then
      local host = e.args:match("https?://([^/ ]+)")
      return {rule = "fetch", title = string.format("curl writes what %s gives", host), severity = "high", confidence = 77, attack = {"T1105"},
        about = {"process", "remote"}, evidence = {host = host, word = i}}
    end
  end
  return {{rule = "plain"}, {rule = "known", confidence = omega.indicator("ipv4-addr", "203.0.113.9") and 90 or 10}}
end`, s, 0)
	if err != nil {
		t.Fatal(err)
	}
	var found []event.Finding
	batch := []*event.Event{started("/usr/bin/curl", "curl\x00-o\x00/tmp/x\x00https://a.example/x"), started("/bin/ls", "ls"), started("/usr/bin/curl", "curl\x00y")}
	if err := d.Detect(context.Background(), batch, func(f event.Finding) { found = append(found, f) }); err != nil {
		t.Fatal(err)
	}
	if len(found) != 3 {
		t.Fatalf("%d findings: %+v", len(found), found)
	}
	f := found[0]
	if f.RuleID != "module.test.fetch" || f.Title != "curl writes what a.example gives" || f.Severity != event.SeverityHigh || f.Confidence != 77 || len(f.Attack) != 1 ||
		f.Subject.Process == nil || f.Subject.Process.Exe != "/usr/bin/curl" || f.Subject.Address.String() != "203.0.113.9" || len(f.Evidence) != 2 {
		t.Errorf("%+v", f)
	}
	if found[2].RuleID != "module.test.known" || found[2].Confidence != 90 || len(s.lines) != 2 || s.lines[1] != "curl number 2 by 1000" {
		t.Errorf("%+v %q", found[2], s.lines)
	}
}

// An event lacks what its sensor could not read. That must not fail a script: three failures stop it, and an attacker can start what has no path.
func TestWhatAnEventLacksIsEmpty(t *testing.T) {
	d, err := detector(t, `
function detect(e)
  if e.exe:endswith("/curl") or e.args:match("x") or e.user:contains("y") or e.destination_port ~= 0 then return {rule = "wrong"} end
  if e.exe == "" and e.args == "" and tostring(e.destination) == "" then return {rule = "empty", evidence = {parent = e.parent}} end
end`, &surroundings{state: modules.NewState(1)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	var rules []string
	if err := d.Detect(context.Background(), []*event.Event{{}}, func(f event.Finding) { rules = append(rules, f.Rule) }); err != nil {
		t.Fatal(err)
	}
	if len(rules) != 1 || rules[0] != "empty" {
		t.Errorf("found %q", rules)
	}
}

// Every evil script is stopped with a clear word, in bounded time and memory, and the next event is looked at.
func TestEvilScripts(t *testing.T) {
	for name, c := range map[string]struct {
		source string
		want   error // of a call; nil: it is refused
		why    string
	}{
		"a loop":               {"function detect(e) while true do end end", ErrFuel, "instructions"},
		"a loop at the start":  {"while true do end function detect(e) end", nil, "fuel"},
		"recursion":            {"function f(n) return 1 + f(n) end function detect(e) f(1) end", ErrScript, "overflow"},
		"tail calls":           {"function f(n) return f(n) end function detect(e) f(1) end", ErrFuel, ""},
		"doubling":             {"function detect(e) local s = 'x' while true do s = s .. s end end", ErrScript, "a text of"},
		"many texts":           {"function detect(e) local s, t = ('x'):rep(60000), {} while true do t[#t+1] = s .. #t end end", ErrFuel, ""},
		"rep":                  {"function detect(e) return ('x'):rep(1e9) end", ErrScript, "longer"},
		"a far index":          {"function detect(e) local t = {} t[60000000] = 1 end", ErrFuel, ""},
		"many far indexes":     {"function detect(e) local all = {} while true do local t = {} t[60000] = 1 all[#all+1] = t end end", ErrFuel, ""},
		"a far key in a table": {"function detect(e) return {[60000000] = 1} end", nil, "at most"},
		"a computed key":       {"local n = 1 function detect(e) return {[n] = 1} end", nil, "keys"},
		"a wide format":        {"function detect(e) return string.format('%1000000000d', 1) end", ErrScript, "format knows"},
		"a slow pattern":       {"function detect(e) return (('a'):rep(30000)):match('(a+)+b') end", errNone, ""},
		"a forged set":         {"function detect(e) rawset({}, 60000000, 1) end", ErrScript, "non-function"},
		"a file":               {"function detect(e) io.open('/etc/passwd') end", ErrScript, "non-table"},
		"a command":            {"function detect(e) os.execute('id') end", ErrScript, "non-table"},
		"code made of text":    {"function detect(e) load('return 1')() end", ErrScript, "non-function"},
		"another module":       {"function detect(e) require('os') end", ErrScript, "non-function"},
		"the debugger":         {"function detect(e) debug.getinfo(1) end", ErrScript, "non-table"},
		"the globals":          {"function detect(e) return _G.x end", ErrScript, "non-table"},
		"bytecode":             {"\x1bLua\x51\x00", nil, "not Lua"},
		"no detect":            {"x = 1", nil, "no function detect"},
		"deep nesting":         {"function detect(e) return " + strings.Repeat("{", 5000) + "1" + strings.Repeat("}", 5000) + " end", nil, ""},
		"a long chain":         {"function detect(e) return 'a'" + strings.Repeat("..'a'", 3000) + " end", nil, "nested"},
		"no finding":           {"function detect(e) return 5 end", ErrScript, "gave back a number"},
		"a strange rule":       {"function detect(e) return {rule = 'omega/../x'} end", ErrScript, "rule is"},
		"a strange severity":   {"function detect(e) return {rule = 'x', severity = 'worst'} end", ErrScript, "severity"},
		"a strange technique":  {"function detect(e) return {rule = 'x', attack = 'T1'} end", ErrScript, "attack"},
		"an unknown field":     {"function detect(e) return e.secret end", ErrScript, "no field"},
		"a thousand findings":  {"function detect(e) local t = {} for i = 1, 1000 do t[i] = {rule = 'x'} end return t end", ErrScript, "more than 16"},
		"a flood of lines":     {"function detect(e) while true do omega.log('x') end end", ErrFuel, ""},
		"a flood of state":     {"function detect(e) local n = 0 while true do n = n + 1 omega.put('k' .. n, ('x'):rep(1000), 0) end end", ErrFuel, ""},
		"many patterns":        {"function detect(e) local n = 0 while true do n = n + 1 ('x'):match('a' .. n) end end", ErrFuel, ""},
		"growing for ever":     {"all = {} function detect(e) for i = 1, 1000 do all[#all+1] = ('x'):rep(100) .. i end end", errNone, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := &surroundings{state: modules.NewState(64 << 10)}
			d, err := detector(t, c.source, s, 0)
			if c.want == nil {
				if !errors.Is(err, modules.ErrRefused) || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				err := d.Detect(context.Background(), []*event.Event{started("/bin/x", "x")}, func(event.Finding) {})
				if c.want == errNone {
					if err != nil {
						t.Fatal(err)
					}
				} else if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.why) {
					t.Fatalf("%v, want %v with %q", err, c.want, c.why)
				}
			}
			if len(s.lines) > 3*maxLines || s.state.Used() > 64<<10 {
				t.Errorf("%d lines, %d bytes of state", len(s.lines), s.state.Used())
			}
		})
	}
}

// errNone marks scripts that come to no harm.
var errNone = errors.New("it runs")

// A script that remembers more and more in its own variables is begun anew before that matters.
func TestMemoryOfAScriptIsBounded(t *testing.T) {
	d, err := detector(t, "all = {} function detect(e) for i = 1, 100 do all[#all+1] = ('x'):rep(1000) .. i end end", &surroundings{state: modules.NewState(1)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	e := []*event.Event{started("/bin/x", "x")}
	var most uint64
	for i := range 1500 { // 150 MB if it were kept
		if err := d.Detect(context.Background(), e, func(event.Finding) {}); err != nil {
			t.Fatal(err)
		}
		if i%500 == 499 {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	if most > 60<<20 {
		t.Errorf("%d MiB are held", most>>20)
	}
}

// The page names every function there is, and no other.
func TestLibraryIsAsWritten(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range library() {
		short := name[strings.IndexByte(name, '.')+1:]
		if !strings.Contains(string(page), short) {
			t.Errorf("README.md does not name %s", name)
		}
	}
	for _, gone := range []string{"dofile", "load", "loadstring", "require", "rawset", "setmetatable", "getfenv", "collectgarbage", "pcall", "_G"} {
		if slices.Contains(library(), gone) {
			t.Errorf("%s is there", gone)
		}
	}
}

func FuzzScript(f *testing.F) {
	f.Add("function detect(e) return {rule = 'x', title = e.exe .. '!'} end")
	f.Add("local t = {} t[5] = 1 for k, v in pairs(t) do end function detect(e) return t end")
	f.Fuzz(func(t *testing.T, source string) {
		if len(source) > 4096 {
			return
		}
		d, err := detector(t, source, &surroundings{state: modules.NewState(1024)}, 1<<20)
		if err != nil {
			return
		}
		_ = d.Detect(context.Background(), []*event.Event{started("/bin/x", "x")}, func(event.Finding) {})
	})
}

func BenchmarkScript(b *testing.B) {
	d, err := detector(b, "function detect(e) if e.exe:endswith('/curl') and e.args:contains('-o') then return {rule = 'x'} end end", &surroundings{state: modules.NewState(1)}, 0)
	if err != nil {
		b.Fatal(err)
	}
	batch := []*event.Event{started("/bin/ls", "ls\x00-l")}
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Detect(context.Background(), batch, func(event.Finding) {}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStop(b *testing.B) {
	d, err := detector(b, "function detect(e) while true do end end", &surroundings{state: modules.NewState(1)}, 0)
	if err != nil {
		b.Fatal(err)
	}
	batch := []*event.Event{started("/bin/ls", "ls")}
	for b.Loop() {
		_ = d.Detect(context.Background(), batch, func(event.Finding) {})
	}
}
