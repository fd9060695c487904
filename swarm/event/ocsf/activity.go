package ocsf

import "github.com/omega-mesh/omega/swarm/event"

// Classes of the schema that an event's own class does not name.
const (
	classKernelExtension = 1002
	classAccountChange   = 3001
)

// ClassUID is the schema's number for what happened: that of the class, but a change of a watched file is a File System
// Activity, a kernel module's coming and going a Kernel Extension Activity, and a change of an account an Account Change.
func ClassUID(c event.Class, a event.Activity) uint16 {
	switch {
	case c == event.ClassFileIntegrity:
		return uint16(event.ClassFile)
	case c == event.ClassKernel && (a == event.ActivityModuleLoad || a == event.ActivityModuleUnload):
		return classKernelExtension
	case c == event.ClassAuthentication && a == event.ActivityAccount:
		return classAccountChange
	}
	return uint16(c)
}

// ActivityID maps to the schema's numbers; 99 is "other", which the activity in unmapped names.
func ActivityID(c event.Class, a event.Activity) uint32 {
	switch c {
	case event.ClassProcess:
		switch a {
		case event.ActivityExec, event.ActivityFork:
			return 1
		case event.ActivityExit, event.ActivityKill:
			return 2
		case event.ActivityPtrace, event.ActivityProcessWrite:
			return 4 // inject
		case event.ActivitySetUID, event.ActivityPrivilegeGain:
			return 5 // set user id
		}
	case event.ClassNetwork:
		switch a {
		case event.ActivityConnect, event.ActivityAccept:
			return 1
		case event.ActivityClose:
			return 2
		case event.ActivityProbe:
			return 4
		case event.ActivityRefuse:
			return 5
		case event.ActivityListen:
			return 7
		}
	case event.ClassDNS:
		switch a {
		case event.ActivityDNSQuery:
			return 1
		case event.ActivityDNSAnswer:
			return 2
		}
	case event.ClassAuthentication:
		switch a {
		case event.ActivityLogonFailure, event.ActivityLogonSuccess, event.ActivitySessionOpen:
			return 1
		case event.ActivitySessionClose:
			return 2
		case event.ActivitySudo:
			return 7 // account switch
		}
	case event.ClassFile, event.ClassFileIntegrity:
		switch a {
		case event.ActivityFileCreate, event.ActivityFileLink:
			return 1
		case event.ActivityFileWrite:
			return 3
		case event.ActivityFileUnlink:
			return 4
		case event.ActivityFileRename:
			return 5
		case event.ActivityFileSetXattr:
			return 6 // set attributes
		case event.ActivityFileChmod, event.ActivityFileChown:
			return 7 // set security
		case event.ActivityMount:
			return 12
		case event.ActivityUnmount:
			return 13
		}
	case event.ClassKernel:
		switch a {
		case event.ActivityModuleLoad:
			return 1 // of 1002: load
		case event.ActivityModuleUnload:
			return 2 // of 1002: unload
		case event.ActivityBPF, event.ActivityKeyctl, event.ActivityIOUring, event.ActivityUnshare, event.ActivitySetNS:
			return 4 // invoke
		}
	case event.ClassMemory:
		switch a {
		case event.ActivityMemfdCreate:
			return 1 // allocate page
		case event.ActivityMemoryExecutable:
			return 2 // modify page
		case event.ActivityPtrace:
			return 7 // read
		case event.ActivityProcessWrite:
			return 8 // write
		}
	case event.ClassScheduledJob:
		switch a {
		case event.ActivityJobRun, event.ActivityServiceStart:
			return 6 // start
		}
	}
	return 99
}

