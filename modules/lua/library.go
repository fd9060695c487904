package lua

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	lua "github.com/yuin/gopher-lua"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/pattern"
	"github.com/omega-mesh/omega/swarm/event/fields"
)

// maxPatterns bounds the patterns a script has compiled at once.
const maxPatterns = 256

// maxLines is how many lines may be logged an event.
const maxLines = 16

// open gives the script its library: what is here is all there is.
func (s *script) open() {
	l := s.state
	g := l.G.Global
	functions := func(t *lua.LTable, all map[string]lua.LGFunction) {
		for name, f := range all {
			t.RawSetString(name, l.NewFunction(f))
		}
	}
	functions(g, map[string]lua.LGFunction{
		"assert": luaAssert, "error": luaError, "ipairs": luaIpairs, "next": luaNext, "pairs": luaPairs,
		"tonumber": luaToNumber, "tostring": luaToString, "type": luaType,
		nameConcat: s.concat, nameSet: s.set,
	})
	patterns := map[string]compiled{}
	str := l.NewTable()
	functions(str, map[string]lua.LGFunction{
		"len":   func(l *lua.LState) int { l.Push(lua.LNumber(len(l.CheckString(1)))); return 1 },
		"lower": func(l *lua.LState) int { return s.push(l, strings.ToLower(s.text(l, 1))) },
		"upper": func(l *lua.LState) int { return s.push(l, strings.ToUpper(s.text(l, 1))) },
		"sub":   s.sub, "byte": s.byte, "rep": s.rep, "format": s.format, "split": s.split, "trim": func(l *lua.LState) int { return s.push(l, strings.TrimSpace(s.text(l, 1))) },
		"contains":   func(l *lua.LState) int { l.Push(lua.LBool(strings.Contains(s.text(l, 1), s.text(l, 2)))); return 1 },
		"startswith": func(l *lua.LState) int { l.Push(lua.LBool(strings.HasPrefix(s.text(l, 1), s.text(l, 2)))); return 1 },
		"endswith":   func(l *lua.LState) int { l.Push(lua.LBool(strings.HasSuffix(s.text(l, 1), s.text(l, 2)))); return 1 },
		"find": func(l *lua.LState) int {
			re, t := s.search(l, patterns)
			at := re.FindStringIndex(t)
			if at == nil {
				return 0
			}
			l.Push(lua.LNumber(at[0] + 1))
			l.Push(lua.LNumber(at[1]))
			return 2
		},
		"match": func(l *lua.LState) int {
			re, t := s.search(l, patterns)
			m := re.FindStringSubmatch(t)
			if len(m) > 1 {
				m = m[1:]
			}
			for _, part := range m[:min(len(m), 32)] {
				l.Push(lua.LString(part))
			}
			return min(len(m), 32)
		},
	})
	g.RawSetString("string", str)
	meta := l.NewTable()
	meta.RawSetString("__index", str)
	l.SetMetatable(lua.LString(""), meta)

	tab := l.NewTable()
	functions(tab, map[string]lua.LGFunction{"insert": s.insert, "remove": s.remove, "concat": s.join})
	g.RawSetString("table", tab)

	num := l.NewTable()
	functions(num, map[string]lua.LGFunction{
		"floor": func(l *lua.LState) int { l.Push(lua.LNumber(math.Floor(float64(l.CheckNumber(1))))); return 1 },
		"ceil":  func(l *lua.LState) int { l.Push(lua.LNumber(math.Ceil(float64(l.CheckNumber(1))))); return 1 },
		"abs":   func(l *lua.LState) int { l.Push(lua.LNumber(math.Abs(float64(l.CheckNumber(1))))); return 1 },
		"min":   func(l *lua.LState) int { l.Push(min(l.CheckNumber(1), l.CheckNumber(2))); return 1 },
		"max":   func(l *lua.LState) int { l.Push(max(l.CheckNumber(1), l.CheckNumber(2))); return 1 },
		"log":   func(l *lua.LState) int { l.Push(lua.LNumber(math.Log(float64(l.CheckNumber(1))))); return 1 },
	})
	num.RawSetString("huge", lua.LNumber(math.Inf(1)))
	g.RawSetString("math", num)

	omega := l.NewTable()
	for _, one := range []struct {
		name  string
		needs modules.Capability
		f     lua.LGFunction
	}{
		{"log", modules.CapabilityLog, s.log}, {"now", modules.CapabilityClock, s.now}, {"get", modules.CapabilityState, s.get}, {"put", modules.CapabilityState, s.put},
		{"indicator", modules.CapabilityIndicators, s.indicator}, {"reputation", modules.CapabilityReputation, s.reputation},
	} {
		f := one.f
		if !s.program.manifest.Grants(one.needs) {
			f = func(l *lua.LState) int {
				l.RaiseError("the manifest does not ask for %q", string(one.needs))
				return 0
			}
		}
		omega.RawSetString(one.name, l.NewFunction(f))
	}
	g.RawSetString("omega", omega)

	s.view = l.NewUserData()
	view := l.NewTable()
	view.RawSetString("__index", l.NewFunction(s.field))
	s.view.Metatable = view
}

