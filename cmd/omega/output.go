package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// emit prints v as one line of JSON.
func (a *app) emit(v any) error {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	return a.emitLine(strings.TrimSuffix(b.String(), "\n"))
}

// emitLine prints one line of JSON. What could drive a terminal becomes an escape, which means the same to a reader:
// outside ASCII such a character stands only within strings, and within ASCII the encoder has escaped it.
func (a *app) emitLine(line string) error {
	var b strings.Builder
	b.Grow(len(line) + 1)
	for _, r := range line {
		switch {
		case r < utf8.RuneSelf && r != 0x7f || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	b.WriteByte('\n')
	_, err := io.WriteString(a.out, b.String())
	return err
}

// table prints rows in columns. A cell never carries a raw control byte.
func (a *app) table(header []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(header, "\t"))
	for _, r := range rows {
		for i := range r {
			if r[i] = printable(r[i]); r[i] == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// say prints a line for a person; with --json it prints v instead.
func (a *app) say(v any, format string, args ...any) error {
	if a.json {
		return a.emit(v)
	}
	_, err := io.WriteString(a.out, printable(fmt.Sprintf(format, args...))+"\n")
	return err
}

// printable replaces what could drive a terminal, or forge a line: control characters, line breaks among them, invalid
// UTF-8, and characters that reorder text.
func printable(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// stamp is a time as JSON carries it: RFC 3339 with nanoseconds, UTC; empty for none.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil || t.Seconds == 0 && t.Nanos == 0 {
		return ""
	}
	return t.AsTime().UTC().Format("2006-01-02T15:04:05.000000000Z07:00")
}

// clock is a time for a person.
func clock(t *timestamppb.Timestamp) string {
	if t == nil || t.Seconds == 0 && t.Nanos == 0 {
		return ""
	}
	return t.AsTime().Local().Format("2006-01-02 15:04:05")
}

func milliseconds(ms float64) string {
	return time.Duration(ms * float64(time.Millisecond)).Round(time.Second / 10).String()
}

// short is a DID for a person.
func short(did string) string {
	const method = "did:omega:"
	if rest, ok := strings.CutPrefix(did, method); ok && len(rest) > 10 {
		return rest[:10]
	}
	return did
}

func shortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func list(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
