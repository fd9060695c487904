package ocsf

// The objects of the schema, as far as an event has something to put there.

type product struct {
	Name    string `json:"name"`
	Vendor  string `json:"vendor_name"`
	Feature string `json:"feature,omitempty"` // the sensor
}

type metadata struct {
	Version string  `json:"version"`
	Product product `json:"product"`
	UID     string  `json:"uid,omitempty"`
	Time    string  `json:"original_time,omitempty"` // RFC 3339 with nanoseconds: "time" has milliseconds only
}

type user struct {
	UID  string `json:"uid,omitempty"`
	Name string `json:"name,omitempty"`
}

type file struct {
	Path   string        `json:"path,omitempty"`
	Name   string        `json:"name,omitempty"`
	Type   int           `json:"type_id"`
	Mode   uint32        `json:"mode,omitempty"`
	Hashes []fingerprint `json:"hashes,omitempty"`
}

type fingerprint struct {
	ID    int    `json:"algorithm_id"` // 99: other, which Name says
	Name  string `json:"algorithm"`
	Value string `json:"value"`
}

type process struct {
	PID       uint32     `json:"pid"`
	UID       string     `json:"uid,omitempty"` // pid and start: unique for a boot
	Name      string     `json:"name,omitempty"`
	CmdLine   string     `json:"cmd_line,omitempty"`
	Dir       string     `json:"working_directory,omitempty"`
	File      *file      `json:"file,omitempty"`
	User      *user      `json:"user,omitempty"`
	Session   *session   `json:"session,omitempty"`
	Container *container `json:"container,omitempty"`
	Parent    *process   `json:"parent_process,omitempty"`
}

type session struct {
	Terminal string `json:"terminal"`
}

type container struct {
	UID   string `json:"uid,omitempty"`
	Image *named `json:"image,omitempty"`
}

type actor struct {
	Process *process `json:"process,omitempty"`
	User    *user    `json:"user,omitempty"`
}

type device struct {
	Hostname string `json:"hostname,omitempty"`
	UID      string `json:"uid,omitempty"`
	Type     int    `json:"type_id"`
}

type endpoint struct {
	IP       string `json:"ip,omitempty"`
	Port     uint16 `json:"port,omitempty"`
	Hostname string `json:"hostname,omitempty"`
}

type connection struct {
	Protocol  uint8  `json:"protocol_num,omitempty"`
	Name      string `json:"protocol_name,omitempty"`
	Direction int    `json:"direction_id"` // 1 inbound, 2 outbound
}

type traffic struct {
	In  uint64 `json:"bytes_in,omitempty"`
	Out uint64 `json:"bytes_out,omitempty"`
}

type transport struct {
	Version string `json:"version"` // required; the ClientHello alone does not tell
	SNI     string `json:"sni"`
}

type query struct {
	Hostname string `json:"hostname"`
	Type     string `json:"type,omitempty"`
	Packet   uint16 `json:"packet_uid,omitempty"`
}

type answer struct {
	Data string `json:"rdata"`
}

type kernelObject struct {
	Name string `json:"name"`
	Type int    `json:"type_id"` // 0 unknown, 2 system call
	Call string `json:"system_call,omitempty"`
}

type driver struct {
	File *file `json:"file"`
}

type job struct {
	Name    string `json:"name"`
	CmdLine string `json:"cmd_line,omitempty"`
	User    *user  `json:"user,omitempty"`
}

type named struct {
	Name string `json:"name"`
}

