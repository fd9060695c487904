;; Names of one domain carry data: within a minute twelve different names under it, each with 24 characters or more before
;; it, of which 12 or more are different. A domain is taken to be the last two labels. 256 domains are known at a time: a
;; slot has the domain's hash, when its minute began, how many names it had, and the hash of the last one.
(module
  (memory (export "memory") 3)
  ;; one finding: size, event, severity 4 high, confidence 50, subject: process, 4 texts
  (data (i32.const 512) "\5b\00\00\00\00\00\00\00\04\32\01\04" "\0a\00dns-tunnel" "\0a\00dns tunnel" "\20\00Names of one domain carried data" "\13\00T1071.004,T1048.003")
  (func (export "omega_abi_v1"))
  (func (export "omega_alloc") (param i32) (result i32) i32.const 131072)

  ;; FNV-1a over a text, in lower case
  (func $hash (param $at i32) (param $end i32) (result i32)
    (local $h i32) (local $c i32)
    (local.set $h (i32.const 0x811c9dc5))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $c (i32.load8_u (local.get $at)))
        (local.set $h (i32.mul (i32.xor (local.get $h) (i32.or (local.get $c) (i32.const 32))) (i32.const 0x01000193)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (local.get $h))

  ;; where the last two labels of a name begin
  (func $domain (param $at i32) (param $end i32) (result i32)
    (local $dots i32) (local $i i32)
    (local.set $i (local.get $end))
    (block $done
      (loop $back
        (br_if $done (i32.le_u (local.get $i) (local.get $at)))
        (if (i32.eq (i32.load8_u (i32.sub (local.get $i) (i32.const 1))) (i32.const 46))
          (then
            (local.set $dots (i32.add (local.get $dots) (i32.const 1)))
            (br_if $done (i32.eq (local.get $dots) (i32.const 2)))))
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (br $back)))
    (local.get $i))

  ;; how many different characters a text has: a bit for each of 64
  (func $different (param $at i32) (param $end i32) (result i32)
    (local $bits i64)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $bits (i64.or (local.get $bits) (i64.shl (i64.const 1) (i64.extend_i32_u (i32.and (i32.or (i32.load8_u (local.get $at)) (i32.const 32)) (i32.const 63))))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $next)))
    (i32.wrap_i64 (i64.popcnt (local.get $bits))))

  ;; whether this name completes twelve
  (func $name (param $at i32) (param $end i32) (param $now i64) (result i32)
    (local $d i32) (local $slot i32) (local $h i32) (local $last i32)
    (local.set $d (call $domain (local.get $at) (local.get $end)))
    (if (i32.lt_u (i32.sub (local.get $d) (local.get $at)) (i32.const 25)) (then (return (i32.const 0))))
    (if (i32.lt_u (call $different (local.get $at) (local.get $d)) (i32.const 12)) (then (return (i32.const 0))))
    (local.set $h (call $hash (local.get $d) (local.get $end)))
    (local.set $last (call $hash (local.get $at) (local.get $d)))
    (local.set $slot (i32.add (i32.const 8192) (i32.mul (i32.and (local.get $h) (i32.const 255)) (i32.const 24))))
    (if (i32.or (i32.ne (i32.load (local.get $slot)) (local.get $h))
                (i64.gt_u (i64.sub (local.get $now) (i64.load offset=8 (local.get $slot))) (i64.const 60000000000)))
      (then
        (i32.store (local.get $slot) (local.get $h))
        (i32.store offset=4 (local.get $slot) (i32.const 0))
        (i64.store offset=8 (local.get $slot) (local.get $now))
        (i32.store offset=16 (local.get $slot) (i32.const 0))))
    (if (i32.eq (i32.load offset=16 (local.get $slot)) (local.get $last)) (then (return (i32.const 0))))
    (i32.store offset=16 (local.get $slot) (local.get $last))
    (i32.store offset=4 (local.get $slot) (i32.add (i32.load offset=4 (local.get $slot)) (i32.const 1)))
    (if (i32.lt_u (i32.load offset=4 (local.get $slot)) (i32.const 12)) (then (return (i32.const 0))))
    (i32.store offset=4 (local.get $slot) (i32.const 0))
    (i32.const 1))

  (func (export "omega_detect") (param $at i32) (param $len i32) (result i64)
    (local $i i32) (local $out i32) (local $e i32) (local $n i32) (local $from i32)
    (local.set $out (i32.const 32772))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (i32.load offset=4 (local.get $at))))
        (local.set $e (i32.add (local.get $at) (i32.load offset=8 (i32.add (local.get $at) (i32.mul (local.get $i) (i32.const 4))))))
        ;; string 24, the name asked for
        (local.set $from (i32.add (local.get $e) (i32.load16_u offset=384 (local.get $e))))
        (if (call $name (local.get $from) (i32.add (local.get $from) (i32.load16_u offset=386 (local.get $e))) (i64.load offset=16 (local.get $e)))
          (then
            (memory.copy (local.get $out) (i32.const 512) (i32.const 91))
            (i32.store offset=4 (local.get $out) (local.get $i))
            (local.set $out (i32.add (local.get $out) (i32.const 91)))
            (local.set $n (i32.add (local.get $n) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.store (i32.const 32768) (local.get $n))
    (if (result i64) (local.get $n)
      (then (i64.or (i64.shl (i64.const 32768) (i64.const 32)) (i64.extend_i32_u (i32.sub (local.get $out) (i32.const 32768)))))
      (else (i64.const 0)))))
