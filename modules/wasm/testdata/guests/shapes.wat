;; Every way out of a function: falling off its end, return from within blocks and loops, branches to the function's own
;; label, br_table, several results. Its answer is a number, so that a rewrite that changes its meaning shows.
(module
  (memory (export "memory") 4)
  (table 2 funcref)
  (elem (i32.const 0) $early $table)
  (type $pair (func (param i32) (result i32 i64)))
  (type $one (func (param i32) (result i64)))
  (func $split (type $pair) (param i32) (result i32 i64)
    (if (i32.gt_u (local.get 0) (i32.const 5))
      (then (drop (call $early (i32.const 1))) (return (i32.const 1) (i64.const 100))))
    (drop (call $early (i32.const 0)))
    (i32.const 2) (i64.extend_i32_u (local.get 0)))
  (func $early (type $one) (param i32) (result i64)
    (local i64)
    (loop $l
      (block $b
        (if (i32.eqz (local.get 0)) (then (return (i64.add (local.get 1) (i64.const 1000)))))
        (br_if $b (i32.and (local.get 0) (i32.const 1)))
        (local.set 1 (i64.add (local.get 1) (call $leaf (local.get 0)))))
      (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
      br $l)
    unreachable)
  (func $leaf (param i32) (result i64) (return (i64.extend_i32_u (i32.mul (local.get 0) (i32.const 3)))))
  (func $table (type $one) (param i32) (result i64)
    (local i64)
    (drop (call $leaf (i32.const 1)))
    (block $two (block $one (block $zero
      (br_table $zero $one $two $two (local.get 0)))
      (return (i64.const 10))) ;; zero
      (i64.const 20) (br 1))   ;; one, by the function's own label
    (i64.const 30) return)
  (func (export "omega_abi_v1"))
  (func (export "omega_alloc") (param i32) (result i32) i32.const 65536)
  (func (export "run") (param $n i32) (result i64)
    (local $a i32) (local $b i64)
    (call $split (local.get $n)) local.set $b local.set $a
    (i64.add (i64.add (i64.extend_i32_u (local.get $a)) (local.get $b))
      (i64.mul (i64.const 10000) (call_indirect (type $one) (i32.rem_u (local.get $n) (i32.const 3)) (i32.and (local.get $n) (i32.const 1))))))
  (func (export "omega_detect") (param i32 i32) (result i64) i64.const 0)
)
