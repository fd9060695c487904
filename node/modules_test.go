package node

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/omega-mesh/omega/modules"
	"github.com/omega-mesh/omega/modules/bundle"
	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
	"github.com/omega-mesh/omega/trust/authority"
)

// happenings lets a test say what happens on r's host: a recording that is written while the node runs.
func (r *rig) happenings() (happens func(exe string), end func()) {
	r.t.Helper()
	path := filepath.Join(filepath.Dir(r.dir), "events")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		r.t.Fatal(err)
	}
	pipe, err := os.OpenFile(path, os.O_RDWR, 0) // open for both: neither end waits for the other
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { pipe.Close() })
	r.cfg.Sensor = "replay:" + path
	n := uint32(0)
	return func(exe string) {
		n++
		e := event.Event{Time: 1764000000e9 + int64(n), Class: event.ClassProcess, Activity: event.ActivityExec}
		e.Process.Key, e.Process.Exe = event.ProcessKey{PID: 1000 + n, Start: uint64(n)}, exe
		line, err := ocsf.Encode(&e, r.name, "did:omega:x")
		if err == nil {
			_, err = pipe.Write(append(bytes.TrimSpace(line), '\n'))
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}, func() { pipe.Close() }
}

// publish adds a module to r's host, and has the operator release it.
func (r *rig) publish(m modules.Manifest, payload []byte) *apiv1.AddModuleResponse {
	r.t.Helper()
	b, err := bundle.New(m, payload, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	var file bytes.Buffer
	if err := b.Write(&file); err != nil {
		r.t.Fatal(err)
	}
	s, err := r.client.AddModule(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for part := range slices.Chunk(file.Bytes(), 64<<10) {
		if err := s.Send(&apiv1.AddModuleRequest{Part: part}); err != nil {
			r.t.Fatal(err)
		}
	}
	out, err := s.CloseAndReceive()
	if err != nil {
		r.t.Fatal(err)
	}
	r.operate(&authority.ModuleReleaseBody{Module: out.Digest, Name: out.Name, Version: out.Version})
	return out
}

// module is what r knows of one by its CID.
func (r *rig) module(cid string) *apiv1.Module {
	r.t.Helper()
	l, err := r.client.ListModules(r.t.Context(), &apiv1.ListModulesRequest{Module: cid})
	if err != nil || len(l.Modules) != 1 {
		return &apiv1.Module{}
	}
	return l.Modules[0]
}

// TestModuleTravels: published on one host it finds its event on another, without a restart; the publisher is gone, and
// one that joins later gets it from the others.
func TestModuleTravels(t *testing.T) {
	a, b := newRig(t, "a"), newRig(t, "b")
	a.found("lab")
	onB, _ := b.happenings()
	a.up()
	token := a.invite(2, []string{"sentinel"})
	b.join(token)
	b.up()
	eventually(t, "a and b are connected", func() bool { return a.status().Peers == 1 && b.status().Synced })
	token = a.invite(2, []string{"sentinel"}, b)
	lua := func(path string) []byte {
		return fmt.Appendf(nil, "function detect(e) if e.exe == '%s' then return {rule = 'seen', title = 'It ran', severity = 'high'} end end", path)
	}
	manifest := modules.Manifest{Name: "watch", Version: "1.0.0", Kind: modules.KindLua, ABI: 1}

	one := a.publish(manifest, lua("/opt/one"))
	if _, _, err := a.submit(&authority.DeployBody{Module: make([]byte, 32)}); err == nil {
		t.Error("what nobody released is deployed")
	}
	a.operate(&authority.DeployBody{Module: one.Digest, Roles: []string{"sentinel"}})
	eventually(t, "it runs on b, and a hears of it", func() bool {
		hosts := a.module(one.Cid).Hosts
		return b.module(one.Cid).State == "running" && len(hosts) == 1 && hosts[0].Host == "b" && hosts[0].State == "running"
	})
	if s := a.module(one.Cid).State; s != "kept" {
		t.Errorf("on a, which holds no role, it is %q", s)
	}
	onB("/opt/one")
	eventually(t, "a hears what it found on b", func() bool { return slices.Contains(a.findings(), "b module.watch.seen") })

	manifest.Version = "2.0.0"
	two := a.publish(manifest, lua("/opt/two"))
	a.operate(&authority.DeployBody{Module: two.Digest})
	eventually(t, "the later version runs on b", func() bool { return b.module(two.Cid).State == "running" && b.module(one.Cid).State == "kept" })

	a.stop()
	c := newRig(t, "c")
	onC, endC := c.happenings()
	c.join(token)
	c.up()
	eventually(t, "c runs what only b could give it", func() bool { return c.module(two.Cid).State == "running" })
	onC("/opt/two")
	eventually(t, "b hears what it found on c", func() bool { return slices.Contains(b.findings(), "c module.watch.seen") })

	// What traps is taken out, and said; what ran before goes on.
	endC()
	c.stop()
	a.up()
	eventually(t, "a is back", func() bool { return a.status().Peers == 1 && a.status().Synced })
	manifest.Version = "3.0.0"
	bad := a.publish(manifest, []byte("function detect(e) error('no') end"))
	a.operate(&authority.DeployBody{Module: bad.Digest})
	eventually(t, "the bad version runs on b", func() bool { return b.module(bad.Cid).State == "running" })
	for range 3 {
		onB("/opt/any")
	}
	eventually(t, "it is taken out, everybody hears of it, and version 2 is back", func() bool {
		m := a.module(bad.Cid)
		return slices.Contains(a.findings(), "b omega.module.stopped") && b.module(two.Cid).State == "running" &&
			len(m.Hosts) == 1 && m.Hosts[0].State == "stopped" && strings.Contains(m.Hosts[0].Why, "no")
	})
	if s, err := b.client.AddModule(context.Background()); err != nil {
		t.Error(err)
	} else if _ = s.Send(&apiv1.AddModuleRequest{Part: []byte("rubbish")}); true {
		if _, err := s.CloseAndReceive(); err == nil {
			t.Error("rubbish is taken for a module")
		}
	}
}
