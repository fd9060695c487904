package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/omega-mesh/omega/swarm/event"
)

// Benchmarks are this package's performance figures for `omega bench`.
func Benchmarks() []event.Benchmark {
	return []event.Benchmark{{
		Name: "sim/serve/python-256-worlds", Unit: "steps/s", Limit: 200_000, HigherIsBetter: true,
		Measure: func() (float64, error) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			return measurePython(ctx)
		},
	}}
}

// benchmarkSource steps 256 worlds with random actions for about two seconds and prints environment steps a second.
const benchmarkSource = `
import sys, time
import numpy as np
import omega_sim
envs = omega_sim.VectorEnv(sys.argv[1], "cage2", worlds=256, seed=1, masks=False)
envs.reset()
draw = np.random.default_rng(1)
actions = [draw.integers(0, envs.single_action_space.n, 256) for _ in range(64)]
for a in actions:
    envs.step(a)
begin, calls = time.perf_counter(), 0
while time.perf_counter() - begin < 2:
    for a in actions:
        envs.step(a)
    calls += len(actions)
print(256 * calls / (time.perf_counter() - begin))
envs.close()
`

// errNoPython is what a host without the client's needs is told.
var errNoPython = errors.New("no python3 with numpy here: apt install python3-numpy")

// python finds a python3 that has numpy: that of PATH, or the system's own where another one stands before it.
func python(ctx context.Context) (string, error) {
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(ctx, name, "-c", "import numpy").Run() == nil {
			return name, nil
		}
	}
	return "", errNoPython
}

// runPython serves on a socket in a folder of its own and runs a script beside the client, with the server's address
// as its first argument. It gives what the script printed.
func runPython(ctx context.Context, interpreter string, script []byte, args ...string) (_ []byte, err error) {
	dir, err := os.MkdirTemp("", "omega-sim-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for name, text := range map[string][]byte{"omega_sim.py": Client(), "script.py": script} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	serving, end := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- New(0).Serve(serving, l) }()
	defer func() {
		end()
		err = errors.Join(err, <-done)
	}()
	c := exec.CommandContext(ctx, interpreter, append([]string{filepath.Join(dir, "script.py"), "unix:" + socket}, args...)...)
	c.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1")
	var told bytes.Buffer
	c.Stderr = &told
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", interpreter, err, told.Bytes())
	}
	return out, nil
}

func measurePython(ctx context.Context) (float64, error) {
	interpreter, err := python(ctx)
	if err != nil {
		return 0, err
	}
	out, err := runPython(ctx, interpreter, []byte(benchmarkSource))
	if err != nil {
		return 0, err
	}
	return strconv.ParseFloat(string(bytes.TrimSpace(out)), 64)
}
