;; Opens a file.
(module (import "wasi_snapshot_preview1" "path_open" (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))) (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536) (data (i32.const 32) "/etc/passwd")
(func (export "omega_detect") (param i32 i32) (result i64) (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 32) (i32.const 11) (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 64))) (then unreachable)) i64.const 0)
)
