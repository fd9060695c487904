package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	"github.com/omega-mesh/omega/modules/wasm"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/client"
	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust/authority"
)

// ModuleBenchmarks are the figures of modules in a swarm. They start ten nodes, so they are no part of the tests.
func ModuleBenchmarks() []event.Benchmark {
	return []event.Benchmark{
		{Name: "modules/spread-10", Unit: "s", Limit: 2, Measure: func() (float64, error) { return measureSpread(10, 1<<20) }},
	}
}

// spread is a swarm of nodes in this process, on loopback.
type spread struct {
	clients []*client.Client
	ends    []func() error
}

func (s *spread) close() (err error) {
	for _, end := range slices.Backward(s.ends) {
		err = errors.Join(err, end())
	}
	return err
}

// up starts a node on a folder and waits until it is ready.
func (s *spread) up(ctx context.Context, dir string) error {
	cfg := config.Default(dir)
	cfg.Listen, cfg.MDNS, cfg.Split, cfg.Sensor, cfg.Decoys = []string{"/ip4/127.0.0.1/tcp/0"}, false, false, "off", nil
	ctx, cancel := context.WithCancel(ctx)
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Up(ctx, cfg, UpOptions{Log: io.Discard, Ready: func() { close(ready) }}) }()
	select {
	case <-ready:
	case err := <-done:
		cancel()
		return errors.Join(errors.New("a node ended before it was ready"), err)
	}
	c := client.New(dir)
	s.clients = append(s.clients, c)
	s.ends = append(s.ends, func() error { c.Close(); cancel(); return <-done })
	return nil
}

// measureSpread is the time from the operator's release and deployment of a module of size bytes, which one node has, to
// its running on all n.
func measureSpread(n, size int) (seconds float64, err error) {
	base, err := os.MkdirTemp("", "omega-bench-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(base)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var s spread
	defer func() { err = errors.Join(err, s.close()) }()
	first := filepath.Join(base, "n0", "d") // the next key lies beside it
	if _, err := Init(first, InitOptions{Name: "n0", Swarm: "bench", Roles: []string{"sentinel"}}); err != nil {
		return 0, err
	}
	if err := s.up(ctx, first); err != nil {
		return 0, err
	}
	op, err := s.clients[0].OpenOperator(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer op.Close()
	self, err := s.clients[0].Status(ctx, &apiv1.StatusRequest{})
	if err != nil {
		return 0, err
	}
	g, err := loadGenesis(Layout{first})
	if err != nil {
		return 0, err
	}
	token, invite, err := authority.NewInvite(g.SwarmID(), op.DID(), authority.InviteOptions{Suite: g.Suite, Roles: []string{"sentinel"}, Uses: n, Addrs: self.Addrs[:1]})
	if err != nil {
		return 0, err
	}
	if _, err := op.Submit(ctx, invite); err != nil {
		return 0, err
	}
	for i := 1; i < n; i++ {
		dir := filepath.Join(base, fmt.Sprint("n", i), "d")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return 0, err
		}
		if _, err := Join(ctx, dir, token.Secret(), JoinOptions{Name: fmt.Sprint("n", i)}); err != nil {
			return 0, err
		}
		if err := s.up(ctx, dir); err != nil {
			return 0, err
		}
	}
	if err := s.until(ctx, func(c *client.Client) (bool, error) {
		st, err := c.Status(ctx, &apiv1.StatusRequest{})
		return err == nil && int(st.Peers) == n-1, err
	}); err != nil {
		return 0, err
	}
	digest, err := s.add(ctx, size)
	if err != nil {
		return 0, err
	}
	began := time.Now()
	if _, err := op.Submit(ctx, &authority.ModuleReleaseBody{Module: digest}); err != nil {
		return 0, err
	}
	if _, err := op.Submit(ctx, &authority.DeployBody{Module: digest}); err != nil {
		return 0, err
	}
	err = s.until(ctx, func(c *client.Client) (bool, error) {
		l, err := c.ListModules(ctx, &apiv1.ListModulesRequest{})
		if err == nil && len(l.Modules) == 1 && l.Modules[0].State == "stopped" {
			err = fmt.Errorf("the module does not run: %s", l.Modules[0].Why)
		}
		return err == nil && len(l.Modules) == 1 && l.Modules[0].State == "running", err
	})
	return time.Since(began).Seconds(), err
}

// add gives the first node a module whose payload is size bytes that do not compress.
func (s *spread) add(ctx context.Context, size int) ([]byte, error) {
	b, err := bundle.New(modules.Manifest{Name: "bench", Version: "1.0.0", Kind: modules.KindWASM, ABI: 1}, wasm.GuestOfSize(size), nil)
	if err != nil {
		return nil, err
	}
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		return nil, err
	}
	stream, err := s.clients[0].AddModule(ctx)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(file.Bytes(), 64<<10) {
		if err := stream.Send(&apiv1.AddModuleRequest{Part: part}); err != nil {
			return nil, err
		}
	}
	out, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return out.Digest, nil
}

// until asks each node in turn until it says yes.
func (s *spread) until(ctx context.Context, ok func(*client.Client) (bool, error)) error {
	for _, c := range s.clients {
		for {
			yes, err := ok(c)
			if err != nil {
				return err
			}
			if yes {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}