// className is the schema's caption of a class.
func className(uid uint16) string {
	switch uid {
	case uint16(event.ClassFile):
		return "File System Activity"
	case classKernelExtension:
		return "Kernel Extension Activity"
	case uint16(event.ClassKernel):
		return "Kernel Activity"
	case uint16(event.ClassMemory):
		return "Memory Activity"
	case uint16(event.ClassScheduledJob):
		return "Scheduled Job Activity"
	case uint16(event.ClassProcess):
		return "Process Activity"
	case classAccountChange:
		return "Account Change"
	case uint16(event.ClassAuthentication):
		return "Authentication"
	case uint16(event.ClassNetwork):
		return "Network Activity"
	case uint16(event.ClassDNS):
		return "DNS Activity"
	}
	return ""
}

// classOf is what kind of event a line tells of: 0 if none of ours.
func classOf(r *record) event.Class {
	if r.Unmapped.Class == "" {
		switch r.ClassUID {
		case classKernelExtension:
			return event.ClassKernel
		case classAccountChange:
			return event.ClassAuthentication
		}
	}
	for _, c := range event.Classes() {
		if c.String() == r.Unmapped.Class || r.Unmapped.Class == "" && uint16(c) == r.ClassUID {
			if c == event.ClassFileIntegrity && r.Unmapped.Class == "" {
				continue // our own number, of no schema
			}
			return c
		}
	}
	return 0
}

// activityOf is what happened: as unmapped names it where that agrees with the schema's numbers, else by these.
func activityOf(class event.Class, r *record) event.Activity {
	for a := event.ActivityUnknown; int(a) < event.Activities; a++ {
		if a.String() == r.Unmapped.Activity && ClassUID(class, a) == r.ClassUID && ActivityID(class, a) == r.ActivityID {
			return a
		}
	}
	// Another producer's: the schema's number and, where it is not enough, what else it says.
	if r.ClassUID == classKernelExtension {
		switch r.ActivityID {
		case 1:
			return event.ActivityModuleLoad
		case 2:
			return event.ActivityModuleUnload
		}
		return event.ActivityUnknown
	}
	if r.ClassUID == classAccountChange {
		return event.ActivityAccount
	}
	inbound := r.Connection != nil && r.Connection.Direction == 1
	switch class {
	case event.ClassProcess:
		return pick(r.ActivityID, event.ActivityExec, event.ActivityExit, event.ActivityUnknown, event.ActivityPtrace, event.ActivitySetUID)
	case event.ClassNetwork:
		open := event.ActivityConnect
		if inbound {
			open = event.ActivityAccept
		}
		return pick(r.ActivityID, open, event.ActivityClose, event.ActivityUnknown, event.ActivityProbe, event.ActivityRefuse, event.ActivityUnknown, event.ActivityListen)
	case event.ClassDNS:
		return pick(r.ActivityID, event.ActivityDNSQuery, event.ActivityDNSAnswer)
	case event.ClassAuthentication:
		logon := event.ActivityLogonFailure
		if r.StatusID == 1 {
			logon = event.ActivityLogonSuccess
		}
		return pick(r.ActivityID, logon, event.ActivitySessionClose, 0, 0, 0, 0, event.ActivitySudo)
	case event.ClassFile:
		return pick(r.ActivityID, event.ActivityFileCreate, event.ActivityUnknown, event.ActivityFileWrite, event.ActivityFileUnlink, event.ActivityFileRename,
			event.ActivityFileSetXattr, event.ActivityFileChmod, 0, 0, 0, 0, event.ActivityMount, event.ActivityUnmount)
	case event.ClassMemory:
		return pick(r.ActivityID, event.ActivityMemoryExecutable, event.ActivityMemoryExecutable, 0, 0, 0, 0, 0, event.ActivityProcessWrite)
	case event.ClassScheduledJob:
		return pick(r.ActivityID, 0, 0, 0, 0, 0, event.ActivityJobRun)
	}
	return event.ActivityUnknown
}

// pick is the id-th of list, counted from 1.
func pick(id uint32, list ...event.Activity) event.Activity {
	if id == 0 || id > uint32(len(list)) {
		return event.ActivityUnknown
	}
	return list[id-1]
}
