package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/api/v1/apiv1connect"
	"github.com/omega-mesh/omega/node/config"
)

const (
	// pollEvery is how often a starting node is asked how far it is.
	pollEvery = 25 * time.Millisecond
	// startTimeout bounds founding, joining and syncing together.
	startTimeout = 60 * time.Second
	// meshPeers is how many live connections make a node of a large swarm a part of it; in a small one it is all.
	meshPeers = 6
	// logTail is how much of a node's log an error quotes.
	logTail = 2048
)

// settings is the omega.yaml of a host: what makes a node one of a testnet.
func (h *Host) settings(mode Mode) map[string]any {
	listen := []string{fmt.Sprintf("/ip4/%s/udp/%d/quic-v1", h.Addr, h.Port), fmt.Sprintf("/ip4/%s/tcp/%d", h.Addr, h.Port)}
	m := map[string]any{"mode": config.ModeEnforce, "listen": listen, "silent_after_s": 2, "decoys": []string{fmt.Sprintf("tcp/%d", h.Decoy)}}
	if mode == ModeNetns {
		m["cgroup"], m["interfaces"] = h.Cgroup, []string{hostLink}
		m["logs"] = []string{h.AuthLog()} // the machine's own log-ons are none of a testnet's
	} else {
		m["mdns"], m["sensor"] = false, "procfs" // the machine's own network hears nothing of a testnet
		m["split"] = false
	}
	return m
}

// AuthLog is where a host's programs would log on: its node follows it.
func (h *Host) AuthLog() string { return filepath.Join(h.Dir, "auth.log") }

func (h *Host) writeConfig(mode Mode) error {
	raw, err := yaml.Marshal(h.settings(mode))
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.AuthLog(), nil, 0o600); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(h.Dir, "omega.yaml"), raw, 0o644)
}

