package sigma

import "unsafe"

// view is b as a string without a copy: good until b is written again, which is at the next event.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
