package vectors

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/composite"
)

// ietfComposite is the vector that the authors of the composite published for this algorithm: their key, their signature of
// their message, by another implementation of both halves. A bit flipped anywhere, one half alone, and the halves of two
// signatures are refused.
func ietfComposite(t *testing.T, n *tally) {
	var v struct {
		TcID     string `json:"tcId"`
		M        []byte `json:"m"`
		SK       []byte `json:"sk"`
		PKBegins string `json:"pkBegins"` // the whole follows from the private key
		PKEnds   string `json:"pkEnds"`
		S        []byte `json:"s"`
	}
	read(t, &v, "testdata", "ietf-composite.json")
	k, err := composite.FromSeed(trust.SuiteDefault, v.SK)
	if err != nil {
		t.Fatal(err)
	}
	pk := k.Public()
	if got := base64.StdEncoding.EncodeToString(pk.Bytes()); !strings.HasPrefix(got, v.PKBegins) || !strings.HasSuffix(got, v.PKEnds) {
		t.Fatalf("the public key is another: %.40s…", got)
	}
	if v.TcID != "id-MLDSA65-Ed25519-SHA512" || !pk.Verify("", v.M, v.S) {
		t.Fatal("the published signature does not verify")
	}
	if pk.Verify("x", v.M, v.S) || pk.Verify("", append(bytes.Clone(v.M), ' '), v.S) {
		t.Fatal("it verifies for another context or message")
	}
	for at := 0; at < len(v.S); at++ {
		bad := bytes.Clone(v.S)
		bad[at] ^= 1 << (at % 8)
		if pk.Verify("", v.M, bad) {
			t.Fatalf("with a bit of byte %d flipped it verifies", at)
		}
	}
	own, err := k.Sign("", []byte("another message"))
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{
		append(bytes.Clone(v.S[:mldsa65.SignatureSize]), own[mldsa65.SignatureSize:]...),
		append(bytes.Clone(own[:mldsa65.SignatureSize]), v.S[mldsa65.SignatureSize:]...),
		append(bytes.Clone(v.S[:mldsa65.SignatureSize]), make([]byte, ed25519.SignatureSize)...),
	} {
		if pk.Verify("", v.M, bad) {
			t.Fatal("the halves of two signatures verify as one")
		}
	}
	pass(t, n, "IETF composite", 1)
}
