// Package config is what a node is told: one struct of settings, each with a default, a line in omega.yaml, an
// OMEGA_… variable and, where the command line offers one, a flag. It remembers where each value came from, and it
// refuses a key it does not know by naming the nearest one it does.
//
// It decides nothing: what a setting means is said by the part that is given it.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrInvalid is wrapped by every error about a value or a key.
var ErrInvalid = errors.New("invalid setting")

// Modes a node may be started in. Panic is reached by command only.
const (
	ModeObserve = "observe" // says what it would have done
	ModeEnforce = "enforce" // acts in the kernel
	ModePanic   = "panic"   // released everything, watches on
	// ModeReadOnly is observe on a host that nothing may be changed on: no program that could refuse is loaded, and nothing
	// is written but to the state folder.
	ModeReadOnly = "read-only"
)

// Bounds of list settings: what a person may reasonably write, and no more.
const (
	MaxList  = 256
	MaxValue = 512 // bytes of one string
)

// Config is every setting of a node. Dir and File say where it lives; the rest may be written in File.
type Config struct {
	// Dir is the state folder.
	Dir string `koanf:"-"`
	// File is the omega.yaml that was read; empty when there was none.
	File string `koanf:"-"`

	// Mode is observe (the default: a real host first says what it would do), enforce, or read-only.
	Mode string `koanf:"mode"`
	// Listen holds the swarm's listen addresses as multiaddrs; QUIC and TCP only.
	Listen []string `koanf:"listen"`
	// Bootstrap holds addresses of members to try first, as multiaddrs with or without /p2p/….
	Bootstrap []string `koanf:"bootstrap"`
	// MDNS says whether members are sought on the local network.
	MDNS bool `koanf:"mdns"`
	// Decoys are the services a decoy role serves: "tcp/2323" or "telnet@2323".
	Decoys []string `koanf:"decoys"`
	// Allow lists addresses, prefixes and paths that no response may touch on this host.
	Allow []string `koanf:"allow"`
	// Sensor is auto (the kernel where it lets us, else procfs), kernel, procfs or off; replay:FILE gives what was recorded
	// in that file, and acts on nothing.
	Sensor string `koanf:"sensor"`
	// ReplayInStep gives a recording with the time between its events that there was; off is as fast as it is taken.
	ReplayInStep bool `koanf:"replay_in_step"`
	// Logs are the files that tell of log-ons, sudo, jobs and services, or the one word journal; auto is journald where it
	// runs and the classic files elsewhere, of a whole host; off reads none. A node with a cgroup follows what it is told alone.
	Logs []string `koanf:"logs"`
	// Rules are folders and files of Sigma rules that this host's events are matched with, by absolute path; at most 256.
	Rules []string `koanf:"rules"`
	// YaraRules are files and folders of YARA rules that dropped and quarantined files are matched with, by absolute path; at most
	// 256. It takes a build with the tag yara; others say so in the doctor.
	YaraRules []string `koanf:"yara_rules"`
	// Pack says whether the detections that come with the program are used.
	Pack bool `koanf:"pack"`
	// IndicatorSources are what this host looks for, visited every IndicatorRefresh seconds (60 to 604800): files and folders by
	// absolute path, lists by https://…, TAXII 2.1 servers by taxii+https://…#COLLECTION; at most 256. IndicatorMiB bounds the
	// memory they take: 8 to 16384. A source that asks for a password is added by `omega indicators add`.
	IndicatorSources []string `koanf:"indicator_sources"`
	IndicatorRefresh int      `koanf:"indicator_refresh_s"`
	IndicatorMiB     int      `koanf:"indicator_mib"`
	// Cgroup limits what is seen and stopped to one cgroup v2 folder; empty is the whole host.
	Cgroup string `koanf:"cgroup"`
	// FilterCgroups, FilterUIDs and FilterPaths say whose doings and which are not told: cgroup v2 folders, user ids, folders. FilterRate is how many records a second one cgroup may have told; 0 is no limit.
	// At most 256 values each. Refusals, and what is done to the agent, are told all the same.
	FilterCgroups []string `koanf:"filter_cgroups"`
	FilterUIDs    []string `koanf:"filter_uids"`
	FilterPaths   []string `koanf:"filter_paths"`
	FilterRate    int      `koanf:"filter_rate"`
	// IntegrityPaths are files and folders whose changes are told with what they were before; the one word auto is the places
	// where a Linux host says what it starts and who may enter, and off is none. A node with a cgroup, or without root, watches
	// what it is told alone.
	IntegrityPaths []string `koanf:"integrity_paths"`
	// IntegrityExclude are paths below those that are left out; auto is some that change by themselves.
	IntegrityExclude []string `koanf:"integrity_exclude"`
	// IntegrityMiBs bounds what scans of them read a second, in MiB: 1 to 10000.
	IntegrityMiBs int `koanf:"integrity_mib_s"`
	// Interfaces are those packets are refused on; empty is every interface that is up but loopback.
	Interfaces []string `koanf:"interfaces"`
	// Split says whether root runs the node as two processes; off is for tests and containers without a second uid.
	Split bool `koanf:"split"`
	// Window is how many findings and how many receipts the node keeps in memory for the API: 100 to 1,000,000.
	Window int `koanf:"window"`
	// RetentionDays and RetentionMiB are how long and how much of what peers found and did is kept on disk: 1 to 3650 days,
	// 64 MiB to 1 TiB. Nothing of the last day goes, and nothing that too few peers witnessed; who may do what is kept
	// for ever.
	RetentionDays int `koanf:"retention_days"`
	RetentionMiB  int `koanf:"retention_mib"`
	// SilentAfter is how many seconds another sentinel may be gone without a word before this one says so: 2 to 3600.
	SilentAfter int `koanf:"silent_after_s"`
	// JournalMiB is how much of what this host saw is kept on its disk: 8 MiB to 1 TiB; 0, the default, is 2048 or a tenth of
	// the disk, whichever is less. The oldest goes first, and also where the disk has less free than is reserved.
	JournalMiB int `koanf:"journal_mib"`
	// Labels are what this host calls itself, for deployments: lower-case letters, digits and '-', at most 32 bytes each.
	Labels []string `koanf:"labels"`
	// ModulesMiB is how much disk the modules of the swarm may take: 16 MiB to 64 GiB.
	ModulesMiB int `koanf:"modules_mib"`
	// ModuleReleasers is how many operators, or members with the credential, must have released a module before it runs
	// here: 1 to 16. What the root released needs no other.
	ModuleReleasers int `koanf:"module_releasers"`
	// ReservedDisk is the free space in MiB under which the node reports a full disk.
	ReservedDisk int `koanf:"reserved_disk_mib"`
	// PassphraseFile holds the passphrase of the identity key, where one was set; empty asks for none.
	PassphraseFile string `koanf:"passphrase_file"`
	// TPM is the device, or an emulator's socket, of the TPM that keeps the identity key or adds to its entropy; empty takes
	// /dev/tpmrm0 where it is.
	TPM string `koanf:"tpm"`
	// PKCS11Module is the library of the token that keeps the identity key, PKCS11Token the token's label and PKCS11PINFile
	// the file with its PIN. They come from here and never from the state folder: root loads that library.
	PKCS11Module  string `koanf:"pkcs11_module"`
	PKCS11Token   string `koanf:"pkcs11_token"`
	PKCS11PINFile string `koanf:"pkcs11_pin_file"`
	// LogLevel is debug, info, warn or error; LogFormat is text or json.
	LogLevel  string `koanf:"log_level"`
	LogFormat string `koanf:"log_format"`

	origin map[string]string
}