// text is an argument, paid for by its length.
func (s *script) text(l *lua.LState, n int) string {
	t := l.CheckString(n)
	s.fuel.spend(l, len(t)/16)
	return t
}

// push gives back a text, unless it is too long.
func (s *script) push(l *lua.LState, t string) int {
	if len(t) > maxText {
		l.RaiseError("a text of %d bytes, more than %d", len(t), maxText)
	}
	s.fuel.spend(l, len(t)/16)
	l.Push(lua.LString(t))
	return 1
}

// field reads a field of the event at hand, by any of its names. A text that is not there is empty and not nil: with nil, whoever starts a
// program whose path cannot be read would make a script fail that asks e.exe:endswith, and a script that fails three times is stopped.
func (s *script) field(l *lua.LState) int {
	name := l.CheckString(2)
	if s.event == nil {
		l.RaiseError("an event is good during its own call alone")
	}
	f, ok := fields.Find(name)
	if !ok {
		l.RaiseError("an event has no field %q", modules.Printable(name))
	}
	s.fuel.spend(l, 8)
	if f.Number != nil {
		l.Push(lua.LNumber(f.Number(s.event)))
		return 1
	}
	v := f.Value(s.event)
	return s.push(l, v[:min(len(v), maxText)])
}

func (s *script) concat(l *lua.LState) int {
	a, b := l.Get(1), l.Get(2)
	if !lua.LVCanConvToString(a) || !lua.LVCanConvToString(b) {
		l.RaiseError("cannot join a %s and a %s", a.Type(), b.Type())
	}
	return s.push(l, lua.LVAsString(a)+lua.LVAsString(b))
}

// set is t[k] = v. A number past the end of a list makes the list that long: it is paid for.
func (s *script) set(l *lua.LState) int {
	t := l.CheckTable(1)
	k, v := l.Get(2), l.Get(3)
	if k == lua.LNil {
		l.RaiseError("a table has no key nil")
	}
	if n, ok := k.(lua.LNumber); ok {
		if n != n {
			l.RaiseError("a table has no key that is no number")
		}
		if gap := float64(n) - float64(t.Len()); gap > 1 && float64(n) < float64(lua.MaxArrayIndex) {
			s.fuel.spend(l, int(gap))
		}
	}
	s.fuel.spend(l, 2)
	l.RawSet(t, k, v)
	return 0
}

func (s *script) sub(l *lua.LState) int {
	t, n := s.text(l, 1), 0
	n = len(t)
	at := func(i int) int {
		if i < 0 {
			i += n + 1
		}
		return i
	}
	from, to := max(at(l.OptInt(2, 1)), 1), min(at(l.OptInt(3, -1)), n)
	if from > to {
		return s.push(l, "")
	}
	return s.push(l, t[from-1:to])
}

func (s *script) byte(l *lua.LState) int {
	t, i := l.CheckString(1), l.OptInt(2, 1)
	if i < 1 || i > len(t) {
		return 0
	}
	l.Push(lua.LNumber(t[i-1]))
	return 1
}

func (s *script) rep(l *lua.LState) int {
	t, n := l.CheckString(1), max(l.CheckInt(2), 0)
	if len(t) > 0 && n > maxText/len(t) {
		l.RaiseError("a text longer than %d bytes", maxText)
	}
	return s.push(l, strings.Repeat(t, min(n, maxText)))
}

