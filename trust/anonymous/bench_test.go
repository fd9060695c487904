package anonymous

import (
	"fmt"
	"testing"
)

func BenchmarkReport(b *testing.B) {
	for _, members := range []int{16, 64} {
		for name, verify := range map[string]bool{"sign": false, "verify": true} {
			b.Run(fmt.Sprintf("%s_%d", name, members), func(b *testing.B) {
				operate, err := operation(members, verify)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if err := operate(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
