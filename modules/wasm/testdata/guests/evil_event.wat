;; Gives a finding on an event it was not given.
(module (memory (export "memory") 4) (func (export "omega_abi_v1")) (func (export "omega_alloc") (param i32) (result i32) i32.const 65536) (data (i32.const 4096) "\01\00\00\00\17\00\00\00\09\00\00\00\03\50\01\04\01\00x\00\00\00\00\00\00\00")
(func (export "omega_detect") (param i32 i32) (result i64) (i64.const 0x000010000000001b))
)
