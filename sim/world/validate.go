package world

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// day is the period of people's habits.
const day = Duration(24 * time.Hour)

// until is when u's work ends.
func (u *User) until() Duration {
	if u.Until == 0 {
		return day
	}
	return u.Until
}

// shift is how long u works a day.
func (u *User) shift() Duration { return u.until() - u.From }

// Validate says what is wrong with s, if anything.
func (s *Scenario) Validate() error {
	if err := positive("duration", s.Duration); err != nil {
		return err
	}
	if len(s.Hosts) == 0 || len(s.Hosts) > MaxHosts {
		return fmt.Errorf("%d hosts; from 1 to %d", len(s.Hosts), MaxHosts)
	}
	if len(s.Attackers) > MaxAttackers {
		return fmt.Errorf("%d attackers; at most %d", len(s.Attackers), MaxAttackers)
	}
	if len(s.Name) > maxName {
		return fmt.Errorf("the name %q is longer than %d bytes", clip(s.Name), maxName)
	}
	for _, l := range []struct {
		what  string
		n, at int
	}{{"links", len(s.Links), MaxLinks}, {"credentials", len(s.Credentials), MaxSecrets}, {"users", len(s.Users), MaxUsers}} {
		if l.n > l.at {
			return fmt.Errorf("%d %s; at most %d", l.n, l.what, l.at)
		}
	}
	hosts, zones, accounts := map[string]bool{}, map[string]bool{}, map[string]bool{}
	addresses := map[netip.Addr]string{}
	address := func(who, text string) error {
		if text == "" {
			return nil
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%s: address %q: %w", who, clip(text), err)
		}
		if other := addresses[a]; other != "" {
			return fmt.Errorf("%s: address %s is also that of %s", who, a, other)
		}
		addresses[a] = who
		return nil
	}
	for i := range s.Hosts {
		h := &s.Hosts[i]
		if h.Name == "" || len(h.Name) > maxName || hosts[h.Name] {
			return fmt.Errorf("host %d: the name %q is empty, too long or taken", i+1, clip(h.Name))
		}
		hosts[h.Name], zones[h.Zone] = true, true
		if err := h.validate(); err != nil {
			return fmt.Errorf("host %q: %w", h.Name, err)
		}
		if err := address(fmt.Sprintf("host %q", h.Name), h.Address); err != nil {
			return err
		}
		for _, a := range h.Accounts {
			accounts[a.Name] = true
		}
	}
	for _, a := range s.Attackers {
		who := fmt.Sprintf("attacker %q", clip(a.Name))
		if a.Name == "" || len(a.Name) > maxName || a.Zone == "" || len(a.Zone) > maxName {
			return fmt.Errorf("%s: no name or no zone, or too long", who)
		}
		zones[a.Zone] = true
		if err := address(who, a.Address); err != nil {
			return err
		}
		if err := positive(who+": pace", a.Pace); err != nil {
			return err
		}
		if a.Start < 0 || time.Duration(a.Start) > maxDuration {
			return fmt.Errorf("%s: start is %s; from 0 to a year", who, time.Duration(a.Start))
		}
	}
	if len(zones) > MaxZones {
		return fmt.Errorf("%d zones; at most %d", len(zones), MaxZones)
	}
	for _, l := range s.Links {
		for _, z := range []string{l.From, l.To} {
			if !zones[z] {
				return fmt.Errorf("link %q to %q: no host and no attacker is in zone %q%s", clip(l.From), clip(l.To), clip(z), Nearest(z, zones))
			}
		}
		if slices.Contains(l.Ports, 0) {
			return fmt.Errorf("link %q to %q: there is no port 0", l.From, l.To)
		}
	}
	known := func(who string, names []string) error {
		for _, n := range names {
			if !hosts[n] {
				return fmt.Errorf("%s: no host %q%s", who, clip(n), Nearest(n, hosts))
			}
		}
		return nil
	}
	owner := func(who, account string) error {
		if account != "" && !accounts[account] {
			return fmt.Errorf("%s: no host has an account %q%s", who, clip(account), Nearest(account, accounts))
		}
		return nil
	}
	for _, c := range s.Credentials {
		who := fmt.Sprintf("credential %q", clip(c.Name))
		if c.Name == "" || len(c.Name) > maxName {
			return fmt.Errorf("%s: no name, or too long a one", who)
		}
		if err := known(who, slices.Concat(c.On, c.Opens)); err != nil {
			return err
		}
		if err := owner(who, c.Account); err != nil {
			return err
		}
	}
	for i, u := range s.Users {
		who := fmt.Sprintf("user %d", i+1)
		if err := known(who, append([]string{u.Host}, u.To...)); err != nil {
			return err
		}
		if err := positive(who+": each", u.Each); err != nil {
			return err
		}
		if len(u.To) == 0 {
			return fmt.Errorf("%s logs on nowhere", who)
		}
		if err := owner(who, u.Account); err != nil {
			return err
		}
		if end := u.until(); u.From < 0 || end > day || u.From >= end {
			return fmt.Errorf("%s works from %s until %s; a day has 24h", who, time.Duration(u.From), time.Duration(end))
		}
	}
	for _, d := range []struct {
		name string
		d    Duration
	}{{"immunity", s.Response.Immunity}, {"lifetime", s.Response.Lifetime}, {"window", s.Response.Window}} {
		if d.d < 0 || time.Duration(d.d) > maxDuration {
			return fmt.Errorf("response: %s is %s; from 0 to a year", d.name, time.Duration(d.d))
		}
	}
	return nil
}

