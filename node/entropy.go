package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/trust/entropy"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/tpm"
)

// seedTime is how long the start of a node waits for its TPM's random bytes: a second or two of a slow chip.
const seedTime = 5 * time.Second

// Seed is what a device gave to a node's random bytes before the node, which may not reach the device, was started.
type Seed struct {
	Bytes []byte // nil where no device was asked, or it failed
	From  string // "tpm"; empty where there is none
	Fault string // why it was dropped
}

// generator is a token that gives random bytes.
type generator interface {
	Random(ctx context.Context, p []byte) error
}

// Entropy opens the source of a new key's random bytes: the kernel's and the processor's, with those of the TPM that cfg
// names or this host has, and of the store that will keep the key. The caller calls what is returned with it, which says
// which sources were dropped.
func Entropy(ctx context.Context, cfg *config.Config, store identity.Store) (*entropy.Reader, func() []string, error) {
	sources := []entropy.Source{entropy.Jitter()}
	closeDevice := func() {}
	if s, ok := store.(*tpm.Store); ok {
		sources = append(sources, entropy.Device("tpm", s.Device.Random))
	} else if d, err := openTPM(ctx, cfg); d != nil || err != nil {
		if err == nil {
			closeDevice = func() { _ = d.Close() }
		}
		sources = append(sources, entropy.Device("tpm", func(ctx context.Context, p []byte) error {
			if err != nil {
				return err
			}
			return d.Random(ctx, p)
		}))
	}
	if g, ok := store.(generator); ok {
		sources = append(sources, entropy.Device("token", g.Random))
	}
	r, err := entropy.Open(ctx, nil, sources...)
	if err != nil {
		closeDevice()
		return nil, nil, err
	}
	return r, func() []string {
		dropped := droppedSources(r.Status())
		_ = r.Close()
		closeDevice()
		return dropped
	}, nil
}

// openTPM opens the TPM that cfg names; where it names none, this host's, or nil where that is not there or not this
// user's to open.
func openTPM(ctx context.Context, cfg *config.Config) (*tpm.Device, error) {
	d, err := tpm.Open(ctx, cfg.TPM)
	if cfg.TPM == "" && (errors.Is(err, tpm.ErrNone) || errors.Is(err, os.ErrPermission)) {
		return nil, nil
	}
	return d, err
}

func droppedSources(all []entropy.Status) (dropped []string) {
	for _, s := range all {
		if s.Failed != nil {
			dropped = append(dropped, fmt.Sprintf("%s: %v", s.Name, s.Failed))
		}
	}
	return dropped
}

// drawSeed asks the TPM for a node that will not reach it. That it gives none is told, and keeps nobody from starting.
func drawSeed(ctx context.Context, cfg *config.Config) Seed {
	ctx, cancel := context.WithTimeout(ctx, seedTime)
	defer cancel()
	s := Seed{From: "tpm"}
	d, err := openTPM(ctx, cfg)
	if err != nil {
		s.Fault = err.Error()
		return s
	}
	if d == nil {
		return Seed{}
	}
	defer d.Close()
	r, err := entropy.Open(ctx, nil, entropy.Device("tpm", d.Random))
	if err != nil {
		s.Fault = err.Error()
		return s
	}
	defer r.Close()
	b := make([]byte, 64)
	if _, err := r.Read(b); err != nil {
		s.Fault = err.Error()
		return s
	}
	if err := r.Status()[1].Failed; err != nil {
		s.Fault = err.Error()
		return s
	}
	s.Bytes = b
	return s
}

// randomness is doctor's check of where this host's keys come from.
func (n *Node) randomness() (ok bool, detail, lost string) {
	var good []string
	all := n.entropy.Status()
	for _, s := range all {
		if s.Failed == nil {
			good = append(good, s.Name)
		}
	}
	dropped := droppedSources(all)
	switch seed := n.parts.Seed; {
	case seed.Fault != "":
		dropped = append(dropped, seed.From+": "+seed.Fault)
	case seed.From != "":
		good = append(good, seed.From)
	}
	detail = "mixed from " + strings.Join(good, ", ")
	if len(dropped) == 0 {
		return true, detail + ", each under the health tests of SP 800-90B", ""
	}
	lost = "nothing while the kernel's source is sound; keys no longer come from " + strings.Join(dropped, "; ")
	if all[0].Failed != nil {
		lost = "this node makes no key any more, and soon signs nothing: " + strings.Join(dropped, "; ")
	}
	return false, detail + "; dropped: " + strings.Join(dropped, "; "), lost
}
