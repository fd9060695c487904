package fields

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/swarm/event/ocsf"
)

// table is never changed. Its order is that of the reference: what happened, who did it, to what.
var table = [...]Field{
	{Name: "class", Meaning: "kind of event: file, kernel, memory, scheduled_job, process, authentication, network, dns, file_integrity", Source: "the record's kind",
		Text: func(e *event.Event) string { return e.Class.String() }},
	{Name: "activity", Meaning: "what happened, as listed below", OCSF: "unmapped.activity", Source: "the record's kind", Text: func(e *event.Event) string { return e.Activity.String() }},
	{Name: "class_uid", Meaning: "the schema's number of the class", OCSF: "class_uid", Source: "the record's kind", Number: func(e *event.Event) uint64 { return uint64(ocsf.ClassUID(e.Class, e.Activity)) }},
	{Name: "activity_id", Meaning: "the schema's number of the activity", OCSF: "activity_id", Source: "the record's kind",
		Number: func(e *event.Event) uint64 { return uint64(ocsf.ActivityID(e.Class, e.Activity)) }},
	{Name: "sensor", Meaning: "which sensor saw it: kernel, procfs, decoy, recording", OCSF: "unmapped.sensor", Source: "the sensor", Text: func(e *event.Event) string { return e.Sensor }},
	{Name: "result", Meaning: "error number that the call ended with, 0 for success", OCSF: "status_code", Source: "return value at sys_exit",
		Number: func(e *event.Event) uint64 { return uint64(uint32(e.Result)) }},
	{Name: "count", Meaning: "how many more like it this one stands for", Source: "aggregation in the kernel", Number: func(e *event.Event) uint64 { return uint64(e.Count) }},
	{Name: "boot", Meaning: "nanoseconds since boot (CLOCK_BOOTTIME)", OCSF: "unmapped.boot_ns", Source: "bpf_ktime_get_boot_ns", Number: func(e *event.Event) uint64 { return e.Boot }},

	{Name: "pid", Meaning: "process id, as the host counts", OCSF: "process.pid", Sigma: []string{"ProcessId"}, Source: "task_struct.tgid",
		Number: func(e *event.Event) uint64 { return uint64(e.Process.Key.PID) }},
	{Name: "start", Meaning: "when the process started, nanoseconds since boot; with pid its identity", OCSF: "unmapped.process.start_ns", Source: "group_leader.start_boottime",
		Number: func(e *event.Event) uint64 { return e.Process.Key.Start }},
	{Name: "exe", Meaning: "executable, as the process's mount namespace names it", OCSF: "process.file.path", Sigma: []string{"Image", "SourceImage"}, Source: "walk of mm.exe_file's dentries and mounts",
		Text: func(e *event.Event) string { return e.Process.Exe }},
	{Name: "comm", Meaning: "thread name, at most 15 bytes", OCSF: "process.name", Source: "task_struct.comm", Text: func(e *event.Event) string { return e.Process.Comm }},
	{Name: "args", Meaning: "command line; a list", OCSF: "process.cmd_line", Sigma: []string{"CommandLine"}, Source: "mm.arg_start to arg_end at exec", List: true,
		Text: func(e *event.Event) string { return e.Process.Args }},
	{Name: "cwd", Meaning: "working directory", OCSF: "process.working_directory", Sigma: []string{"CurrentDirectory"}, Source: "walk of fs.pwd", Text: func(e *event.Event) string { return e.Process.CWD }},
	{Name: "script", Meaning: "file that the interpreter runs", OCSF: "unmapped.process.script", Source: "linux_binprm.interp and filename; of a known interpreter its first argument that is no option, from cwd", Text: func(e *event.Event) string { return e.Process.Script }},
	{Name: "ppid", Meaning: "parent's process id", OCSF: "process.parent_process.pid", Sigma: []string{"ParentProcessId"}, Source: "real_parent.tgid",
		Number: func(e *event.Event) uint64 { return uint64(e.Process.Parent.PID) }},
	{Name: "parent", Meaning: "parent's executable", OCSF: "process.parent_process.file.path", Sigma: []string{"ParentImage"}, Source: "the process tree", Text: func(e *event.Event) string { return e.Process.ParentExe }},
	{Name: "ancestors", Meaning: "executables above the parent, nearest first; a list", OCSF: "unmapped.process.ancestors", Source: "the process tree", List: true,
		Text: func(e *event.Event) string { return e.Process.Ancestors }},
	{Name: "uid", Meaning: "real user id", OCSF: "process.user.uid", Sigma: []string{"User"}, Source: "cred.uid", Number: func(e *event.Event) uint64 { return uint64(e.Process.UID) }},
	{Name: "gid", Meaning: "real group id", OCSF: "unmapped.process.gid", Source: "cred.gid", Number: func(e *event.Event) uint64 { return uint64(e.Process.GID) }},
	{Name: "euid", Meaning: "effective user id", OCSF: "unmapped.process.euid", Source: "cred.euid", Number: func(e *event.Event) uint64 { return uint64(e.Process.EUID) }},
	{Name: "egid", Meaning: "effective group id", OCSF: "unmapped.process.egid", Source: "cred.egid", Number: func(e *event.Event) uint64 { return uint64(e.Process.EGID) }},
	{Name: "login_uid", Meaning: "user who logged in, kept through su and sudo; 4294967295 for none", OCSF: "unmapped.process.login_uid", Sigma: []string{"LogonId"}, Source: "task_struct.loginuid",
		Number: func(e *event.Event) uint64 { return uint64(e.Process.LoginUID) }},
	{Name: "caps", Meaning: "effective capabilities, by name", OCSF: "unmapped.process.caps", Source: "cred.cap_effective", Bits: func(e *event.Event) uint64 { return e.Process.Caps }, Names: capabilities[:]},
	{Name: "flag", Meaning: "facts about the process and its executable, by name", OCSF: "unmapped.process.flags", Source: "inode of mm.exe_file, files 0 to 2, the kernel half",
		Bits: func(e *event.Event) uint64 { return uint64(e.Process.Flags) }, Names: processFlags[:]},
	{Name: "session", Meaning: "session id (setsid)", OCSF: "unmapped.process.session", Source: "signal.pids[PIDTYPE_SID]", Number: func(e *event.Event) uint64 { return uint64(e.Process.Session) }},
	{Name: "tty", Meaning: "terminal: pts/3, tty1", OCSF: "process.session.terminal", Source: "signal.tty", Text: func(e *event.Event) string { return e.Process.TTY }},
	{Name: "exit_code", Meaning: "of an exit: the status, or 128 and the signal", OCSF: "exit_code", Source: "task_struct.exit_code", Number: func(e *event.Event) uint64 { return uint64(uint32(e.Process.ExitCode)) }},
	{Name: "inode", Meaning: "the executable's inode", OCSF: "unmapped.process.inode", Source: "mm.exe_file.f_inode.i_ino", Number: func(e *event.Event) uint64 { return e.Process.Inode }},
	{Name: "device", Meaning: "the executable's device", OCSF: "unmapped.process.device", Source: "super_block.s_dev", Number: func(e *event.Event) uint64 { return e.Process.Device }},
	{Name: "cgroup", Meaning: "id of its cgroup", OCSF: "unmapped.process.cgroup", Source: "bpf_get_current_cgroup_id", Number: func(e *event.Event) uint64 { return e.Process.CgroupID }},
	{Name: "mount_ns", Meaning: "mount namespace", OCSF: "unmapped.process.mount_ns", Source: "nsproxy.mnt_ns", Number: func(e *event.Event) uint64 { return uint64(e.Process.MountNS) }},
	{Name: "pid_ns", Meaning: "pid namespace", OCSF: "unmapped.process.pid_ns", Source: "nsproxy.pid_ns_for_children", Number: func(e *event.Event) uint64 { return uint64(e.Process.PIDNS) }},
	{Name: "net_ns", Meaning: "network namespace", OCSF: "unmapped.process.net_ns", Source: "nsproxy.net_ns", Number: func(e *event.Event) uint64 { return uint64(e.Process.NetNS) }},
	{Name: "container", Meaning: "id of its container", OCSF: "process.container.uid", Source: "path of its cgroup", Text: func(e *event.Event) string { return e.Process.Container }},
	{Name: "image", Meaning: "image of its container", OCSF: "process.container.image.name", Source: "the runtime's state", Text: func(e *event.Event) string { return e.Process.Image }},
	{Name: "pod", Meaning: "its pod, namespace/name", OCSF: "unmapped.process.pod", Source: "the runtime's state", Text: func(e *event.Event) string { return e.Process.Pod }},
	{Name: "unit", Meaning: "its systemd unit", OCSF: "unmapped.process.unit", Source: "path of its cgroup", Text: func(e *event.Event) string { return e.Process.Unit }},

	{Name: "protocol", Meaning: "IP protocol number: 6 TCP, 17 UDP", OCSF: "connection_info.protocol_num", Source: "sock.sk_protocol", Number: func(e *event.Event) uint64 { return uint64(e.Network.Protocol) }},
	{Name: "protocol_name", Meaning: "tcp, udp, icmp", OCSF: "connection_info.protocol_name", Sigma: []string{"Protocol"}, Source: "sock.sk_protocol", Text: func(e *event.Event) string { return ocsf.ProtocolName(e.Network.Protocol) }},
	{Name: "local", Meaning: "this host's address", Source: "inet_sock", Address: func(e *event.Event) netip.Addr { return e.Network.Local.Addr().Unmap() }},
	{Name: "local_port", Meaning: "this host's port", Source: "inet_sock", Number: func(e *event.Event) uint64 { return uint64(e.Network.Local.Port()) }},
	{Name: "remote", Meaning: "the other side's address", Source: "inet_sock", Address: func(e *event.Event) netip.Addr { return e.Network.Remote.Addr().Unmap() }},
	{Name: "remote_port", Meaning: "the other side's port", Source: "inet_sock", Number: func(e *event.Event) uint64 { return uint64(e.Network.Remote.Port()) }},
	{Name: "remote_name", Meaning: "the other side's name, as DNS answered this process", Sigma: []string{"DestinationHostname"}, Source: "DNS answers seen", Text: func(e *event.Event) string { return e.Network.Name }},
	{Name: "source", Meaning: "address of who opened the connection", OCSF: "src_endpoint.ip", Sigma: []string{"SourceIp"}, Source: "inet_sock",
		Address: func(e *event.Event) netip.Addr { return source(e).Addr().Unmap() }},
	{Name: "source_port", Meaning: "its port", OCSF: "src_endpoint.port", Sigma: []string{"SourcePort"}, Source: "inet_sock", Number: func(e *event.Event) uint64 { return uint64(source(e).Port()) }},
	{Name: "destination", Meaning: "address of who was connected to", OCSF: "dst_endpoint.ip", Sigma: []string{"DestinationIp"}, Source: "inet_sock",
		Address: func(e *event.Event) netip.Addr { return destination(e).Addr().Unmap() }},
	{Name: "destination_port", Meaning: "its port", OCSF: "dst_endpoint.port", Sigma: []string{"DestinationPort"}, Source: "inet_sock", Number: func(e *event.Event) uint64 { return uint64(destination(e).Port()) }},
	{Name: "initiated", Meaning: "true if this host opened the connection", Sigma: []string{"Initiated"}, Source: "direction of the state change", Text: func(e *event.Event) string {
		if e.Network.Inbound {
			return "false"
		}
		return "true"
	}},
	{Name: "bytes_in", Meaning: "bytes received, at close", OCSF: "traffic.bytes_in", Source: "tcp_sock.bytes_received", Number: func(e *event.Event) uint64 { return e.Network.BytesIn }},
	{Name: "bytes_out", Meaning: "bytes sent, at close", OCSF: "traffic.bytes_out", Source: "tcp_sock.bytes_acked", Number: func(e *event.Event) uint64 { return e.Network.BytesOut }},
	{Name: "duration_ms", Meaning: "milliseconds from open to close", Source: "state changes of the socket", Number: func(e *event.Event) uint64 { return uint64(max(0, e.Network.Duration.Milliseconds())) }},
	{Name: "sni", Meaning: "server name of a TLS ClientHello", OCSF: "tls.sni", Source: "first packet of the flow", Text: func(e *event.Event) string { return e.Network.SNI }},

	{Name: "file", Meaning: "path of the file", OCSF: "file.path", Sigma: []string{"TargetFilename", "ImageLoaded"}, Source: "walk of the file's dentries and mounts", Text: func(e *event.Event) string { return e.File.Path }},
	{Name: "file_name", Meaning: "last part of the path", OCSF: "file.name", Source: "walk of the file's dentries and mounts", Text: func(e *event.Event) string { return e.File.Path[strings.LastIndexByte(e.File.Path, '/')+1:] }},
	{Name: "other", Meaning: "old name of a rename, target of a link, name of an attribute, source of a mount, what differs from the baseline", OCSF: "unmapped.file_other", Sigma: []string{"SourceFilename"},
		Source: "arguments of the call", Text: func(e *event.Event) string { return e.File.Other }},
	{Name: "mode", Meaning: "type and permissions; of a chmod what was asked for", OCSF: "file.mode", Source: "inode.i_mode, or the call's argument", Number: func(e *event.Event) uint64 { return uint64(e.File.Mode) }},
	{Name: "file_uid", Meaning: "owner; of a chown what was asked for", OCSF: "unmapped.file_uid", Source: "inode.i_uid, or the call's argument", Number: func(e *event.Event) uint64 { return uint64(e.File.UID) }},
	{Name: "file_gid", Meaning: "group; of a chown what was asked for", OCSF: "unmapped.file_gid", Source: "inode.i_gid, or the call's argument", Number: func(e *event.Event) uint64 { return uint64(e.File.GID) }},
	{Name: "file_flags", Meaning: "of open and mount, as the call has them", OCSF: "unmapped.file_flags", Source: "the call's argument", Number: func(e *event.Event) uint64 { return uint64(e.File.Flags) }},
	{Name: "file_inode", Meaning: "inode", OCSF: "unmapped.file_inode", Source: "inode.i_ino", Number: func(e *event.Event) uint64 { return e.File.Inode }},
	{Name: "file_device", Meaning: "device", OCSF: "unmapped.file_device", Source: "super_block.s_dev", Number: func(e *event.Event) uint64 { return e.File.Device }},
	{Name: "hash", Meaning: "BLAKE3 of the content, where it was taken", OCSF: "file.hashes.value", Source: "the baseline", Text: func(e *event.Event) string { return e.File.Hash }},
	{Name: "fs", Meaning: "type of file system, of a mount", OCSF: "unmapped.file_fs", Source: "the call's argument", Text: func(e *event.Event) string { return e.File.FS }},
	{Name: "was", Meaning: "what a watched file was before it changed: digest, mode, owner, link target", OCSF: "unmapped.file_was", Source: "the baseline", Text: func(e *event.Event) string { return e.File.Was }},

	{Name: "dns_name", Meaning: "name asked for", OCSF: "query.hostname", Sigma: []string{"QueryName"}, Source: "packet to or from port 53", Text: func(e *event.Event) string { return e.DNS.Name }},
	{Name: "dns_type", Meaning: "A, AAAA, TXT, …", OCSF: "query.type", Source: "packet to or from port 53", Text: func(e *event.Event) string { return ocsf.DNSType(e.DNS.Type) }},
	{Name: "dns_code", Meaning: "response code", OCSF: "rcode_id", Sigma: []string{"QueryStatus"}, Source: "packet from port 53", Number: func(e *event.Event) uint64 { return uint64(e.DNS.Code) }},
	{Name: "dns_id", Meaning: "transaction id", OCSF: "query.packet_uid", Source: "packet to or from port 53", Number: func(e *event.Event) uint64 { return uint64(e.DNS.ID) }},
	{Name: "answers", Meaning: "addresses and names answered; a list", OCSF: "answers.rdata", Sigma: []string{"QueryResults"}, Source: "packet from port 53", List: true, Text: func(e *event.Event) string { return e.DNS.Answers }},

	{Name: "operation", Meaning: "what exactly: PTRACE_ATTACH, BPF_PROG_LOAD, IORING_OP_OPENAT, a module's name", OCSF: "unmapped.access.operation", Source: "the call's argument",
		Text: func(e *event.Event) string { return e.Access.Operation }},
	{Name: "target", Meaning: "executable of the process it is done to", OCSF: "unmapped.access.target_exe", Sigma: []string{"TargetImage"}, Source: "the process tree", Text: func(e *event.Event) string { return e.Access.TargetExe }},
	{Name: "target_pid", Meaning: "process it is done to", OCSF: "unmapped.access.target_pid", Sigma: []string{"TargetProcessId"}, Source: "the call's argument",
		Number: func(e *event.Event) uint64 { return uint64(e.Access.Target.PID) }},
	{Name: "number", Meaning: "flags, the signal, the kind of program, as the call has it", OCSF: "unmapped.access.number", Sigma: []string{"GrantedAccess"}, Source: "the call's argument",
		Number: func(e *event.Event) uint64 { return e.Access.Number }},
	{Name: "old_uid", Meaning: "effective user before", OCSF: "unmapped.access.old_uid", Source: "cred.euid", Number: func(e *event.Event) uint64 { return uint64(e.Access.OldUID) }},
	{Name: "new_uid", Meaning: "effective user after; of a call what was asked for", OCSF: "unmapped.access.new_uid", Source: "cred.euid, or the call's argument", Number: func(e *event.Event) uint64 { return uint64(e.Access.NewUID) }},
	{Name: "gained", Meaning: "capabilities that were not there before, by name", OCSF: "unmapped.access.gained", Source: "cred.cap_effective", Bits: func(e *event.Event) uint64 { return e.Access.Gained }, Names: capabilities[:]},
	{Name: "address", Meaning: "memory address", OCSF: "unmapped.access.address", Source: "the call's argument", Number: func(e *event.Event) uint64 { return e.Access.Address }},
	{Name: "length", Meaning: "bytes of memory", OCSF: "unmapped.access.length", Source: "the call's argument", Number: func(e *event.Event) uint64 { return e.Access.Length }},

	{Name: "user", Meaning: "account that logs in, or asked", OCSF: "user.name", Sigma: []string{"USER", "TargetUserName"}, Source: "journald, or the classic logs", Text: func(e *event.Event) string { return e.Logon.User }},
	{Name: "as", Meaning: "account whose rights a command ran with, or that was changed", Source: "journald, or the classic logs", Text: func(e *event.Event) string { return e.Logon.As }},
	{Name: "service", Meaning: "sshd, sudo, cron, …", OCSF: "service.name", Source: "journald, or the classic logs", Text: func(e *event.Event) string { return e.Logon.Service }},
	{Name: "method", Meaning: "password, publickey, …", OCSF: "unmapped.logon.method", Source: "journald, or the classic logs", Text: func(e *event.Event) string { return e.Logon.Method }},
	{Name: "command", Meaning: "command that sudo or cron ran", OCSF: "unmapped.logon.command", Source: "journald, or the classic logs", Text: func(e *event.Event) string { return e.Logon.Command }},
	{Name: "logon_from", Meaning: "address that a logon came from", Source: "journald, or the classic logs", Address: func(e *event.Event) netip.Addr { return e.Logon.Remote.Unmap() }},
}

