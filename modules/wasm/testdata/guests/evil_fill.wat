;; Clears its memory without end: few instructions, much work.
(module (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
(func (export "omega_detect") (param i32 i32) (result i64) (loop $l (memory.fill (i32.const 0) (i32.const 7) (i32.const 262144)) br $l) i64.const 0)
)
