package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/omega-mesh/omega/trust/tpm/tpmtest"
)

// host is a state folder, and what a person types there.
type host struct {
	t   *testing.T
	dir string
}

func (h host) try(args ...string) (out, errOut string, code int) {
	h.t.Helper()
	return process(h.t, "", append(args, "--dir", h.dir)...)
}

func (h host) must(args ...string) string {
	h.t.Helper()
	out, errOut, code := h.try(args...)
	if code != exitDone {
		h.t.Fatalf("omega %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errOut)
	}
	return out
}

// object is the one JSON object that a command prints.
func (h host) object(args ...string) (o map[string]any) {
	h.t.Helper()
	out := h.must(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &o); err != nil {
		h.t.Fatalf("%v: %s", err, out)
	}
	return o
}

// refuse wants a code, and one line that says all of words.
func (h host) refuse(code int, words []string, args ...string) {
	h.t.Helper()
	out, errOut, got := h.try(args...)
	if got != code || strings.Count(errOut, "\n") != 1 {
		h.t.Errorf("omega %s: exit %d, want %d and one line\n%s%s", strings.Join(args, " "), got, code, out, errOut)
	}
	for _, w := range words {
		if !strings.Contains(errOut, w) {
			h.t.Errorf("omega %s does not say %q: %s", strings.Join(args, " "), w, errOut)
		}
	}
}

// doctor wants a check to be ok or not, and to say something.
func (h host) doctor(name string, ok bool, says string) {
	h.t.Helper()
	for _, c := range h.object("doctor")["checks"].([]any) {
		if c := c.(map[string]any); c["name"] == name {
			if detail := fmt.Sprint(c["detail"]); c["ok"] != ok || !strings.Contains(detail, says) {
				h.t.Errorf("doctor: %v", c)
			}
			return
		}
	}
	h.t.Errorf("doctor does not check %q", name)
}

// A key sealed to a TPM, as its owner meets it: made, used by the node's two processes, attested, rotated; kept back when
// the host starts otherwise, and sealed anew.
func TestKeyInATPM(t *testing.T) {
	if testing.Short() {
		t.Skip("runs nodes")
	}
	tpm := tpmtest.Start(t)
	base := t.TempDir()
	h := host{t, filepath.Join(base, "n1")}
	pass := filepath.Join(base, "pass")
	if err := os.WriteFile(pass, []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.refuse(exitUsage, []string{"way back", "--passphrase-file"}, "init", "--swarm", "home", "--key-store", "tpm", "--tpm", tpm)
	h.refuse(exitFailed, []string{"no TPM", "--tpm"}, "init", "--key-store", "tpm", "--tpm", filepath.Join(base, "none"), "--passphrase-file", pass)
	if o := h.object("init", "--swarm", "home", "--name", "n1", "--key-store", "tpm", "--tpm", tpm, "--passphrase-file", pass); o["protection"] != "tpm" {
		t.Errorf("init: %v", o)
	}
	if o := h.object("key", "status"); o["protection"] != "tpm" || fmt.Sprint(o["pcrs"]) != "[7]" || o["recovery_present"] != true {
		t.Errorf("key status: %v", o)
	}
	if err := os.WriteFile(filepath.Join(h.dir, "omega.yaml"), []byte("tpm: "+tpm+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop := up(t, h.dir, freePort(t))
	h.doctor("key at rest", true, "PCR 7 (Secure Boot)")
	h.doctor("entropy", true, "kernel, jitter, tpm")

	nonce, quote := strings.Repeat("ab", 32), filepath.Join(base, "quote")
	h.must("key", "quote", quote, "--nonce", nonce)
	o := h.object("key", "verify", quote, "--nonce", nonce, "--peer", "n1")
	seven := fmt.Sprint(o["pcrs"].(map[string]any)["7"])
	if o["ok"] != true || o["name"] != "n1" || len(seven) != 64 {
		t.Errorf("key verify: %v", o)
	}
	h.must("key", "verify", quote, "--nonce", nonce, "--expect", "7="+seven)
	h.refuse(exitFailed, []string{"another nonce"}, "key", "verify", quote, "--nonce", strings.Repeat("ac", 32))
	h.refuse(exitFailed, []string{"PCR 7", "otherwise"}, "key", "verify", quote, "--nonce", nonce, "--expect", "7="+nonce)
	h.refuse(exitUsage, []string{"--nonce"}, "key", "quote", quote, "--nonce", "abcd")

	h.must("key", "rotate", "--passphrase-file", pass)
	if o := h.object("key", "status"); o["protection"] != "tpm" || o["rotation"] != 1.0 || o["recovery_present"] != true {
		t.Errorf("key status after a rotation: %v", o)
	}
	// What the old key endorsed is not the word of this identity any more; the node endorsed the TPM again.
	h.refuse(exitFailed, []string{"key 1 is in use"}, "key", "verify", quote, "--nonce", nonce, "--peer", "n1")
	h.must("key", "quote", quote, "--nonce", nonce)
	h.must("key", "verify", quote, "--nonce", nonce, "--peer", "n1")
	stop()
	up(t, h.dir, freePort(t))()

	tpmtest.Extend(t, tpm, 7)
	h.refuse(exitNotPermitted, []string{"PCR 7 (Secure Boot) changed", "omega key protect"}, "up", "--sensor", "procfs")
	h.refuse(exitUsage, []string{"way back"}, "key", "protect")
	h.must("key", "protect", "--passphrase-file", pass)
	stop = up(t, h.dir, freePort(t))
	h.must("key", "quote", quote, "--nonce", nonce)
	if o := h.object("key", "verify", quote, "--nonce", nonce, "--peer", "n1"); fmt.Sprint(o["pcrs"].(map[string]any)["7"]) == seven {
		t.Error("the quote does not show that PCR 7 changed")
	}
	stop()
	h.must("key", "protect", "--key-store", "file", "--passphrase-file", pass)
	if o := h.object("key", "status"); o["protection"] != "passphrase" {
		t.Errorf("key status: %v", o)
	}
	// A TPM that is gone keeps nobody from starting, where it keeps no key; but it is named.
	if err := os.WriteFile(filepath.Join(h.dir, "omega.yaml"), []byte("tpm: "+pass+"\npassphrase_file: "+pass+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stop = up(t, h.dir, freePort(t))
	h.doctor("entropy", false, "dropped: tpm")
	stop()
}