func source(e *event.Event) netip.AddrPort {
	if e.Network.Inbound {
		return e.Network.Remote
	}
	return e.Network.Local
}

func destination(e *event.Event) netip.AddrPort {
	if e.Network.Inbound {
		return e.Network.Local
	}
	return e.Network.Remote
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// processFlags names event.ProcessFlag, lowest bit first.
var processFlags = [...]string{"memfd", "deleted", "just_written", "stdin_socket", "stdout_socket", "stderr_socket", "upper_layer", "args_truncated",
	"from_procfs", "world_writable", "killed_in_kernel", "script", "set_id", "before_agent", "path_truncated", "watched_path"}

// capabilities are named as in linux/capability.h, lowest bit first.
var capabilities = [...]string{"cap_chown", "cap_dac_override", "cap_dac_read_search", "cap_fowner", "cap_fsetid", "cap_kill", "cap_setgid", "cap_setuid", "cap_setpcap",
	"cap_linux_immutable", "cap_net_bind_service", "cap_net_broadcast", "cap_net_admin", "cap_net_raw", "cap_ipc_lock", "cap_ipc_owner", "cap_sys_module", "cap_sys_rawio",
	"cap_sys_chroot", "cap_sys_ptrace", "cap_sys_pacct", "cap_sys_admin", "cap_sys_boot", "cap_sys_nice", "cap_sys_resource", "cap_sys_time", "cap_sys_tty_config",
	"cap_mknod", "cap_lease", "cap_audit_write", "cap_audit_control", "cap_setfcap", "cap_mac_override", "cap_mac_admin", "cap_syslog", "cap_wake_alarm", "cap_block_suspend",
	"cap_audit_read", "cap_perfmon", "cap_bpf", "cap_checkpoint_restore"}