func positive(what string, d Duration) error {
	if d < Duration(time.Millisecond) || time.Duration(d) > maxDuration {
		return fmt.Errorf("%s is %s; from 1ms to a year", what, time.Duration(d))
	}
	return nil
}

func probability(what string, p float64) error {
	if !(p >= 0 && p <= 1) { // NaN too
		return fmt.Errorf("%s is %v; from 0 to 1", what, p)
	}
	return nil
}

// validate says what is wrong with h, its name and address apart.
func (h *Host) validate() error {
	if h.Zone == "" || len(h.Zone) > maxName {
		return errors.New("no zone, or too long a name for one")
	}
	if !(h.Value >= 0 && h.Value <= 1e9) { // NaN too
		return fmt.Errorf("value is %v; from 0 to 1e9", h.Value)
	}
	for _, p := range []struct {
		name string
		p    float64
	}{{"escalate", h.Escalate}, {"detect", h.Detect}, {"false_rate", h.FalseRate}} {
		if err := probability(p.name, p.p); err != nil {
			return err
		}
	}
	if len(h.Services)+len(h.Decoys) > MaxServices {
		return fmt.Errorf("more than %d services and decoys", MaxServices)
	}
	if len(h.Accounts) > MaxAccounts || len(h.Vulnerabilities) > MaxHoles {
		return fmt.Errorf("more than %d accounts or %d vulnerabilities", MaxAccounts, MaxHoles)
	}
	ports := map[uint16]bool{}
	for _, v := range h.Services {
		if v.Port == 0 || ports[v.Port] || len(v.Name) > maxName || len(v.Vulnerability) > maxName {
			return fmt.Errorf("service %q: port %d is 0 or taken, or a name is too long", clip(v.Name), v.Port)
		}
		ports[v.Port] = true
		if err := probability(fmt.Sprintf("service %q: exploit", clip(v.Name)), v.Exploit); err != nil {
			return err
		}
		if err := gives(v.Gives); err != nil {
			return fmt.Errorf("service %q %w", clip(v.Name), err)
		}
	}
	for _, v := range h.Vulnerabilities {
		who := fmt.Sprintf("vulnerability %q", clip(v.ID))
		switch {
		case v.ID == "" || len(v.ID) > maxName || len(v.Package) > maxName:
			return fmt.Errorf("%s: no identifier, or too long a one", who)
		case v.Port != 0 && !ports[v.Port]:
			return fmt.Errorf("%s: no service listens on %d", who, v.Port)
		case v.Port == 0 && v.Gives == "user":
			return fmt.Errorf("%s: without a port it can only give root", who)
		}
		if err := gives(v.Gives); err != nil {
			return fmt.Errorf("%s %w", who, err)
		}
		if err := probability(who+": exploit", v.Exploit); err != nil {
			return err
		}
	}
	for _, p := range h.Decoys {
		if p == 0 || ports[p] {
			return fmt.Errorf("a decoy cannot listen on %d: it is 0 or taken", p)
		}
		ports[p] = true
	}
	names := map[string]bool{}
	for _, a := range h.Accounts {
		if a.Name == "" || len(a.Name) > maxName || names[a.Name] {
			return fmt.Errorf("account %q: the name is empty, too long or taken", clip(a.Name))
		}
		names[a.Name] = true
	}
	return nil
}

func gives(what string) error {
	if what != "" && what != "user" && what != "root" {
		return fmt.Errorf("gives %q; user or root", clip(what))
	}
	return nil
}
