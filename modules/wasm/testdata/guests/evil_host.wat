;; Floods the host with calls.
(module (import "omega" "log" (func $log (param i32 i32 i32) (result i32))) (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func (export "omega_detect") (param i32 i32) (result i64) (loop $l (drop (call $log (i32.const 1) (i32.const 0) (i32.const 512))) br $l) i64.const 0)
)
