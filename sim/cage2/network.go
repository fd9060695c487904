package cage2

import "fmt"

// Host is an index into the thirteen hosts, in the order of the observation vector.
type Host uint8

const (
	Defender Host = iota
	Enterprise0
	Enterprise1
	Enterprise2
	OpHost0
	OpHost1
	OpHost2
	OpServer0
	User0
	User1
	User2
	User3
	User4
	Hosts // how many there are
)

var hostNames = [Hosts]string{"Defender", "Enterprise0", "Enterprise1", "Enterprise2", "Op_Host0", "Op_Host1", "Op_Host2", "Op_Server0", "User0", "User1", "User2", "User3", "User4"}

// String is the host's name in the scenario.
func (h Host) String() string {
	if h < Hosts {
		return hostNames[h]
	}
	return fmt.Sprintf("host(%d)", uint8(h))
}

// HostByName finds a host by its name in the scenario.
func HostByName(name string) (Host, bool) {
	for i, n := range hostNames {
		if n == name {
			return Host(i), true
		}
	}
	return 0, false
}

// Subnet is one of the three networks, in the order in which Meander sweeps them.
type Subnet uint8

const (
	Enterprise Subnet = iota
	Operational
	User
	subnets
)

var subnetNames = [subnets]string{"Enterprise", "Operational", "User"}

// String is the subnet's name in the scenario.
func (s Subnet) String() string {
	if s < subnets {
		return subnetNames[s]
	}
	return fmt.Sprintf("subnet(%d)", uint8(s))
}

// set is a set of hosts, bit i for host i.
type set = uint16

const (
	enterpriseHosts   set = 1<<Defender | 1<<Enterprise0 | 1<<Enterprise1 | 1<<Enterprise2
	enterpriseServers     = enterpriseHosts &^ (1 << Defender)
	operationalHosts      = set(1<<OpHost0 | 1<<OpHost1 | 1<<OpHost2 | 1<<OpServer0)
	userHosts             = set(1<<User0 | 1<<User1 | 1<<User2 | 1<<User3 | 1<<User4)
	windowsHosts          = set(1<<Enterprise1 | 1<<Enterprise2 | 1<<User0 | 1<<User1 | 1<<User2)
	allHosts              = set(1<<Hosts - 1)

	// Losing root on one of these costs 1.0 a step; on any other host but User0, 0.1.
	valuedHosts = set(1<<Enterprise0 | 1<<Enterprise1 | 1<<Enterprise2 | 1<<OpServer0)
	cheapHosts  = allHosts &^ valuedHosts &^ (1 << User0)
)

var subnetHosts = [subnets]set{enterpriseHosts, operationalHosts, userHosts}

func subnetOf(h Host) Subnet {
	switch {
	case h <= Enterprise2:
		return Enterprise
	case h <= OpServer0:
		return Operational
	}
	return User
}

// ports is a set of TCP ports. The first eight bits are in the order in which red ranks the exploits that use them, so
// that the exploits open to red are those eight bits and its favourite the lowest that is set.
type ports = uint16

const (
	port21 ports = 1 << iota
	port25
	port3390
	port443
	port80
	port139
	port3389
	port22
	port53
	port68
	port135
	port445
)

var portNumbers = [...]int{21, 25, 3390, 443, 80, 139, 3389, 22, 53, 68, 135, 445}

func portList(m ports) []int {
	list := []int{}
	for i, n := range portNumbers {
		if m>>i&1 == 1 {
			list = append(list, n)
		}
	}
	return list
}

// Exploit is one of the ways ExploitRemoteService can go, in red's order of preference.
type Exploit uint8

const (
	FTPDirectoryTraversal Exploit = iota
	HarakaRCE
	SQLInjection
	HTTPSRFI
	HTTPRFI
	EternalBlue
	BlueKeep
	SSHBruteForce
	exploits
	NoExploit Exploit = 255 // nothing red remembers of the host can be exploited
)

var exploitNames = [exploits]string{"FTPDirectoryTraversal", "HarakaRCE", "SQLInjection", "HTTPSRFI", "HTTPRFI", "EternalBlue", "BlueKeep", "SSHBruteForce"}

// String is the exploit's name in the reference environment.
func (x Exploit) String() string {
	if x < exploits {
		return exploitNames[x]
	}
	return "none"
}

