package pack

import (
	"testing"
	"time"
)

func TestNew(t *testing.T) {
	s := time.Now()
	d, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Log(time.Since(s), len(d.gates))
	r, err := Rules()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(len(r))
}
