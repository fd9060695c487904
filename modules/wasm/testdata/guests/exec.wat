;; Gives a finding on every program that was started: the least guest there is.
(module
  (memory (export "memory") 4)
  (global $sp (mut i32) (i32.const 1024))
  ;; one finding of 53 bytes: size, event, severity 3, confidence 80, subject: process, 4 texts
  (data (i32.const 256) "\35\00\00\00\00\00\00\00\03\50\01\04" "\04\00exec" "\07\00started" "\11\00A program started" "\05\00T1059")
  (func (export "omega_abi_v1"))
  (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
  (func (export "omega_detect") (param $at i32) (param $len i32) (result i64)
    (local $i i32) (local $out i32) (local $e i32) (local $n i32)
    global.get $sp i32.const 16 i32.sub global.set $sp
    i32.const 4100 local.set $out
    (block $done
      (loop $next
        local.get $i local.get $at i32.load offset=4 i32.ge_u br_if $done
        local.get $at
        local.get $at local.get $i i32.const 4 i32.mul i32.add i32.load offset=8
        i32.add local.set $e
        (if (i32.and (i32.eq (i32.load16_u offset=4 (local.get $e)) (i32.const 1007)) (i32.eq (i32.load8_u offset=6 (local.get $e)) (i32.const 2)))
          (then
            (memory.copy (local.get $out) (i32.const 256) (i32.const 53))
            (i32.store (local.get $out) (i32.const 53))
            (i32.store offset=4 (local.get $out) (local.get $i))
            (local.set $out (i32.add (local.get $out) (i32.const 53)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        br $next))
    global.get $sp i32.const 16 i32.add global.set $sp
    (i32.store (i32.const 4096) (local.get $n))
    (if (result i64) (local.get $n)
      (then (i64.or (i64.shl (i64.const 4096) (i64.const 32)) (i64.extend_i32_u (i32.sub (local.get $out) (i32.const 4096)))))
      (else (i64.const 0))))
)
