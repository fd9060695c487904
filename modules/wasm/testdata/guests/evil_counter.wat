;; Names the counter it is stopped by.
(module (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536) (global $g (mut i64) (i64.const 0))
(func (export "omega_detect") (param i32 i32) (result i64) (global.set 0 (i64.const 99)) i64.const 0)
)
