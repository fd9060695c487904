;; Fills its state without end.
(module (import "omega" "state_put" (func $put (param i32 i32 i32 i32 i64) (result i32))) (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func (export "omega_detect") (param i32 i32) (result i64) (local $i i32) (loop $l (i32.store (i32.const 16) (local.get $i)) (local.set $i (i32.add (local.get $i) (i32.const 1))) (drop (call $put (i32.const 16) (i32.const 4) (i32.const 0) (i32.const 65536) (i64.const 0))) br $l) i64.const 0)
)
