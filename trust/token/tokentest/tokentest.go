// Package tokentest gives tests a real PKCS#11 token in software: SoftHSM 2, from Debian's package softhsm2. It is not
// part of the binary.
package tokentest

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Label and PIN are those of the token that Start makes.
const (
	Label = "omega-test"
	PIN   = "4711-0815"
)

// Start makes a new token, and gives the path of its library and a file with the PIN. The library finds the token by the
// environment, until the test ends. Where there is no SoftHSM the test is skipped.
func Start(t *testing.T) (module, pinFile string) {
	t.Helper()
	util, err := exec.LookPath("softhsm2-util")
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if _, serr := os.Stat(path); serr == nil {
			module = path
			break
		}
	}
	if err != nil || module == "" {
		t.Skip("no SoftHSM on this machine: `apt-get install softhsm2` brings it")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	pinFile = filepath.Join(dir, "pin")
	tokens := filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+tokens+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(pinFile, []byte(PIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	if out, err := exec.Command(util, "--init-token", "--free", "--label", Label, "--so-pin", "so-"+PIN, "--pin", PIN).CombinedOutput(); err != nil {
		t.Fatalf("softhsm2-util: %v: %s", err, out)
	}
	return module, pinFile
}