// record is one event; the attributes of all classes are together here, and each class has its own of them.
type record struct {
	ClassUID    uint16        `json:"class_uid"`
	CategoryUID uint16        `json:"category_uid"`
	ClassName   string        `json:"class_name,omitempty"`
	ActivityID  uint32        `json:"activity_id"`
	Activity    string        `json:"activity_name,omitempty"`
	TypeUID     uint64        `json:"type_uid"`
	SeverityID  uint8         `json:"severity_id"`
	Time        int64         `json:"time"` // milliseconds
	Count       uint64        `json:"count,omitempty"`
	Metadata    metadata      `json:"metadata"`
	Device      *device       `json:"device,omitempty"`
	Actor       *actor        `json:"actor,omitempty"`
	Process     *process      `json:"process,omitempty"`
	File        *file         `json:"file,omitempty"`
	FileResult  *file         `json:"file_result,omitempty"`
	Src         *endpoint     `json:"src_endpoint,omitempty"`
	Dst         *endpoint     `json:"dst_endpoint,omitempty"`
	Connection  *connection   `json:"connection_info,omitempty"`
	Traffic     *traffic      `json:"traffic,omitempty"`
	TLS         *transport    `json:"tls,omitempty"`
	Query       *query        `json:"query,omitempty"`
	Answers     []answer      `json:"answers,omitempty"`
	RCode       *uint8        `json:"rcode_id,omitempty"`
	Kernel      *kernelObject `json:"kernel,omitempty"`
	Driver      *driver       `json:"driver,omitempty"`
	Job         *job          `json:"job,omitempty"`
	Injection   string        `json:"injection_type,omitempty"`
	BaseAddress string        `json:"base_address,omitempty"`
	Size        uint64        `json:"size,omitempty"`
	User        *user         `json:"user,omitempty"`
	Service     *named        `json:"service,omitempty"`
	StatusID    int           `json:"status_id,omitempty"`
	StatusCode  string        `json:"status_code,omitempty"` // the error number
	ExitCode    *int32        `json:"exit_code,omitempty"`
	Action      string        `json:"action,omitempty"`
	Unmapped    extra         `json:"unmapped"`
}

// extra is what the schema has no place for; with it a recording reads back as it was.
type extra struct {
	Class    string   `json:"class,omitempty"` // where class_uid is another's
	Activity string   `json:"activity"`
	Boot     uint64   `json:"boot_ns,omitempty"`
	Sensor   string   `json:"sensor,omitempty"`
	Process  *details `json:"process,omitempty"`
	Duration int64    `json:"duration_ns,omitempty"`
	Inode    uint64   `json:"file_inode,omitempty"`
	Device   uint64   `json:"file_device,omitempty"`
	Other    string   `json:"file_other,omitempty"`
	OwnerUID uint32   `json:"file_uid,omitempty"`
	OwnerGID uint32   `json:"file_gid,omitempty"`
	Flags    uint32   `json:"file_flags,omitempty"`
	FS       string   `json:"file_fs,omitempty"`
	Was      string   `json:"file_was,omitempty"`
	Logon    *logon   `json:"logon,omitempty"`
	Access   *access  `json:"access,omitempty"`
}

type details struct {
	Start       uint64   `json:"start_ns,omitempty"`
	ParentStart uint64   `json:"parent_start_ns,omitempty"`
	GID         uint32   `json:"gid,omitempty"`
	EUID        uint32   `json:"euid,omitempty"`
	EGID        uint32   `json:"egid,omitempty"`
	Args        []string `json:"args,omitempty"`
	Inode       uint64   `json:"inode,omitempty"`
	Device      uint64   `json:"device,omitempty"`
	Cgroup      uint64   `json:"cgroup,omitempty"`
	MountNS     uint32   `json:"mount_ns,omitempty"`
	PIDNS       uint32   `json:"pid_ns,omitempty"`
	NetNS       uint32   `json:"net_ns,omitempty"`
	Session     uint32   `json:"session,omitempty"`
	LoginUID    uint32   `json:"login_uid,omitempty"`
	Caps        string   `json:"caps,omitempty"` // hex
	Flags       uint32   `json:"flags,omitempty"`
	ExitCode    int32    `json:"exit_code,omitempty"`
	Ancestors   []string `json:"ancestors,omitempty"` // nearest first
	Script      string   `json:"script,omitempty"`
	Pod         string   `json:"pod,omitempty"`
	Unit        string   `json:"unit,omitempty"`
}

type logon struct {
	User    string `json:"user,omitempty"`
	As      string `json:"as,omitempty"`
	Service string `json:"service,omitempty"`
	Method  string `json:"method,omitempty"`
	Command string `json:"command,omitempty"`
	Remote  string `json:"remote,omitempty"`
}

type access struct {
	Operation   string `json:"operation,omitempty"`
	TargetPID   uint32 `json:"target_pid,omitempty"`
	TargetStart uint64 `json:"target_start_ns,omitempty"`
	TargetExe   string `json:"target_exe,omitempty"`
	Number      string `json:"number,omitempty"` // hex
	OldUID      uint32 `json:"old_uid,omitempty"`
	NewUID      uint32 `json:"new_uid,omitempty"`
	Gained      string `json:"gained,omitempty"`  // hex
	Address     string `json:"address,omitempty"` // hex
	Length      uint64 `json:"length,omitempty"`
}