// Default is the configuration of a node that was told nothing.
func Default(dir string) *Config {
	return &Config{
		Dir:              dir,
		Mode:             ModeObserve,
		Listen:           []string{"/ip4/0.0.0.0/udp/7946/quic-v1", "/ip4/0.0.0.0/tcp/7946", "/ip6/::/udp/7946/quic-v1", "/ip6/::/tcp/7946"},
		MDNS:             true,
		Decoys:           []string{"tcp/2323"},
		Sensor:           "auto",
		Logs:             []string{"auto"},
		Pack:             true,
		Split:            true,
		Window:           10_000,
		SilentAfter:      30,
		ReservedDisk:     64,
		IndicatorRefresh: 3600,
		IndicatorMiB:     512,
		ModulesMiB:       256, ModuleReleasers: 1,
		IntegrityPaths: []string{"auto"}, IntegrityExclude: []string{"auto"}, IntegrityMiBs: 16,
		RetentionDays: 30,
		RetentionMiB:  1024,
		LogLevel:      "info",
		LogFormat:     "text",
	}
}

// Setting is one value and where it came from, for `omega config show --origin`.
type Setting struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"` // "default", the file's path, "OMEGA_MODE", "--mode"
}

// Settings lists every key in the order of the struct.
func (c *Config) Settings() []Setting {
	out := make([]Setting, 0, 20)
	for _, f := range fields(c) {
		o := c.origin[f.key]
		if o == "" {
			o = "default"
		}
		out = append(out, Setting{Key: f.key, Value: f.value.Interface(), Origin: o})
	}
	return out
}

