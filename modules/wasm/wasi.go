package wasm

import (
	"context"
	"encoding/binary"
	"fmt"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/omega-mesh/omega/modules"
)

// wasiModule is what guests with a language's runtime import (Go does). It is here in name, so that they start: there is
// no file, no argument and no environment, the clock is the newest event's, chance is the same in every run.
const wasiModule = "wasi_snapshot_preview1"

// Errors of WASI.
const (
	wasiOK    = 0
	wasiBadFD = 8
	wasiFault = 21
	wasiNone  = 52 // ENOSYS
)

// exitError is a guest that ended itself.
type exitError struct{ code uint32 }

func (e *exitError) Error() string { return fmt.Sprintf("it ended itself with code %d", e.code) }

// wasi lists every function of the interface, "i" for i32 and "I" for i64; all but proc_exit give an i32.
var wasi = map[string]string{
	"args_get": "ii", "args_sizes_get": "ii", "environ_get": "ii", "environ_sizes_get": "ii", "clock_res_get": "ii", "clock_time_get": "iIi",
	"fd_advise": "iIIi", "fd_allocate": "iII", "fd_close": "i", "fd_datasync": "i", "fd_fdstat_get": "ii", "fd_fdstat_set_flags": "ii",
	"fd_fdstat_set_rights": "iII", "fd_filestat_get": "ii", "fd_filestat_set_size": "iI", "fd_filestat_set_times": "iIIi", "fd_pread": "iiiIi",
	"fd_prestat_get": "ii", "fd_prestat_dir_name": "iii", "fd_pwrite": "iiiIi", "fd_read": "iiii", "fd_readdir": "iiiIi", "fd_renumber": "ii",
	"fd_seek": "iIii", "fd_sync": "i", "fd_tell": "ii", "fd_write": "iiii", "path_create_directory": "iii", "path_filestat_get": "iiiii",
	"path_filestat_set_times": "iiiiIIi", "path_link": "iiiiiii", "path_open": "iiiiiIIii", "path_readlink": "iiiiii", "path_remove_directory": "iii",
	"path_rename": "iiiiii", "path_symlink": "iiiii", "path_unlink_file": "iii", "poll_oneoff": "iiii", "proc_exit": "i", "proc_raise": "i",
	"random_get": "ii", "sched_yield": "", "sock_accept": "iii", "sock_recv": "iiiiii", "sock_send": "iiiii", "sock_shutdown": "ii",
}

func instantiateWASI(ctx context.Context, r wazero.Runtime) error {
	b := r.NewHostModuleBuilder(wasiModule)
	for name, signature := range wasi {
		params := make([]api.ValueType, len(signature))
		for n, c := range signature {
			params[n] = i32
			if c == 'I' {
				params[n] = i64
			}
		}
		results := []api.ValueType{i32}
		if name == "proc_exit" {
			results = nil
		}
		b = b.NewFunctionBuilder().WithGoModuleFunction(wasiFunction(name), params, results).Export(name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return fmt.Errorf("WASI: %w", err)
	}
	return nil
}

// wasiFunction is what a function of the interface does here; most are not there.
func wasiFunction(name string) api.GoModuleFunc {
	switch name {
	case "args_sizes_get", "environ_sizes_get":
		return func(ctx context.Context, m api.Module, stack []uint64) {
			begin(ctx, 0)
			wasiResult(stack, m.Memory().WriteUint32Le(uint32(stack[0]), 0) && m.Memory().WriteUint32Le(uint32(stack[1]), 0))
		}
	case "args_get", "environ_get", "sched_yield":
		return func(ctx context.Context, _ api.Module, stack []uint64) {
			begin(ctx, 0)
			stack = stack[:1]
			stack[0] = wasiOK
		}
	case "clock_res_get":
		return func(ctx context.Context, m api.Module, stack []uint64) {
			begin(ctx, 0)
			wasiResult(stack, m.Memory().WriteUint64Le(uint32(stack[1]), 1_000_000))
		}
	case "clock_time_get":
		return func(ctx context.Context, m api.Module, stack []uint64) {
			i := begin(ctx, 0)
			wasiResult(stack, m.Memory().WriteUint64Le(uint32(stack[2]), uint64(i.clock/1_000_000*1_000_000)))
		}
	case "random_get":
		return wasiRandom
	case "fd_write":
		return wasiWrite
	case "proc_exit":
		return func(_ context.Context, _ api.Module, stack []uint64) {
			panic(&exitError{uint32(stack[0])}) // how wazero is told that a guest's call is over; it comes back as an error
		}
	}
	code := uint64(wasiNone)
	if len(name) > 3 && name[:3] == "fd_" {
		code = wasiBadFD
	}
	return func(ctx context.Context, _ api.Module, stack []uint64) {
		begin(ctx, 0)
		stack[0] = code
	}
}

func wasiResult(stack []uint64, ok bool) {
	stack[0] = wasiOK
	if !ok {
		stack[0] = wasiFault
	}
}

// wasiRandom is random_get(at, length): the same bytes in every run of a module, so that a recording gives the same findings.
func wasiRandom(ctx context.Context, m api.Module, stack []uint64) {
	i := begin(ctx, uint32(stack[1]))
	b, ok := m.Memory().Read(uint32(stack[0]), uint32(stack[1]))
	if ok = ok && len(b) <= maxStateValue; ok {
		_, _ = i.random.Read(b) // never fails
	}
	wasiResult(stack, ok)
}

// wasiWrite is fd_write(fd, vectors, how many, where to say how much): what goes to standard output and error is logged
// where the module may log, and else forgotten.
func wasiWrite(ctx context.Context, m api.Module, stack []uint64) {
	fd, at, n, written := uint32(stack[0]), uint32(stack[1]), uint32(stack[2]), uint32(stack[3])
	i := begin(ctx, n*8)
	if fd != 1 && fd != 2 {
		stack[0] = wasiBadFD
		return
	}
	if n > 64 {
		stack[0] = wasiFault
		return
	}
	vectors, ok := m.Memory().Read(at, n*8)
	total := uint32(0)
	for ok && len(vectors) > 0 {
		var b []byte
		if b, ok = m.Memory().Read(binary.LittleEndian.Uint32(vectors), binary.LittleEndian.Uint32(vectors[4:])); !ok {
			break
		}
		if len(b) > 0 && i.program.manifest.Grants(modules.CapabilityLog) && i.lines < maxLines {
			i.lines++
			i.host.Log(modules.LogInfo, modules.Printable(string(b[:min(len(b), modules.MaxLog)])))
		}
		total += uint32(len(b))
		vectors = vectors[8:]
	}
	wasiResult(stack, ok && m.Memory().WriteUint32Le(written, total))
}
