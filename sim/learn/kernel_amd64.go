package learn

import "golang.org/x/sys/cpu"

// The assembly multiplies and adds apart, never fused, and in the order of the loops in kernel.go: both give the same bits.
var vectors = cpu.X86.HasAVX

//go:noescape
func gatherAVX(dst, w *float32, stride int, rows *uint16, n int)

//go:noescape
func scatterAVX(w *float32, stride int, rows *uint16, n int, d *float32)

//go:noescape
func productAVX(dst, x *float32, xstride int, w *float32, wstride, n int)