// Asked says whether key was given by a flag: the person who starts the node said so now.
func (c *Config) Asked(key string) bool { return strings.HasPrefix(c.origin[key], "--") }

// Replay is the recording that is seen instead of this host, "" if none.
func (c *Config) Replay() string {
	file, ok := strings.CutPrefix(c.Sensor, "replay:")
	if !ok {
		return ""
	}
	return file
}

func (c *Config) checkSensor() error {
	if c.Replay() != "" && len(c.Sensor) <= MaxValue || slices.Contains([]string{"auto", "kernel", "procfs", "off"}, c.Sensor) {
		return nil
	}
	return fmt.Errorf("%w: sensor: %q is not one of auto, kernel, procfs, off, replay:FILE", ErrInvalid, c.Sensor)
}

// Validate checks every value; the error wraps ErrInvalid and names the key.
func (c *Config) Validate() error {
	bad := func(key, format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrInvalid, key, fmt.Sprintf(format, args...))
	}
	oneOf := func(key, v string, allowed ...string) error {
		for _, a := range allowed {
			if v == a {
				return nil
			}
		}
		return bad(key, "%q is not one of %s", v, strings.Join(allowed, ", "))
	}
	if err := errors.Join(
		oneOf("mode", c.Mode, ModeObserve, ModeEnforce, ModeReadOnly),
		c.checkSensor(),
		oneOf("log_level", c.LogLevel, "debug", "info", "warn", "error"),
		oneOf("log_format", c.LogFormat, "text", "json"),
	); err != nil {
		return err
	}
	for key, list := range map[string][]string{"listen": c.Listen, "bootstrap": c.Bootstrap, "decoys": c.Decoys, "allow": c.Allow, "interfaces": c.Interfaces, "logs": c.Logs, "rules": c.Rules, "yara_rules": c.YaraRules, "indicator_sources": c.IndicatorSources, "labels": c.Labels,
		"filter_cgroups": c.FilterCgroups, "filter_uids": c.FilterUIDs, "filter_paths": c.FilterPaths, "integrity_paths": c.IntegrityPaths, "integrity_exclude": c.IntegrityExclude} {
		if len(list) > MaxList {
			return bad(key, "%d values, more than %d", len(list), MaxList)
		}
		for _, v := range list {
			if v == "" || len(v) > MaxValue {
				return bad(key, "a value is empty or longer than %d bytes", MaxValue)
			}
		}
	}
	for key, list := range map[string][]string{"listen": c.Listen, "bootstrap": c.Bootstrap} {
		for _, v := range list {
			if !strings.HasPrefix(v, "/") {
				return bad(key, "%q is not a multiaddr such as /ip4/0.0.0.0/udp/7946/quic-v1", v)
			}
		}
	}
	if len(c.Listen) == 0 {
		return bad("listen", "at least one address is needed")
	}
	for _, v := range c.Decoys {
		if _, _, err := ParseDecoy(v); err != nil {
			return bad("decoys", "%v", err)
		}
	}
	for _, v := range c.Allow {
		if err := CheckAllow(v); err != nil {
			return bad("allow", "%v", err)
		}
	}
	for _, v := range c.Logs {
		if word := v == "auto" || v == "off" || v == "journal"; !word && !filepath.IsAbs(v) || word && len(c.Logs) > 1 {
			return bad("logs", "%q: want absolute paths, or one of auto, journal, off by itself", v)
		}
	}
	for key, list := range map[string][]string{"integrity_paths": c.IntegrityPaths, "integrity_exclude": c.IntegrityExclude} {
		if len(list) > 128 {
			return bad(key, "%d values, more than 128", len(list))
		}
		for _, v := range list {
			word := v == "auto" || v == "off"
			if word && len(list) == 1 {
				continue
			}
			if word || !filepath.IsAbs(v) || filepath.Clean(v) != v || len(v) > 246 {
				return bad(key, "%q: want clean absolute paths of at most 246 bytes, or one of auto, off by itself", v)
			}
		}
	}
	if c.IntegrityMiBs < 1 || c.IntegrityMiBs > 10_000 {
		return bad("integrity_mib_s", "%d is not within 1 and 10000", c.IntegrityMiBs)
	}
	for key, path := range map[string]string{"tpm": c.TPM, "pkcs11_module": c.PKCS11Module, "pkcs11_pin_file": c.PKCS11PINFile} {
		if path != "" && !filepath.IsAbs(path) {
			return bad(key, "%q is not an absolute path", path)
		}
	}
	for key, list := range map[string][]string{"rules": c.Rules, "yara_rules": c.YaraRules} {
		for _, v := range list {
			if !filepath.IsAbs(v) {
				return bad(key, "%q is not an absolute path", v)
			}
		}
	}
	for _, v := range c.IndicatorSources {
		if !filepath.IsAbs(v) && !strings.HasPrefix(v, "https://") && !strings.HasPrefix(v, "taxii+https://") {
			return bad("indicator_sources", "%q is neither an absolute path nor begins with https:// or taxii+https://", v)
		}
	}
	if c.IndicatorRefresh < 60 || c.IndicatorRefresh > 604_800 {
		return bad("indicator_refresh_s", "%d is not within 60 and 604800", c.IndicatorRefresh)
	}
	if c.IndicatorMiB < 8 || c.IndicatorMiB > 16<<10 {
		return bad("indicator_mib", "%d is not within 8 and %d", c.IndicatorMiB, 16<<10)
	}
	for key, list := range map[string][]string{"filter_cgroups": c.FilterCgroups, "filter_paths": c.FilterPaths} {
		for _, v := range list {
			if !filepath.IsAbs(v) || filepath.Clean(v) != v || len(v) > 246 {
				return bad(key, "%q is not a clean absolute path of at most 246 bytes", v)
			}
		}
	}
	for key, list := range map[string]struct {
		values []string
		bits   int
	}{"filter_uids": {c.FilterUIDs, 32}} {
		for _, v := range list.values {
			if _, err := strconv.ParseUint(v, 10, list.bits); err != nil {
				return bad(key, "%q is not a number of %d bits", v, list.bits)
			}
		}
	}
	if c.FilterRate < 0 || c.FilterRate > 10_000_000 {
		return bad("filter_rate", "%d is not within 0 and 10000000", c.FilterRate)
	}
	if c.Cgroup != "" && !filepath.IsAbs(c.Cgroup) {
		return bad("cgroup", "%q is not an absolute path", c.Cgroup)
	}
	if c.Window < 100 || c.Window > 1_000_000 {
		return bad("window", "%d is not within 100 and 1000000", c.Window)
	}
	if c.RetentionDays < 1 || c.RetentionDays > 3650 {
		return bad("retention_days", "%d is not within 1 and 3650", c.RetentionDays)
	}
	if c.RetentionMiB < 64 || c.RetentionMiB > 1<<20 {
		return bad("retention_mib", "%d is not within 64 and %d", c.RetentionMiB, 1<<20)
	}
	if c.SilentAfter < 2 || c.SilentAfter > 3600 {
		return bad("silent_after_s", "%d is not within 2 and 3600", c.SilentAfter)
	}
	if c.JournalMiB != 0 && c.JournalMiB < 8 || c.JournalMiB > 1<<20 {
		return bad("journal_mib", "%d is neither 0 nor within 8 and %d", c.JournalMiB, 1<<20)
	}
	if c.ModulesMiB < 16 || c.ModulesMiB > 64<<10 {
		return bad("modules_mib", "%d is not within 16 and %d", c.ModulesMiB, 64<<10)
	}
	if c.ModuleReleasers < 1 || c.ModuleReleasers > 16 {
		return bad("module_releasers", "%d is not within 1 and 16", c.ModuleReleasers)
	}
	for _, v := range c.Labels {
		if len(v) > 32 || strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
			return bad("labels", "%q: lower-case letters, digits and '-', at most 32", v)
		}
	}
	if c.ReservedDisk < 0 || c.ReservedDisk > 1<<20 {
		return bad("reserved_disk_mib", "%d is not within 0 and %d", c.ReservedDisk, 1<<20)
	}
	return nil
}

// ParseDecoy splits "tcp/2323" or "telnet@2323" into service and port.
func ParseDecoy(s string) (service string, port uint16, err error) {
	service, num, ok := strings.Cut(s, "/")
	if !ok {
		service, num, ok = strings.Cut(s, "@")
	}
	n, perr := strconv.ParseUint(num, 10, 16)
	if !ok || service == "" || perr != nil || n == 0 {
		return "", 0, fmt.Errorf("%q is not SERVICE/PORT or SERVICE@PORT, such as tcp/2323", s)
	}
	return service, uint16(n), nil
}

// CheckAllow accepts an address, a prefix, or an absolute path.
func CheckAllow(s string) error {
	if len(s) > MaxValue {
		return fmt.Errorf("longer than %d bytes", MaxValue)
	}
	if strings.HasPrefix(s, "/") && filepath.Clean(s) == s {
		return nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	return fmt.Errorf("%q is neither an address, nor a prefix, nor a clean absolute path", s)
}
