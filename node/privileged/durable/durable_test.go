package durable

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteAndRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	for _, want := range []string{"first", "", "second"} {
		if err := Write(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 6); err != nil || string(got) != want {
			t.Errorf("%q %v", got, err)
		}
	}
	if _, err := Read(path, 5); err == nil {
		t.Error("more than its bound is read")
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	if _, err := os.Stat(path + New); !os.IsNotExist(err) {
		t.Error("what was not whole is left")
	}
	link := path + ".link"
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(link, 100); err == nil {
		t.Error("a link is followed")
	}
	if err := os.Symlink(path, link+New); err != nil {
		t.Fatal(err)
	}
	if err := Write(link, []byte("evil")); err == nil {
		t.Error("a link in place of what is not whole yet is followed")
	}
}
