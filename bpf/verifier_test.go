package bpf

import (
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
)

// maxVerified is how many instructions the verifier may follow in one program: a tenth of its limit, which is another on
// another kernel, and a fraction of a second of each start.
const maxVerified = 100_000

func TestProgramsAreCheapToVerify(t *testing.T) {
	if testing.Short() {
		t.Skip("one goroutine: there is nothing for the race detector to see")
	}
	if os.Geteuid() != 0 {
		t.Skip("loading programs needs root")
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Skip(err)
	}
	processed := regexp.MustCompile(`processed (\d+) insns`)
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){"process": loadProcess, "network": loadNetwork, "files": loadFiles, "deny": loadDeny, "execution": loadExecution, "names": loadNames, "refuse": loadRefuse} {
		spec, err := load()
		if err != nil {
			t.Fatal(err)
		}
		c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
		if err != nil {
			t.Logf("%s does not load here: %v", name, err)
			continue
		}
		for program, p := range c.Programs {
			m := processed.FindStringSubmatch(p.VerifierLog)
			if m == nil {
				t.Errorf("%s: %s: no count in %q", name, program, p.VerifierLog)
				continue
			}
			if n, _ := strconv.Atoi(m[1]); n > maxVerified {
				t.Errorf("%s: %s: the verifier followed %d instructions, more than %d", name, program, n, maxVerified)
			}
		}
		c.Close()
	}
}
