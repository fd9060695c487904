package wasm

import (
	"encoding/binary"
	"net/netip"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/swarm/event"
)

// Every field of an event lies where ABI.md says: each is set alone, and the bytes that change are those of its line.
func TestRecordIsAsWritten(t *testing.T) {
	page, err := os.ReadFile("../ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[int]bool{}
	_, table, _ := strings.Cut(string(page), "## An event's record")
	table, _, _ = strings.Cut(table, "## Findings")
	for line := range strings.Lines(table) {
		if cells := strings.Split(line, "|"); len(cells) > 3 {
			for o := range strings.SplitSeq(cells[1], ",") {
				if n, err := strconv.Atoi(strings.TrimSpace(o)); err == nil {
					documented[n] = true
				}
			}
		}
	}
	plain := make([]byte, recordHeader+64)
	putRecord(plain, &event.Event{})
	var walk func(path string, v reflect.Value, e *event.Event)
	fields := 0
	walk = func(path string, v reflect.Value, e *event.Event) {
		switch v.Type() {
		case reflect.TypeFor[netip.AddrPort]():
			v.Set(reflect.ValueOf(netip.MustParseAddrPort("192.0.2.1:258")))
		case reflect.TypeFor[netip.Addr]():
			v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.1")))
		default:
			switch v.Kind() {
			case reflect.Struct:
				for i := range v.NumField() {
					walk(path+"."+v.Type().Field(i).Name, v.Field(i), e)
				}
				return
			case reflect.String:
				v.SetString("x")
			case reflect.Bool:
				v.SetBool(true)
			case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
				v.SetUint(1)
			default:
				v.SetInt(1)
			}
		}
		fields++
		b := make([]byte, recordHeader+64)
		n := putRecord(b, e)
		v.SetZero()
		first := -1
		for i := 4; i < recordHeader; i++ {
			if b[i] != plain[i] {
				first = i
				break
			}
		}
		if first < 0 {
			t.Errorf("%s is not in the record", path)
			return
		}
		if v.Kind() == reflect.String || v.Type() == reflect.TypeFor[netip.Addr]() {
			if first < recordFixed || n <= recordHeader || binary.LittleEndian.Uint16(b[first/4*4:]) != recordHeader {
				t.Errorf("%s: not in the table of strings", path)
			}
			return
		}
		if v.Type() == reflect.TypeFor[netip.AddrPort]() {
			return // a port and an address: two lines, both beside others that are checked
		}
		if !documented[first] {
			t.Errorf("%s lies at %d, which ABI.md does not have", path, first)
		}
	}
	e := new(event.Event)
	walk("Event", reflect.ValueOf(e).Elem(), e)
	if fields < 60 {
		t.Fatalf("only %d fields looked at", fields)
	}
}