// format knows %s, %d, %x, %q, %f and %%, without widths: those could ask for gigabytes.
func (s *script) format(l *lua.LState) int {
	var b strings.Builder
	next := 2
	f := s.text(l, 1)
	for i := 0; i < len(f) && b.Len() <= maxText; i++ {
		if f[i] != '%' || i+1 == len(f) {
			b.WriteByte(f[i])
			continue
		}
		i++
		switch f[i] {
		case '%':
			b.WriteByte('%')
			continue
		case 's':
			b.WriteString(lua.LVAsString(l.ToStringMeta(l.Get(next))))
		case 'q':
			b.WriteString(strconv.Quote(l.CheckString(next)))
		case 'd':
			fmt.Fprintf(&b, "%d", l.CheckInt64(next))
		case 'x':
			fmt.Fprintf(&b, "%x", l.CheckInt64(next))
		case 'f':
			b.WriteString(strconv.FormatFloat(float64(l.CheckNumber(next)), 'f', 6, 64))
		default:
			l.RaiseError("format knows %%s, %%d, %%x, %%q, %%f and %%%%, not %%%c", f[i])
		}
		next++
	}
	return s.push(l, b.String())
}

func (s *script) split(l *lua.LState) int {
	t, sep := s.text(l, 1), l.CheckString(2)
	if sep == "" {
		l.RaiseError("split at what?")
	}
	out := l.NewTable()
	parts := strings.SplitN(t, sep, 1024)
	s.fuel.spend(l, len(parts))
	for _, p := range parts {
		out.Append(lua.LString(p))
	}
	l.Push(out)
	return 1
}

// compiled is an RE2 pattern, and how many steps it has.
type compiled struct {
	re    *regexp.Regexp
	steps int
}

// search gives the text of argument 1 and the pattern of argument 2, which is compiled once. Both are paid for: at the worst a
// search visits every step of the pattern at every byte of the text, four of them in the time of one instruction.
func (s *script) search(l *lua.LState, known map[string]compiled) (*regexp.Regexp, string) {
	t, p := s.text(l, 1), l.CheckString(2)
	c, ok := known[p]
	if !ok {
		if len(p) > 1024 {
			l.RaiseError("a pattern of %d bytes", len(p))
		}
		var err error
		if c.re, c.steps, err = pattern.Compile(p); err != nil {
			l.RaiseError("pattern %q: %s", modules.Printable(p), modules.Printable(err.Error()))
		}
		s.fuel.spend(l, 500+32*c.steps)
		if len(known) >= maxPatterns {
			clear(known)
		}
		known[p] = c
	}
	s.fuel.spend(l, 16+len(t)*c.steps/4)
	return c.re, t
}

func (s *script) insert(l *lua.LState) int {
	t := l.CheckTable(1)
	if l.GetTop() == 2 {
		s.fuel.spend(l, 2)
		t.Append(l.Get(2))
		return 0
	}
	i := l.CheckInt(2)
	if i < 1 || i > t.Len()+1 {
		l.RaiseError("insert at %d of %d", i, t.Len())
	}
	s.fuel.spend(l, 2+t.Len()-i)
	t.Insert(i, l.Get(3))
	return 0
}

func (s *script) remove(l *lua.LState) int {
	t := l.CheckTable(1)
	i := l.OptInt(2, t.Len())
	if i < 1 || i > t.Len() {
		return 0
	}
	s.fuel.spend(l, 2+t.Len()-i)
	l.Push(t.Remove(i))
	return 1
}

func (s *script) join(l *lua.LState) int {
	t, sep := l.CheckTable(1), l.OptString(2, "")
	var b strings.Builder
	for i := 1; i <= t.Len(); i++ {
		if i > 1 {
			b.WriteString(sep)
		}
		v := t.RawGetInt(i)
		if !lua.LVCanConvToString(v) {
			l.RaiseError("cannot join a %s", v.Type())
		}
		b.WriteString(lua.LVAsString(v))
		if s.fuel.spend(l, 1); b.Len() > maxText {
			break
		}
	}
	return s.push(l, b.String())
}

