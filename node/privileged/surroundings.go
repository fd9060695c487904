package privileged

import (
	"context"
	"time"
)

// surroundingsEvery is how often the host's network configuration is read again.
const surroundingsEvery = 10 * time.Second

// Watch keeps the rails in step with this host's own addresses, gateways and resolvers until ctx ends. The first reading
// is done by NewHost.
func (h *Host) Watch(ctx context.Context) {
	tick := time.NewTicker(surroundingsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.look()
		}
	}
}

// look reads the network configuration. What cannot be read keeps its last value: a rail is never lowered by a fault.
func (h *Host) look() {
	if err := h.opt.Rails.Refresh(); err != nil {
		h.opt.Log.Warn("guard rails keep what they knew of this host's network", "err", err)
	}
}
