package event

// ModuleReport is what one host says of the modules that run there, or failed. What is signed is all but Peer.
type ModuleReport struct {
	Peer    string        `cbor:"-"`                    // DID of the author
	Time    int64         `cbor:"1,keyasint"`           // Unix nanoseconds by the author's clock
	Modules []ModuleState `cbor:"2,keyasint,omitempty"` // at most MaxModuleStates
}

// MaxModuleStates bounds a ModuleReport.
const MaxModuleStates = 72

// ModuleState is how one module does on one host.
type ModuleState struct {
	Module   []byte `cbor:"1,keyasint"`           // the digest of its CID, 32 bytes
	State    string `cbor:"2,keyasint"`           // running, shadow or stopped
	Why      string `cbor:"3,keyasint,omitempty"` // of stopped, at most 128 bytes
	Events   uint64 `cbor:"4,keyasint,omitempty"`
	Findings uint64 `cbor:"5,keyasint,omitempty"`
	Traps    uint64 `cbor:"6,keyasint,omitempty"`
	P99      uint64 `cbor:"7,keyasint,omitempty"` // of one event, nanoseconds
}