// port is the port an exploit is thrown at.
func (x Exploit) port() ports { return 1 << x }

// gain is what a real service gives to an exploit that fits it.
type gain uint8

const (
	noService gain = iota // the process the exploit needs does not run here
	noLogin               // ssh runs, but no account can be guessed
	asLogin               // a user session by a guessed password
	asService             // a user session as the service's account
	asRoot                // a session as root or SYSTEM at once
)

// socketCount, openPorts and service describe the hosts as they start. Two sockets may share a port (Defender's 53).
// User3's database listens on 3389 (the scenario's own slip, kept: it makes BlueKeep look possible there).
var (
	socketCount = [Hosts]uint8{4, 1, 7, 7, 1, 1, 1, 1, 2, 2, 4, 4, 5}
	openPorts   = [Hosts]ports{
		port22 | port53 | port68,
		port22,
		port22 | port135 | port3389 | port445 | port139 | port80 | port443,
		port22 | port135 | port3389 | port445 | port139 | port80 | port443,
		port22, port22, port22, port22,
		port22 | port21,
		port22 | port21,
		port445 | port139 | port135 | port3389,
		port80 | port3389 | port443 | port25,
		port22 | port80 | port3390 | port443 | port25,
	}
	service = [Hosts][exploits]gain{
		Defender:    {SSHBruteForce: noLogin},
		Enterprise0: {SSHBruteForce: asLogin},
		Enterprise1: {HTTPSRFI: asService, HTTPRFI: asService, BlueKeep: asRoot, SSHBruteForce: asLogin},
		Enterprise2: {HTTPSRFI: asService, HTTPRFI: asService, BlueKeep: asRoot, SSHBruteForce: asLogin},
		OpHost0:     {SSHBruteForce: asLogin},
		OpHost1:     {SSHBruteForce: asLogin},
		OpHost2:     {SSHBruteForce: asLogin},
		OpServer0:   {SSHBruteForce: asLogin},
		User0:       {FTPDirectoryTraversal: asRoot, SSHBruteForce: asLogin},
		User1:       {FTPDirectoryTraversal: asRoot, SSHBruteForce: asLogin},
		User2:       {EternalBlue: asRoot, BlueKeep: asService},
		User3:       {HarakaRCE: asRoot, HTTPSRFI: asService, HTTPRFI: asService},
		User4:       {HarakaRCE: asRoot, SQLInjection: asRoot, HTTPSRFI: asService, HTTPRFI: asService, SSHBruteForce: asLogin},
	}
)

// leadsTo is the host whose address red learns by escalating on h; Hosts where there is none.
func leadsTo(h Host) Host {
	switch h {
	case User1, User2:
		return Enterprise1
	case User3, User4:
		return Enterprise0
	case Enterprise2:
		return OpServer0
	}
	return Hosts
}

// Decoy is a kind of false service that blue can start.
type Decoy uint8

const (
	Apache Decoy = iota
	Femitter
	HarakaSMPT
	Smss
	SSHD
	Svchost
	Tomcat
	Vsftpd
	decoys
)

var decoyNames = [decoys]string{"Apache", "Femitter", "HarakaSMPT", "Smss", "SSHD", "Svchost", "Tomcat", "Vsftpd"}

// String is the decoy's name in the reference environment.
func (d Decoy) String() string {
	if d < decoys {
		return decoyNames[d]
	}
	return "unknown"
}

// decoy is what a kind of decoy needs and offers. Vsftpd wants 21 but opens 80 as a web server: a defect of the
// reference that the model keeps, with its consequence that it can be placed again and again.
type decoySpec struct {
	needs, opens ports
	answers      Exploit // the exploit it swallows
	hosts        set
}

var decoySpecs = [decoys]decoySpec{
	Apache:     {port80, port80, HTTPRFI, allHosts},
	Femitter:   {port21, port21, FTPDirectoryTraversal, windowsHosts},
	HarakaSMPT: {port25, port25, HarakaRCE, allHosts &^ windowsHosts},
	Smss:       {port139, port139, EternalBlue, windowsHosts},
	SSHD:       {port22, port22, SSHBruteForce, allHosts},
	Svchost:    {port3389, port3389, BlueKeep, windowsHosts},
	Tomcat:     {port443, port443, HTTPSRFI, allHosts},
	Vsftpd:     {port21, port80, HTTPRFI, allHosts &^ windowsHosts},
}
