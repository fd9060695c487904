;; Names that nobody chose and that are not there: ten different ones that one process was denied within five minutes. A
;; name counts if the label before the last has ten letters and digits or more, and a run of five without a vowel in it, or
;; three digits among letters. 256 processes are known at a time: a slot has the pid, when its time began, how many names
;; it had, and the hash of the last one.
(module
  (memory (export "memory") 3)
  ;; one finding: size, event, severity 3 medium, confidence 50, subject: process, 4 texts
  (data (i32.const 512) "\71\00\00\00\00\00\00\00\03\32\01\04" "\0f\00generated-names" "\0f\00generated names" "\36\00Names that nobody chose were asked for, none was there" "\09\00T1568.002")
  (func (export "omega_abi_v1"))
  (func (export "omega_alloc") (param i32) (result i32) i32.const 131072)

  (func $hash (param $at i32) (param $end i32) (result i32)
    (local $h i32)
    (local.set $h (i32.const 0x811c9dc5))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $h (i32.mul (i32.xor (local.get $h) (i32.or (i32.load8_u (local.get $at)) (i32.const 32))) (i32.const 0x01000193)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (local.get $h))

  ;; the dot before $end, or $at - 1
  (func $dot (param $at i32) (param $end i32) (result i32)
    (local.set $end (i32.sub (local.get $end) (i32.const 1)))
    (block $done
      (loop $back
        (br_if $done (i32.lt_u (local.get $end) (local.get $at)))
        (br_if $done (i32.eq (i32.load8_u (local.get $end)) (i32.const 46)))
        (local.set $end (i32.sub (local.get $end) (i32.const 1)))
        (br $back)))
    (local.get $end))

  (func $vowel (param $c i32) (result i32)
    (i32.or (i32.or (i32.or (i32.eq (local.get $c) (i32.const 97)) (i32.eq (local.get $c) (i32.const 101)))
                    (i32.or (i32.eq (local.get $c) (i32.const 105)) (i32.eq (local.get $c) (i32.const 111))))
            (i32.or (i32.eq (local.get $c) (i32.const 117)) (i32.eq (local.get $c) (i32.const 121)))))

  ;; whether a label looks made up
  (func $random (param $at i32) (param $end i32) (result i32)
    (local $c i32) (local $run i32) (local $most i32) (local $digits i32) (local $letters i32)
    (if (i32.lt_s (i32.sub (local.get $end) (local.get $at)) (i32.const 10)) (then (return (i32.const 0))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $c (i32.or (i32.load8_u (local.get $at)) (i32.const 32)))
        (if (i32.eq (local.get $c) (i32.const 45)) (then (return (i32.const 0)))) ;; words joined by a dash are somebody's
        (if (i32.lt_u (i32.sub (local.get $c) (i32.const 48)) (i32.const 10))
          (then (local.set $digits (i32.add (local.get $digits) (i32.const 1))))
          (else (local.set $letters (i32.add (local.get $letters) (i32.const 1)))))
        (if (call $vowel (local.get $c))
          (then (local.set $run (i32.const 0)))
          (else
            (local.set $run (i32.add (local.get $run) (i32.const 1)))
            (if (i32.gt_u (local.get $run) (local.get $most)) (then (local.set $most (local.get $run))))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.or (i32.ge_u (local.get $most) (i32.const 5))
            (i32.and (i32.ge_u (local.get $digits) (i32.const 3)) (i32.ge_u (local.get $letters) (i32.const 4)))))

  (func $name (param $at i32) (param $end i32) (param $pid i32) (param $now i64) (result i32)
    (local $last i32) (local $slot i32) (local $h i32)
    (local.set $last (call $dot (local.get $at) (local.get $end)))
    (if (i32.le_u (local.get $last) (local.get $at)) (then (return (i32.const 0)))) ;; one label: browsers ask for such at their start
    (if (i32.eqz (call $random (i32.add (call $dot (local.get $at) (local.get $last)) (i32.const 1)) (local.get $last))) (then (return (i32.const 0))))
    (local.set $h (call $hash (local.get $at) (local.get $end)))
    (local.set $slot (i32.add (i32.const 8192) (i32.mul (i32.and (local.get $pid) (i32.const 255)) (i32.const 24))))
    (if (i32.or (i32.ne (i32.load (local.get $slot)) (local.get $pid))
                (i64.gt_u (i64.sub (local.get $now) (i64.load offset=8 (local.get $slot))) (i64.const 300000000000)))
      (then
        (i32.store (local.get $slot) (local.get $pid))
        (i32.store offset=4 (local.get $slot) (i32.const 0))
        (i64.store offset=8 (local.get $slot) (local.get $now))
        (i32.store offset=16 (local.get $slot) (i32.const 0))))
    (if (i32.eq (i32.load offset=16 (local.get $slot)) (local.get $h)) (then (return (i32.const 0))))
    (i32.store offset=16 (local.get $slot) (local.get $h))
    (i32.store offset=4 (local.get $slot) (i32.add (i32.load offset=4 (local.get $slot)) (i32.const 1)))
    (if (i32.lt_u (i32.load offset=4 (local.get $slot)) (i32.const 10)) (then (return (i32.const 0))))
    (i32.store offset=4 (local.get $slot) (i32.const 0))
    (i32.const 1))

  (func (export "omega_detect") (param $at i32) (param $len i32) (result i64)
    (local $i i32) (local $out i32) (local $e i32) (local $n i32) (local $from i32)
    (local.set $out (i32.const 32772))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (i32.load offset=4 (local.get $at))))
        (local.set $e (i32.add (local.get $at) (i32.load offset=8 (i32.add (local.get $at) (i32.mul (local.get $i) (i32.const 4))))))
        (local.set $from (i32.add (local.get $e) (i32.load16_u offset=384 (local.get $e))))
        (if (call $name (local.get $from) (i32.add (local.get $from) (i32.load16_u offset=386 (local.get $e))) (i32.load offset=24 (local.get $e)) (i64.load offset=16 (local.get $e)))
          (then
            (memory.copy (local.get $out) (i32.const 512) (i32.const 113))
            (i32.store offset=4 (local.get $out) (local.get $i))
            (local.set $out (i32.add (local.get $out) (i32.const 113)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 32768) (local.get $n))
    (if (result i64) (local.get $n)
      (then (i64.or (i64.shl (i64.const 32768) (i64.const 32)) (i64.extend_i32_u (i32.sub (local.get $out) (i32.const 32768)))))
      (else (i64.const 0)))))
