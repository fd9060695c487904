;; Hashes each byte it is given (FNV-1a): a guest whose work is a tight loop, to weigh the counter against.
(module
  (memory (export "memory") 4)
  (func (export "omega_abi_v1"))
  (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
  (func (export "omega_detect") (param $at i32) (param $len i32) (result i64)
    (local $h i64) (local $end i32)
    (local.set $h (i64.const 0xcbf29ce484222325))
    (local.set $end (i32.add (local.get $at) (local.get $len)))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $h (i64.mul (i64.xor (local.get $h) (i64.extend_i32_u (i32.load8_u (local.get $at)))) (i64.const 0x100000001b3)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        br $next))
    (if (i64.eqz (local.get $h)) (then unreachable))
    i64.const 0)
)
