package learn

import "math"

// lane is the number of columns that the kernels take at once: the width of every layer is a multiple of it.
const lane = 64

// pad is n rounded up to whole lanes.
func pad(n int) int { return (n + lane - 1) / lane * lane }

// gather adds the given rows of the matrix w, which is len(dst) wide, to dst.
func gather(dst, w []float32, rows []uint16) { gatherWith(vectors, dst, w, rows) }

func gatherWith(fast bool, dst, w []float32, rows []uint16) {
	width := len(dst)
	if fast && len(rows) > 0 {
		top := uint16(0)
		for _, r := range rows {
			top = max(top, r)
		}
		_ = w[(int(top)+1)*width-1]
		for c := 0; c < width; c += lane {
			gatherAVX(&dst[c:][:lane][0], &w[c], width, &rows[0], len(rows))
		}
		return
	}
	for _, r := range rows {
		row := w[int(r)*width : (int(r)+1)*width]
		for i, x := range row {
			dst[i] += x
		}
	}
}

// scatter adds d to the given rows of the matrix w, which is len(d) wide. No row is given twice.
func scatter(w []float32, rows []uint16, d []float32) { scatterWith(vectors, w, rows, d) }

func scatterWith(fast bool, w []float32, rows []uint16, d []float32) {
	width := len(d)
	if fast && len(rows) > 0 {
		top := uint16(0)
		for _, r := range rows {
			top = max(top, r)
		}
		_ = w[(int(top)+1)*width-1]
		for c := 0; c < width; c += lane {
			scatterAVX(&w[c], width, &rows[0], len(rows), &d[c:][:lane][0])
		}
		return
	}
	for _, r := range rows {
		row := w[int(r)*width : (int(r)+1)*width]
		for i, x := range d {
			row[i] += x
		}
	}
}

// product adds to dst the sum over k of x[k*stride] times row k of the matrix w, which is len(dst) wide and has n rows.
func product(dst, x []float32, stride int, w []float32, n int) {
	productWith(vectors, dst, x, stride, w, n)
}

func productWith(fast bool, dst, x []float32, stride int, w []float32, n int) {
	width := len(dst)
	if n == 0 {
		return
	}
	if fast {
		_, _ = x[(n-1)*stride], w[n*width-1]
		for c := 0; c < width; c += lane {
			productAVX(&dst[c:][:lane][0], &x[0], stride, &w[c], width, n)
		}
		return
	}
	for k := range n {
		f := x[k*stride]
		row := w[k*width : (k+1)*width]
		for i, v := range row {
			dst[i] += float32(f * v) // the conversion forbids fusing
		}
	}
}

// transpose writes the rows × columns matrix w into t, turned.
func transpose(t, w []float32, rows, columns int) {
	for i := range rows {
		row := w[i*columns : (i+1)*columns]
		for j, x := range row {
			t[j*rows+i] = x
		}
	}
}

// add adds x to dst.
func add(dst, x []float32) {
	dst = dst[:len(x)]
	for i, v := range x {
		dst[i] += v
	}
}

// rectify sets what is below zero to zero, without a branch.
func rectify(x []float32) {
	for i, v := range x {
		b := math.Float32bits(v)
		x[i] = math.Float32frombits(b &^ uint32(int32(b)>>31))
	}
}

// through lets a derivative pass where the unit was above zero.
func through(d, activation []float32) {
	activation = activation[:len(d)]
	for i, v := range d {
		above := uint32(-int32(math.Float32bits(activation[i])) >> 31)
		d[i] = math.Float32frombits(math.Float32bits(v) & above)
	}
}