func (s *script) log(l *lua.LState) int {
	t := s.text(l, 1)
	if s.lines++; s.lines <= maxLines {
		s.host.Log(modules.LogInfo, modules.Printable(t))
	}
	return 0
}

func (s *script) now(l *lua.LState) int {
	var at int64
	if s.event != nil {
		at = s.event.Time
	}
	l.Push(lua.LNumber(at / int64(time.Millisecond)))
	return 1
}

func (s *script) get(l *lua.LState) int {
	if v, ok := s.host.Get(s.text(l, 1)); ok {
		return s.push(l, string(v))
	}
	return 0
}

// put is omega.put(key, value, ttl in milliseconds); it says whether there was room. nil forgets.
func (s *script) put(l *lua.LState) int {
	key := s.text(l, 1)
	var value []byte
	if v := l.Get(2); v != lua.LNil {
		value = []byte(s.text(l, 2))
	}
	ms := min(max(l.OptInt64(3, 0), 0), int64(30*24*time.Hour/time.Millisecond))
	err := s.host.Put(key, value, time.Duration(ms)*time.Millisecond)
	if err != nil && !errors.Is(err, modules.ErrQuota) {
		l.RaiseError("%s", modules.Printable(err.Error()))
	}
	l.Push(lua.LBool(err == nil))
	return 1
}

func (s *script) indicator(l *lua.LState) int {
	source, found := s.host.Indicator(s.text(l, 1), s.text(l, 2))
	l.Push(lua.LBool(found))
	l.Push(lua.LString(source))
	return 2
}

func (s *script) reputation(l *lua.LState) int {
	a, err := netip.ParseAddr(s.text(l, 1))
	if err != nil {
		l.RaiseError("%q is no address", modules.Printable(l.CheckString(1)))
	}
	l.Push(lua.LNumber(s.host.Reputation(a.Unmap())))
	return 1
}

func luaAssert(l *lua.LState) int {
	if !l.ToBool(1) {
		l.RaiseError("%s", l.OptString(2, "assertion failed"))
	}
	return l.GetTop()
}

func luaError(l *lua.LState) int {
	l.RaiseError("%s", lua.LVAsString(l.ToStringMeta(l.Get(1))))
	return 0
}

func luaType(l *lua.LState) int {
	l.Push(lua.LString(l.CheckAny(1).Type().String()))
	return 1
}

func luaToString(l *lua.LState) int {
	v := l.CheckAny(1)
	switch v.Type() {
	case lua.LTString, lua.LTNumber, lua.LTBool, lua.LTNil:
		l.Push(lua.LString(v.String()))
	default: // no addresses of this process
		l.Push(lua.LString(v.Type().String()))
	}
	return 1
}

func luaToNumber(l *lua.LState) int {
	switch v := l.CheckAny(1).(type) {
	case lua.LNumber:
		l.Push(v)
		return 1
	case lua.LString:
		t := strings.TrimSpace(string(v))
		if len(t) > 64 {
			return 0
		}
		if n, err := strconv.ParseFloat(t, 64); err == nil {
			l.Push(lua.LNumber(n))
			return 1
		}
		if n, err := strconv.ParseInt(t, 0, 64); err == nil {
			l.Push(lua.LNumber(n))
			return 1
		}
	}
	return 0
}

func luaNext(l *lua.LState) int {
	k, v := l.CheckTable(1).Next(l.Get(2))
	if k == lua.LNil {
		return 0
	}
	l.Push(k)
	l.Push(v)
	return 2
}

func luaPairs(l *lua.LState) int {
	t := l.CheckTable(1)
	l.Push(l.NewFunction(luaNext))
	l.Push(t)
	l.Push(lua.LNil)
	return 3
}

func luaIpairs(l *lua.LState) int {
	t := l.CheckTable(1)
	l.Push(l.NewFunction(func(l *lua.LState) int {
		i := l.CheckInt(2) + 1
		v := l.CheckTable(1).RawGetInt(i)
		if v == lua.LNil {
			return 0
		}
		l.Push(lua.LNumber(i))
		l.Push(v)
		return 2
	}))
	l.Push(t)
	l.Push(lua.LNumber(0))
	return 3
}
