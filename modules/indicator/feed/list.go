package feed

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/omega-mesh/omega/modules/indicator"
)

// readList reads lines: one value each, the first word or column that is one; hosts files; filter lists' ||domain^.
func readList(in *bufio.Reader, opt Options, b *indicator.Builder, rep *indicator.Report) error {
	it := opt.item()
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		long := errors.Is(err, bufio.ErrBufferFull) || len(line) > maxLine
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of an endless line
			line, err = in.ReadSlice('\n')
		}
		switch {
		case long:
			rep.Reject(fmt.Sprintf("a line is longer than %d bytes", maxLine), string(line[:min(len(line), 80)]))
		default:
			if aerr := addLine(string(line), it, b, rep); aerr != nil {
				return fmt.Errorf("line %d: %w", n, aerr)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
}

func addLine(line string, it indicator.Item, b *indicator.Builder, rep *indicator.Report) error {
	line = strings.TrimSpace(line)
	if line == "" || line[0] == '#' || line[0] == ';' || line[0] == '!' || strings.HasPrefix(line, "//") {
		return nil
	}
	if i := strings.Index(line, " #"); i >= 0 {
		line = strings.TrimSpace(line[:i])
	} else if i := strings.Index(line, "\t#"); i >= 0 {
		line = strings.TrimSpace(line[:i])
	}
	if rest, ok := strings.CutPrefix(line, "||"); ok { // a filter list's whole domain
		rest, _, _ = strings.Cut(rest, "^")
		return b.Guess(rep, Refang(rest), it)
	}
	words := strings.Fields(line)
	if len(words) > 1 && isSink(words[0]) { // a hosts file: names, and those alone
		it.Exact = true
		for _, w := range words[1:] {
			if w == "localhost" || w == "broadcasthost" || strings.HasPrefix(w, "ip6-") || w == words[0] || strings.HasPrefix(w, "local") && !strings.Contains(w, ".") {
				continue
			}
			if err := b.Add(rep, indicator.Domain, Refang(w), it); err != nil {
				return err
			}
		}
		return nil
	}
	if line[0] == '/' { // a path may hold blanks and commas
		return b.Guess(rep, line, it)
	}
	if columns := split(line); len(columns) > 1 {
		for _, c := range columns[:min(len(columns), 16)] {
			if v := portless(Refang(c)); indicator.Recognised(v) {
				return b.Guess(rep, v, it)
			}
		}
	}
	if len(words) == 0 {
		return nil
	}
	return b.Guess(rep, portless(Refang(strings.Trim(words[0], `"',`))), it)
}

// isSink says whether an address is what hosts files send names to.
func isSink(s string) bool {
	switch s {
	case "0.0.0.0", "127.0.0.1", "::", "::1", "127.0.1.1", "fe80::1%lo0", "255.255.255.255", "ff02::1", "ff02::2", "ff00::0", "fe00::0":
		return true
	}
	return false
}

// split gives the columns of a table's row.
func split(line string) []string {
	for _, sep := range [...]string{",", "\t", ";", "|"} {
		if strings.Contains(line, sep) {
			out := strings.SplitN(line, sep, 17)
			for i := range out {
				out[i] = strings.Trim(strings.TrimSpace(out[i]), `"'`)
			}
			return out
		}
	}
	return nil
}

// portless takes the port off an address.
func portless(s string) string {
	if strings.Contains(s, "://") {
		return s
	}
	if a, err := netip.ParseAddrPort(s); err == nil {
		return a.Addr().String()
	}
	return s
}

var fangs = strings.NewReplacer("[.]", ".", "(.)", ".", "{.}", ".", "[dot]", ".", "(dot)", ".", "[DOT]", ".", `\.`, ".", "[:]", ":", "[://]", "://", "[/]", "/", "[at]", "@", "[@]", "@")

// Refang undoes what is done to indicators so that nobody follows them by accident: hxxp://evil[.]example.
func Refang(s string) string {
	s = strings.TrimSpace(s)
	if strings.ContainsAny(s, `[({\`) && !strings.HasPrefix(s, "/") {
		s = fangs.Replace(s)
	}
	if len(s) > 4 && (s[0] == 'h' || s[0] == 'H' || s[0] == 'f' || s[0] == 'F') {
		scheme, rest, ok := strings.Cut(s, ":")
		switch strings.ToLower(scheme) {
		case "hxxp", "hxxps", "h**p", "h**ps", "fxp", "hxxp[s]":
			if ok {
				secure := strings.HasSuffix(strings.TrimSuffix(strings.ToLower(scheme), "]"), "s")
				switch {
				case s[0] == 'f' || s[0] == 'F':
					return "ftp:" + rest
				case secure:
					return "https:" + rest
				}
				return "http:" + rest
			}
		}
	}
	return s
}
