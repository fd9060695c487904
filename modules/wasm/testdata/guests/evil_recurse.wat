;; Calls itself without end.
(module (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func $f (param i64 i64 i64 i64) (result i64) (i64.add (call $f (local.get 1) (local.get 2) (local.get 3) (local.get 0)) (i64.const 1))) (func (export "omega_detect") (param i32 i32) (result i64) (call $f (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))
)
