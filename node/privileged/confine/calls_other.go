//go:build !amd64 && !arm64

package confine

const (
	auditArch    = 0 // none that a filter is built for
	foreignCalls = 0
)

var olderCalls, unneededHere []uint32 // never changed
