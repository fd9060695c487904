package ocsf

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
	"pgregory.net/rapid"
)

// fill sets every field of v to something an attacker could have chosen, or leaves it.
func fill(rt *rapid.T, v reflect.Value, name string) {
	switch v.Interface().(type) {
	case netip.Addr:
		v.Set(reflect.ValueOf(address(rt, name)))
		return
	case netip.AddrPort:
		v.Set(reflect.ValueOf(netip.AddrPortFrom(address(rt, name), rapid.Uint16().Draw(rt, name))))
		return
	}
	if v.Kind() != reflect.Struct && rapid.Bool().Draw(rt, name+" empty") {
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(rt, v.Field(i), v.Type().Field(i).Name)
		}
	case reflect.String:
		v.SetString(string(rapid.SliceOfN(rapid.SampledFrom([]byte("ab/ \\\x00\x1b\n\xff\xc3\x9f\"u{}<&>")), 0, 12).Draw(rt, name)))
	case reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(-1<<31, 1<<31-1).Draw(rt, name))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64Max(1<<v.Type().Bits()-1).Draw(rt, name))
	case reflect.Bool:
		v.SetBool(true)
	default:
		rt.Fatalf("a field of kind %v: tell the test how to fill it", v.Kind())
	}
}

func address(rt *rapid.T, name string) netip.Addr {
	return rapid.SampledFrom([]netip.Addr{{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("::ffff:1.2.3.4")}).Draw(rt, name)
}

// TestRoundTrip: an event of any class and activity, whatever its fields hold, comes back as it was.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		e := &event.Event{}
		fill(rt, reflect.ValueOf(e).Elem(), "event")
		e.Class = rapid.SampledFrom(event.Classes()).Draw(rt, "class")
		e.Activity = event.Activity(rapid.IntRange(0, event.Activities-1).Draw(rt, "activity"))
		e.Time = rapid.Int64Range(-1<<60, 1<<62).Draw(rt, "time")
		roundTrip(rt, e)
	})
}

// TestEveryActivity: each activity of each class has its own numbers and comes back, also where there is nothing else.
func TestEveryActivity(t *testing.T) {
	for _, c := range event.Classes() {
		for a := range event.Activities {
			roundTrip(t, &event.Event{Class: c, Activity: event.Activity(a)})
			roundTrip(t, &event.Event{Class: c, Activity: event.Activity(a), Process: event.Process{Key: event.ProcessKey{PID: 3, Start: 4}}, Access: event.Access{Target: event.ProcessKey{PID: 5, Start: 6}}})
		}
	}
}

func roundTrip(t interface{ Fatalf(string, ...any) }, e *event.Event) {
	line, err := Encode(e, "n1", "did:omega:n1")
	if err != nil {
		t.Fatalf("%v", err)
	}
	back, err := Decode(line)
	if err != nil {
		t.Fatalf("%v\n%s", err, line)
	}
	if !reflect.DeepEqual(back, e) {
		t.Fatalf("%s\ncame back as\n%+v\nnot\n%+v", line, back, e)
	}
}

// TestLongest: an event whose strings are all as long as the kernel allows, of bytes that do not show themselves, fits in a line.
func TestLongest(t *testing.T) {
	path := strings.Repeat("\xff", 4096)
	e := &event.Event{Class: event.ClassFile, Activity: event.ActivityFileRename, Process: event.Process{Exe: path, CWD: path, Args: path, ParentExe: path, Script: path},
		File: event.File{Path: path, Other: path}}
	roundTrip(t, e)
}

// TestSchema holds class, caption, activities and required attributes against the schema itself.
func TestSchema(t *testing.T) {
	dir := os.Getenv("REFERENCE_DATA")
	if dir == "" {
		t.Skip("REFERENCE_DATA names no folder with the schema's classes")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "ocsf_classes.json"))
	if err != nil {
		t.Skipf("the schema's classes are not there: %v", err)
	}
	var schema struct {
		Classes []struct {
			UID        uint16            `json:"class_uid"`
			Caption    string            `json:"caption"`
			Activities map[string]string `json:"activities"`
			Required   []string          `json:"required"`
		} `json:"priority_classes"`
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, c := range event.Classes() {
		for a := range event.Activities {
			e := &event.Event{Class: c, Activity: event.Activity(a), Process: event.Process{Key: event.ProcessKey{PID: 3}, Parent: event.ProcessKey{PID: 1}}, Access: event.Access{Operation: "x"}}
			line, err := Encode(e, "n1", "did")
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(line, &m); err != nil {
				t.Fatal(err)
			}
			for _, s := range schema.Classes {
				if float64(s.UID) != m["class_uid"].(float64) {
					continue
				}
				seen++
				if s.Caption != m["class_name"] {
					t.Errorf("class %d is %q in the schema, not %q", s.UID, s.Caption, m["class_name"])
				}
				if raw, _ := json.Marshal(m["activity_id"]); s.Activities[string(raw)] == "" {
					t.Errorf("class %d has no activity %s (%s)", s.UID, raw, e.Activity)
				}
				for _, k := range s.Required {
					if _, ok := m[k]; !ok && !slices.Contains([]string{"cloud", "osint"}, k) {
						t.Errorf("class %d, %s: no %s", s.UID, e.Activity, k)
					}
				}
			}
		}
	}
	if seen < event.Activities {
		t.Errorf("only %d events were held against the schema", seen)
	}
}
