//go:build !amd64

package learn

const vectors = false

func gatherAVX(dst, w *float32, stride int, rows *uint16, n int)          {}
func scatterAVX(w *float32, stride int, rows *uint16, n int, d *float32)  {}
func productAVX(dst, x *float32, xstride int, w *float32, wstride, n int) {}
