;; Ends itself.
(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32))) (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func (export "omega_detect") (param i32 i32) (result i64) (call $exit (i32.const 3)) i64.const 0)
)
