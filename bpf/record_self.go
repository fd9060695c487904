package bpf

import (
	"structs"
	"unsafe"

	"github.com/omega-mesh/omega/swarm/event"
)

// Kinds 48 to 55 of kernel/record.h: what is done to the agent itself.
const (
	recordTampered = iota + 48
	recordMoved
	recordMapWrite // only counted
)

// recordTamper is struct record_tamper of kernel/record.h.
type recordTamper struct {
	_       structs.HostLayout
	Header  recordHeader
	Process recordProcess
	Link    uint32
	Command uint32
	Result  int32
	NameLen uint32
	Name    [128]byte
}

const tamperSize = int(unsafe.Sizeof(recordTamper{}))

// decodeTamper fills e from a record of kind 48 or 49, whose header and process are read already.
func decodeTamper(b []byte, kind uint16, e *event.Event) error {
	if len(b) != tamperSize {
		return errRecord
	}
	r := (*recordTamper)(unsafe.Pointer(unsafe.SliceData(b)))
	if int(r.NameLen) > len(r.Name) {
		return errRecord
	}
	e.Class, e.Activity, e.Result = event.ClassKernel, event.ActivityTamper, r.Result
	e.File.Path = view(r.Name[:r.NameLen])
	if kind == recordMoved {
		e.Access.Operation, e.Access.Target.PID = "cgroup_attach_task", r.Link
	} else if r.Command != 0 {
		e.Access.Operation = nth(bpfNames[:], uint64(r.Command), "bpf")
	}
	return nil
}
