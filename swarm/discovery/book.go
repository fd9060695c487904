package discovery

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

// Bounds of the address book.
const (
	maxBook     = 1 << 20 // bytes of the file
	maxLine     = 512
	maxEntries  = 2048
	maxPerPeer  = 4
	forgetAfter = 30 * 24 * time.Hour
)

// Book is the address book: addresses at which a peer proved itself, in a text file of one multiaddr a line, with /p2p,
// a space, and when it last worked (RFC 3339). Lines that do not parse are passed over; a line without a time, as a
// person may add, counts as seen now.
type Book struct {
	path string

	mu    sync.Mutex
	seen  map[peer.ID]map[string]time.Time // by address without /p2p
	dirty bool
}

// OpenBook reads the book at path; there need be none. An empty path keeps the book in memory only.
func OpenBook(path string, now time.Time) (*Book, error) {
	b := &Book{path: path, seen: make(map[peer.ID]map[string]time.Time)}
	if path == "" {
		return b, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("discovery: address book: %w", err)
	}
	defer func() { _ = f.Close() }()
	b.read(f, now)
	return b, nil
}

func (b *Book) read(r io.Reader, now time.Time) {
	s := bufio.NewScanner(io.LimitReader(r, maxBook))
	s.Buffer(make([]byte, 0, maxLine), maxLine)
	for n := 0; n < maxEntries && s.Scan(); n++ {
		if p, addr, when, ok := parseLine(s.Text(), now); ok && now.Sub(when) < forgetAfter {
			b.add(p, addr, when)
		}
	}
}

// parseLine reads one line of the book.
func parseLine(line string, now time.Time) (p peer.ID, addr string, when time.Time, ok bool) {
	text, stamp, _ := strings.Cut(strings.TrimSpace(line), " ")
	if text == "" || text[0] != '/' || len(line) > maxLine {
		return "", "", time.Time{}, false
	}
	info, err := peer.AddrInfoFromString(text)
	if err != nil || len(info.Addrs) != 1 {
		return "", "", time.Time{}, false
	}
	when = now
	if stamp = strings.TrimSpace(stamp); stamp != "" {
		if when, err = time.Parse(time.RFC3339, stamp); err != nil || when.After(now.Add(time.Hour)) {
			return "", "", time.Time{}, false
		}
	}
	return info.ID, info.Addrs[0].String(), when, true
}

// add keeps the newest addresses of a peer. The caller holds mu, or has the book to itself.
func (b *Book) add(p peer.ID, addr string, when time.Time) {
	m := b.seen[p]
	if m == nil {
		if len(b.seen) >= maxEntries {
			return
		}
		m = make(map[string]time.Time)
		b.seen[p] = m
	}
	m[addr] = when
	for len(m) > maxPerPeer {
		oldest := addr
		for a, t := range m {
			if t.Before(m[oldest]) {
				oldest = a
			}
		}
		if oldest == addr { // all equally old: any other
			for a := range m {
				if a != addr {
					oldest = a
					break
				}
			}
		}
		delete(m, oldest)
	}
}

// Worked notes that a peer proved itself at an address.
func (b *Book) Worked(p peer.ID, addr ma.Multiaddr, when time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.add(p, addr.String(), when)
	b.dirty = true
}

// Forget drops a peer.
func (b *Book) Forget(p peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.seen[p]; ok {
		delete(b.seen, p)
		b.dirty = true
	}
}

// All is every peer with its addresses, the one that worked last first.
func (b *Book) All() []peer.AddrInfo {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]peer.AddrInfo, 0, len(b.seen))
	for p, m := range b.seen {
		info := peer.AddrInfo{ID: p}
		for _, a := range byTime(m) {
			if addr, err := ma.NewMultiaddr(a); err == nil {
				info.Addrs = append(info.Addrs, addr)
			}
		}
		out = append(out, info)
	}
	slices.SortFunc(out, func(a, b peer.AddrInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return out
}

func byTime(m map[string]time.Time) []string {
	addrs := make([]string, 0, len(m))
	for a := range m {
		addrs = append(addrs, a)
	}
	slices.SortFunc(addrs, func(x, y string) int {
		if c := m[y].Compare(m[x]); c != 0 {
			return c
		}
		return strings.Compare(x, y)
	})
	return addrs
}

// Save writes the book if it changed: to a file beside it, then renamed over it, so that a crash leaves one or the other.
func (b *Book) Save() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.path == "" || !b.dirty {
		return nil
	}
	var lines []string
	for p, m := range b.seen {
		for _, a := range byTime(m) {
			lines = append(lines, a+"/p2p/"+p.String()+" "+m[a].UTC().Format(time.RFC3339)+"\n")
		}
	}
	slices.Sort(lines)
	if err := replace(b.path, strings.Join(lines, "")); err != nil {
		return fmt.Errorf("discovery: address book: %w", err)
	}
	b.dirty = false
	return nil
}

func replace(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}
