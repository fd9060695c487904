package stix

import (
	"strconv"
	"unsafe"
)

// view is b as a string without a copy: good until b is written again, which is at the next event.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// decimal is n as text; small numbers allocate nothing.
func decimal(n uint64) string { return strconv.FormatUint(n, 10) }
