;; An exponential tree of calls without a loop.
(module (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func $f (param i32) (result i64) (if (result i64) (i32.eqz (local.get 0)) (then (i64.const 0)) (else (i64.add (call $f (i32.sub (local.get 0) (i32.const 1))) (call $f (i32.sub (local.get 0) (i32.const 1))))))) (func (export "omega_detect") (param i32 i32) (result i64) (call $f (i32.const 60)))
)
