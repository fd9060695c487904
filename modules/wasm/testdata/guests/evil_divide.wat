;; Divides by zero.
(module (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func (export "omega_detect") (param i32 i32) (result i64) (drop (i32.div_u (local.get 1) (i32.const 0))) i64.const 0)
)
