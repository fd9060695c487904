package privileged

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Each capability is either kept or shed.
func TestEveryCapabilityIsKeptOrShed(t *testing.T) {
	said := map[uint]int{}
	for _, c := range shed {
		said[c]++
	}
	for _, c := range kept {
		said[c.number]++
	}
	for c := uint(0); c <= unix.CAP_LAST_CAP; c++ {
		if said[c] != 1 {
			t.Errorf("capability %d is said to be kept or shed %d times", c, said[c])
		}
	}
}
