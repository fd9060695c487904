package guard

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// maxConfig bounds each file of the host's network configuration that is read: a route table of 10,000 lines fits.
const maxConfig = 2 << 20

// maxTree bounds the descendants of one process that are looked at.
const maxTree = 4096

// Refresh reads this host's own addresses, gateways and resolvers anew, in the network namespace of the caller. What
// cannot be read keeps what stood; the error names it.
func (g *Rails) Refresh() error {
	var errs []error
	if own, err := ownAddresses(); err != nil {
		errs = append(errs, err)
	} else {
		g.SetOwn(own)
	}
	// A list is set only when all of its files were read: a fault must not lower a rail.
	var hops []netip.Addr
	read, failed := 0, len(errs)
	for path, parse := range map[string]func([]byte) []netip.Addr{"/proc/thread-self/net/route": parseRoute4, "/proc/thread-self/net/ipv6_route": parseRoute6} {
		raw, err := readBounded(path)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		read++
		hops = append(hops, parse(raw)...)
	}
	if read > 0 && len(errs) == failed {
		g.SetGateways(hops)
	}
	var servers []netip.Addr
	read, failed = 0, len(errs)
	// systemd-resolved's stub hides the servers behind 127.0.0.53; they stand in its own file.
	for _, path := range []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"} {
		raw, err := readBounded(path)
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
			continue
		}
		read++
		servers = append(servers, parseResolv(raw)...)
	}
	if read > 0 && len(errs) == failed {
		g.SetResolvers(servers)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("guard: read this host's network: %w", err)
	}
	return nil
}

func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				out = append(out, addr.Unmap())
			}
		}
	}
	return out, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxConfig))
}

// parseRoute4 reads /proc/net/route: the gateway is the third column, a hexadecimal word in the host's byte order.
func parseRoute4(raw []byte) []netip.Addr {
	var out []netip.Addr
	for line := range bytes.Lines(raw) {
		f := strings.Fields(string(line))
		if len(f) < 4 || len(f[2]) != 8 {
			continue
		}
		b, err := hex.DecodeString(f[2])
		if err != nil {
			continue
		}
		a := netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}) // every port of Linux that Omega builds for is little-endian
		if !a.IsUnspecified() {
			out = append(out, a)
		}
	}
	return out
}

// parseRoute6 reads /proc/net/ipv6_route: the next hop is the fifth column, 32 hexadecimal digits.
func parseRoute6(raw []byte) []netip.Addr {
	var out []netip.Addr
	for line := range bytes.Lines(raw) {
		f := strings.Fields(string(line))
		if len(f) < 10 || len(f[4]) != 32 {
			continue
		}
		var b [16]byte
		if _, err := hex.Decode(b[:], []byte(f[4])); err != nil {
			continue
		}
		if a := netip.AddrFrom16(b); !a.IsUnspecified() {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// parseResolv reads the nameserver lines of resolv.conf(5).
func parseResolv(raw []byte) []netip.Addr {
	var out []netip.Addr
	for line := range bytes.Lines(raw) {
		f := strings.Fields(string(line))
		if len(f) < 2 || f[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil {
			out = append(out, a.Unmap().WithZone(""))
		}
	}
	return out
}

// localHost is the host this process runs on.
type localHost struct{}

// File implements Host.
func (localHost) File(path string) (File, bool) {
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return File{}, false
	}
	return statFile(resolved, resolved)
}

func statFile(at, path string) (File, bool) {
	info, err := os.Stat(at)
	if err != nil {
		return File{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return File{}, false
	}
	return File{Path: path, Inode: st.Ino, Device: st.Dev}, true
}

// maxHashed bounds a protected file that is read whole.
const maxHashed = 256 << 20

// Hash implements Host.
func (localHost) Hash(path string) (string, bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > maxHashed {
		return "", false
	}
	if !info.Mode().IsRegular() {
		return "", true
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.LimitReader(f, maxHashed)); err != nil {
		return "", false
	}
	return hex.EncodeToString(h.Sum(nil)), true
}

// Glob implements Host.
func (localHost) Glob(pattern string) []string {
	found, err := filepath.Glob(pattern)
	if err != nil {
		return nil
	}
	return found
}

// Self implements Host.
func (localHost) Self() (File, []uint32) {
	pids := []uint32{uint32(os.Getpid())}
	path, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return File{}, pids
	}
	exe, ok := statFile("/proc/self/exe", strings.TrimSuffix(path, " (deleted)"))
	if !ok {
		exe = File{Path: strings.TrimSuffix(path, " (deleted)")}
	}
	return exe, pids // the other half runs the same executable
}

// Process implements Host.
func (localHost) Process(pid uint32, tree bool) ([]Process, bool) {
	root, ok := process(pid)
	if !ok {
		return nil, false
	}
	out := []Process{root}
	if !tree {
		return out, true
	}
	children, err := childrenByParent()
	if err != nil {
		return nil, false
	}
	for i := 0; i < len(out); i++ {
		for _, c := range children[out[i].PID] {
			if len(out) >= maxTree {
				return nil, false // more than can be looked at: refused, not guessed
			}
			if p, ok := process(c); ok { // it may have ended meanwhile
				out = append(out, p)
			}
		}
	}
	return out, true
}

func process(pid uint32) (Process, bool) {
	dir := "/proc/" + strconv.FormatUint(uint64(pid), 10)
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, false
	}
	_, flags, ok := parseStat(stat)
	if !ok {
		return Process{}, false
	}
	p := Process{PID: pid, Kernel: flags&0x00200000 != 0} // PF_KTHREAD
	path, err := os.Readlink(dir + "/exe")
	if err != nil {
		// A zombie has no executable and nothing to protect; a process that may not be looked at is not judged.
		return p, p.Kernel || errors.Is(err, fs.ErrNotExist)
	}
	if p.Exe, ok = statFile(dir+"/exe", path); !ok {
		p.Exe = File{Path: path}
	}
	return p, true
}

// parseStat takes parent and flags out of /proc/PID/stat; the command, in parentheses, may hold anything.
func parseStat(stat []byte) (parent uint32, flags uint64, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, false
	}
	f := strings.Fields(string(stat[i+1:]))
	if len(f) < 7 {
		return 0, 0, false
	}
	p, err1 := strconv.ParseUint(f[1], 10, 32)
	flags, err2 := strconv.ParseUint(f[6], 10, 64)
	return uint32(p), flags, err1 == nil && err2 == nil
}

func childrenByParent() (map[uint32][]uint32, error) {
	d, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	children := map[uint32][]uint32{}
	for _, name := range names {
		pid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			continue
		}
		f, err := os.Open("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		line, _ := bufio.NewReaderSize(f, 1024).ReadSlice('\n')
		f.Close()
		if parent, _, ok := parseStat(line); ok {
			children[parent] = append(children[parent], uint32(pid))
		}
	}
	return children, nil
}