// Client speaks to the node of a host over its Unix socket.
func (h *Host) Client() apiv1connect.NodeClient {
	socket := filepath.Join(h.Dir, "omega.sock")
	return apiv1connect.NewNodeClient(&http.Client{Transport: &http.Transport{
		DisableKeepAlives: true, // a client is made for a call or a stream, and nobody closes it
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}, "http://omega")
}

func (h *Host) status(ctx context.Context) (*apiv1.StatusResponse, error) {
	return h.Client().Status(ctx, &apiv1.StatusRequest{})
}

// found makes the swarm: n1 founds it and invites, all others join at once.
func (n *Net) found(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	members := n.Members()
	first := members[0]
	n.progress("founding the swarm on " + first.Name)
	if _, err := n.omega(ctx, first, "", "init", "--swarm", "testnet-"+n.state.ID, "--name", first.Name, "--suite", n.suite, "--roles", strings.Join(first.Roles, ",")); err != nil {
		return err
	}
	if err := n.startNode(first.Name); err != nil {
		return err
	}
	if err := n.await(ctx, first, func(s *apiv1.StatusResponse) bool { return s.GetSynced() || len(members) > 1 }); err != nil {
		return err
	}
	if len(members) > 1 {
		tokens, err := n.invite(ctx, first, members[1:])
		if err != nil {
			return err
		}
		n.progress(fmt.Sprintf("%d hosts join", len(members)-1))
		errs := make([]error, len(members))
		var wg sync.WaitGroup
		for i, h := range members[1:] {
			wg.Go(func() {
				_, errs[i] = n.omega(ctx, h, tokens[strings.Join(h.Roles, ",")], "join", "-", "--name", h.Name)
				if errs[i] == nil {
					errs[i] = n.startNode(h.Name)
				}
			})
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
	n.progress("waiting until all have synced")
	for _, h := range members {
		if err := n.await(ctx, h, func(s *apiv1.StatusResponse) bool { return ready(s, h, len(members)) }); err != nil {
			return err
		}
	}
	return nil
}

// ready says whether a node is synced, knows all members, is connected to enough of them, and runs all its roles.
func ready(s *apiv1.StatusResponse, h *Host, members int) bool {
	have := map[string]bool{}
	for _, r := range s.GetRoles() {
		have[r] = true
	}
	for _, r := range h.Roles {
		if !have[r] {
			return false
		}
	}
	return s.GetSynced() && int(s.GetMembers()) >= members && int(s.GetPeers()) >= min(members-1, meshPeers)
}

// invite makes one invite for each set of roles, good for as many as have them.
func (n *Net) invite(ctx context.Context, from *Host, joiners []*Host) (map[string]string, error) {
	uses := map[string]int{}
	for _, h := range joiners {
		uses[strings.Join(h.Roles, ",")]++
	}
	tokens := map[string]string{}
	for roles, count := range uses {
		out, err := n.omega(ctx, from, "", "invite", "--roles", roles, "--uses", fmt.Sprint(count), "--ttl", "1h")
		if err != nil {
			return nil, err
		}
		for _, word := range strings.Fields(out) {
			if strings.HasPrefix(word, "omega1") {
				tokens[roles] = word
			}
		}
		if tokens[roles] == "" {
			return nil, errors.New("omega invite printed no token")
		}
	}
	return tokens, nil
}

// omega runs one command of the binary on a host, as its owner would, and returns what it printed.
func (n *Net) omega(ctx context.Context, h *Host, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, n.state.Binary, args...)
	cmd.Args[0] = "omega"
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err := n.Start(h, cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("on %s: omega %s: %w: %s", h.Name, args[0], err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// startNode starts `omega up` on a host and keeps watch over it.
func (n *Net) startNode(name string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	h, err := n.state.Host(name)
	if err != nil {
		return err
	}
	cmd, err := n.state.startNode(h)
	if err != nil {
		return err
	}
	if n.state.Mode == ModeProcess {
		n.reaper.watch(Process{PID: h.PID, Start: h.Start})
	}
	r := &running{cmd: cmd, done: make(chan struct{})}
	n.nodes[name] = r
	n.wg.Go(func() {
		r.err = cmd.Wait()
		close(r.done)
	})
	pid, start := h.PID, h.Start
	return locked(n.registry, n.state.ID, func(s *State) error {
		h, err := s.Host(name)
		if err == nil {
			h.PID, h.Start = pid, start
		}
		return err
	})
}

// startNode starts `omega up` on a host, and notes its process in h.
func (s *State) startNode(h *Host) (*exec.Cmd, error) {
	log, err := os.OpenFile(h.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(s.Binary, "up")
	cmd.Args[0] = "omega"
	cmd.Stdout, cmd.Stderr = log, log
	if err := s.start(h, cmd); err != nil {
		return nil, fmt.Errorf("start the node of %s: %w", h.Name, err)
	}
	if p, err := processOf(cmd.Process.Pid); err == nil {
		h.PID, h.Start = p.PID, p.Start
	}
	return cmd, nil
}

// await polls a node until what it says of itself is good, it has died, or ctx ends.
func (n *Net) await(ctx context.Context, h *Host, good func(*apiv1.StatusResponse) bool) error {
	n.mu.Lock()
	r := n.nodes[h.Name]
	n.mu.Unlock()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	last := "it has not answered"
	for {
		status, err := h.status(ctx)
		if err == nil {
			if good(status) {
				return nil
			}
			last = fmt.Sprintf("synced %t, %d members, %d peers, roles %v", status.GetSynced(), status.GetMembers(), status.GetPeers(), status.GetRoles())
		}
		select {
		case <-tick.C:
		case <-r.done:
			return fmt.Errorf("the node of %s ended: %v: %s", h.Name, r.err, h.tail())
		case <-ctx.Done():
			return fmt.Errorf("the node of %s is not ready (%s): %w: %s", h.Name, last, context.Cause(ctx), h.tail())
		}
	}
}

// tail is the end of the node's log, for an error.
func (h *Host) tail() string {
	raw, err := os.ReadFile(h.Log)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(raw[max(0, len(raw)-logTail):]))
}
