package identity

import (
	"bytes"
	"errors"
	"testing"
)

func TestSeal(t *testing.T) {
	raw, err := Seal("test/1", []byte("secret"), []byte("pass"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Unseal("test/1", raw, []byte("pass")); err != nil || !bytes.Equal(got, []byte("secret")) {
		t.Fatal(got, err)
	}
	for _, c := range []struct{ purpose, pass string }{{"test/2", "pass"}, {"test/1", "other"}, {"test/1", ""}} {
		if _, err := Unseal(c.purpose, raw, []byte(c.pass)); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}
