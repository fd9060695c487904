package install

import (
	"strings"

	"github.com/omega-mesh/omega/node/config"
	"github.com/omega-mesh/omega/node/privileged"
)

// unitText is the unit. It is put together by hand: text/template calls methods by name, and a binary that links it keeps
// every exported method of every package, nine megabytes of them.
//
// What would give the node a mount namespace of its own (ProtectSystem, ProtectHome, PrivateTmp, ProtectKernelModules and
// their like) is left to read-only mode: a node that acts takes files into quarantine wherever they lie, and pins what is to
// outlive it where the next start finds it. Left out as well are RestrictSUIDSGID (a set-id program is given back as it was),
// RestrictNamespaces and ProtectKernelModules (the self-test proves that such calls are seen, which a filter would refuse
// before any sensor saw them), and MemoryDenyWriteExecute (modules are compiled). The node itself goes further once it has
// loaded its programs.
func (o *Options) unitText() string {
	up := o.binary() + " --dir " + o.Dir + " up"
	if o.Mode != "" {
		up += " --mode " + o.Mode
	}
	text := `# Written by omega install; omega uninstall removes it.
[Unit]
Description=Omega host-security mesh
After=network-online.target
Wants=network-online.target
ConditionPathExists=` + o.Dir + `/genesis.cbor
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=` + up + `
Restart=always
RestartSec=2s
KillMode=mixed
TimeoutStopSec=15s
OOMScoreAdjust=-500
OOMPolicy=continue
LimitNOFILE=65536
LimitMEMLOCK=infinity
LimitCORE=0
NoNewPrivileges=yes
CapabilityBoundingSet=` + strings.Join(privileged.Kept(), " ") + `
AmbientCapabilities=
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
LockPersonality=yes
KeyringMode=private
`
	if o.Mode == config.ModeReadOnly {
		text += `ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths=` + o.Dir + `
`
	}
	return text + `
[Install]
WantedBy=multi-user.target
`
}
