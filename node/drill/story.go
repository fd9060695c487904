package drill

import (
	"fmt"
	"slices"
	"strings"

	apiv1 "github.com/omega-mesh/omega/node/api/v1"
	"github.com/omega-mesh/omega/node/testnet"
)

// introduce shows who is there.
func (d *drill) introduce() {
	s := &d.screen
	where := "each in a network namespace and cgroup of its own"
	if d.net.Mode() == testnet.ModeProcess {
		where = "as processes on loopback"
	}
	s.line("%s  %d hosts, %s; ready in %.1f s", s.paint(bold, "omega drill"), len(d.members), where, d.result.ReadyMS/1e3)
	s.line("")
	for _, h := range d.members {
		s.line("  %s %s %s", s.paint(accent, pad(h.Name, 4)), pad(h.Addr.String(), 14), s.paint(dim, strings.Join(h.Roles, " ")))
	}
	s.line("  %s %s %s", s.paint(bad, pad(d.attacker.Name, 4)), pad(d.attacker.Addr.String(), 14), s.paint(dim, "no member: the attacker"))
	for _, u := range d.result.Unforced {
		s.line("  %s %s", s.paint(warn, "!"), u)
	}
	s.line("")
}

func (d *drill) showStep(st Step) {
	s := &d.screen
	s.line("%s %s  %s", s.paint(bad, "▶"), st.Name, s.paint(dim, st.Technique))
	refused := ""
	if st.Refused {
		refused = "refused by the kernel of " + st.Host + ", and "
	}
	switch {
	case st.Detected:
		s.line("  %s %sseen by %s after %s ms: %s", s.paint(good, "✓"), refused, st.Host, s.paint(bold, fmt.Sprintf("%.1f", st.DetectMS)), st.Rule)
	case d.net.Mode() == testnet.ModeProcess:
		s.line("  %s not seen: that takes root", s.paint(warn, "!"))
	default:
		s.line("  %s %snot seen", s.paint(bad, "✗"), refused)
	}
}

// showBars draws a bar a host, as long as its kernel took to refuse the attacker. The caller holds the watch's lock.
func (d *drill) showBars(acted map[string]*apiv1.Receipt, t0 uint64, shown map[string]bool) {
	s := &d.screen
	took := func(r *apiv1.Receipt) float64 { return float64(int64(r.GetActed()-t0)) / 1e6 }
	slowest := 1.0
	for _, r := range acted {
		slowest = max(slowest, took(r))
	}
	lines := make([]string, len(d.members))
	for i, h := range d.members {
		r := acted[h.Name]
		if r == nil {
			lines[i] = fmt.Sprintf("    %s %s", s.paint(accent, pad(h.Name, 4)), s.paint(dim, strings.Repeat("·", barWidth)))
			continue
		}
		lines[i] = fmt.Sprintf("    %s %s %s  %s", s.paint(accent, pad(h.Name, 4)), s.paint(good, pad(bar(took(r), slowest), barWidth)),
			s.paint(bold, fmt.Sprintf("%6.1f ms", took(r))), s.paint(dim, kinds(r.GetMeans())))
		if !shown[h.Name] && !s.ansi {
			s.line("    %s refuses %s after %.1f ms: %s", pad(h.Name, 4), d.attacker.Addr, took(r), kinds(r.GetMeans()))
		}
		shown[h.Name] = true
	}
	s.block(lines)
}

// kinds says by which parts of the kernel a host refuses: "cgroup tcx" for cgroup-connect4, tcx-egress and so on.
func kinds(means []string) string {
	var out []string
	for _, m := range means {
		if kind, _, _ := strings.Cut(m, "-"); !slices.Contains(out, kind) {
			out = append(out, kind)
		}
	}
	return strings.Join(out, " + ")
}

// table shows the figures and the proof.
func (d *drill) table() {
	s, r := &d.screen, &d.result
	s.line("")
	if d.net.Mode() == testnet.ModeProcess {
		s.line("%s nothing can be refused in process mode; run as root to see it", s.paint(warn, "!"))
	} else {
		s.line("%s  from the attacker's first packet to the kernel's refusal", s.paint(bold, "Immunity time"))
		s.line("    min %s   p50 %s   p99 %s   max %s", d.ms(r.ImmunityMS.Min), d.ms(r.ImmunityMS.P50), d.ms(r.ImmunityMS.P99), d.ms(r.ImmunityMS.Max))
		s.line("")
		s.line("%s  the same connects as before the attack, which all succeeded then", s.paint(bold, "Proof"))
		s.line("    %s %s %s %s", pad("host", 4), pad("x1 → host", 24), pad("host → x1", 24), "to the next member")
	}
	for i, h := range r.Hosts {
		next := d.ring[i].verdict()
		s.line("    %s %s %s %s", s.paint(accent, pad(h.Host, 4)), s.mark(pad(h.Inbound, 24), h.Inbound != "connected"),
			s.mark(pad(h.Outbound, 24), h.Outbound != "connected"), s.mark(next, next == "connected"))
	}
	s.line("")
	if d.net.Mode() == testnet.ModeNetns {
		s.line("%s hosts of %d refuse the attacker; %s blocked that should not be", s.mark(fmt.Sprint(r.BlockedOn), r.BlockedOn == r.Nodes),
			r.Nodes, s.mark(fmt.Sprint(r.FalseBlocks), r.FalseBlocks == 0))
	}
	for _, n := range r.Notes {
		s.line("%s %s", s.paint(warn, "!"), n)
	}
}

func (d *drill) ms(v float64) string { return d.screen.paint(bold, fmt.Sprintf("%.1f ms", v)) }

func (s *screen) mark(text string, fine bool) string {
	if fine {
		return s.paint(good, text)
	}
	return s.paint(bad, text)
}
