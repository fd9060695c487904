package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/omega-mesh/omega/trust/token"
	"github.com/omega-mesh/omega/trust/token/tokentest"
)

func TestWithoutPKCS11(t *testing.T) {
	if token.Built {
		t.Skip("this build has PKCS#11")
	}
	h := host{t, filepath.Join(t.TempDir(), "n1")}
	h.refuse(exitFailed, []string{"make build-pkcs11"}, "init", "--key-store", "pkcs11", "--next-key", filepath.Join(t.TempDir(), "next"))
}

// A key in a PKCS#11 token, as its owner meets it, by the binary that `make build-pkcs11` makes.
func TestKeyInAToken(t *testing.T) {
	if !token.Built {
		t.Skip("needs the build tag pkcs11: `make test-pkcs11`")
	}
	module, pin := tokentest.Start(t)
	base := t.TempDir()
	h := host{t, filepath.Join(base, "n1")}
	next := filepath.Join(base, "stick")
	flags := []string{"--pkcs11-module", module, "--pkcs11-token", tokentest.Label, "--pkcs11-pin-file", pin}
	h.refuse(exitFailed, []string{"--pkcs11-module"}, "init", "--key-store", "pkcs11", "--next-key", next)
	h.refuse(exitUsage, []string{"way back"}, append([]string{"init", "--key-store", "pkcs11"}, flags...)...)
	if o := h.object(append([]string{"init", "--swarm", "home", "--name", "n1", "--key-store", "pkcs11", "--next-key", next}, flags...)...); o["protection"] != "pkcs11" {
		t.Errorf("init: %v", o)
	}
	if o := h.object("key", "status", "--next-key", next); o["protection"] != "pkcs11" || o["in_token"] != true || o["next_present"] != true || o["recovery_present"] != true {
		t.Errorf("key status: %v", o)
	}
	config := fmt.Sprintf("pkcs11_module: %s\npkcs11_token: %s\npkcs11_pin_file: %s\n", module, tokentest.Label, pin)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(h.dir, "omega.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(config)
	if os.Geteuid() == 0 {
		h.refuse(exitFailed, []string{"split: false"}, "up", "--sensor", "procfs")
	}
	write(config + "split: false\n")
	stop := up(t, h.dir, freePort(t))
	h.doctor("key at rest", true, "PKCS#11 token")
	h.doctor("entropy", true, "kernel, jitter, token")
	h.must("key", "rotate", "--next-key", next)
	if o := h.object("key", "status", "--next-key", next); o["protection"] != "pkcs11" || o["rotation"] != 1.0 || o["in_token"] != true {
		t.Errorf("key status after a rotation: %v", o)
	}
	stop()
	up(t, h.dir, freePort(t))()
	h.refuse(exitNotPermitted, []string{"rotate to the next key"}, "key", "protect", "--key-store", "file", "--next-key", next)

	wrong := filepath.Join(base, "wrong")
	if err := os.WriteFile(wrong, []byte("0000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.refuse(exitNotPermitted, []string{"refused the PIN"}, "up", "--sensor", "procfs", "--pkcs11-pin-file", wrong)
}
