// Package tpmtest gives tests a real TPM 2.0 in software: swtpm, from Debian's package of that name. It is not part of
// the binary.
package tpmtest

import (
	"crypto/sha256"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// Start runs an emulator, powered on and new, until the test ends, and gives its socket. Where there is no swtpm the test
// is skipped.
func Start(t testing.TB) string {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("no swtpm on this machine: `apt-get install swtpm` brings it")
	}
	dir, err := os.MkdirTemp("", "tpm") // a socket's path is short, and a test's folder may not be
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// It inherits the listening socket: whoever connects before it serves, waits.
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir, "--server", "type=unixio,fd=3", "--flags", "not-need-init,startup-clear")
	cmd.ExtraFiles = []*os.File{f}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	return path
}

// Extend measures something else into a PCR, as other firmware would. Nobody else may have the emulator open.
func Extend(t testing.TB, path string, pcr uint32) {
	t.Helper()
	d, err := linuxudstpm.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	ExtendBy(t, d, pcr)
}

// ExtendBy is Extend over a connection that is open.
func ExtendBy(t testing.TB, d transport.TPM, pcr uint32) {
	t.Helper()
	digest := sha256.Sum256([]byte("other firmware"))
	if _, err := (tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(pcr), Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: digest[:]}}},
	}).Execute(d); err != nil {
		t.Fatal(err)
	}
}
