package vectors

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"path/filepath"
	"testing"
)

// acvpMLKEMKeyGen runs against crypto/mlkem, which is what crypto/tls agrees on keys with.
func acvpMLKEMKeyGen(t *testing.T, dir string, n *tally) {
	var prompt, results acvp
	dir = filepath.Join(dir, "kem/mlkem/testdata/ML-KEM-keyGen-FIPS203")
	read(t, &prompt, dir, "prompt.json.gz")
	read(t, &results, dir, "expectedResults.json.gz")
	want, cases := results.byID(), 0
	for _, g := range prompt.TestGroups {
		if g.ParameterSet == "ML-KEM-512" {
			continue
		}
		for _, c := range g.Tests {
			ek, err := encapsulationKey(g.ParameterSet, append(bytes.Clone(c.D), c.Z...))
			if err != nil || !bytes.Equal(ek, want[c.TcID].EK) {
				t.Errorf("%s test %d: another key, %v", g.ParameterSet, c.TcID, err)
			}
			cases++
		}
	}
	pass(t, n, "ACVP ML-KEM keyGen", cases)
}

// acvpMLKEMEncapsulate runs against crypto/mlkem. The file's decapsulation keys are in the expanded form, which that
// package does not take: wycheproofMLKEMDecapsulate, whose keys are seeds, stands for them.
func acvpMLKEMEncapsulate(t *testing.T, dir string, n *tally) {
	var prompt, results acvp
	dir = filepath.Join(dir, "kem/mlkem/testdata/ML-KEM-encapDecap-FIPS203")
	read(t, &prompt, dir, "prompt.json.gz")
	read(t, &results, dir, "expectedResults.json.gz")
	want, cases := results.byID(), 0
	for _, g := range prompt.TestGroups {
		if g.ParameterSet == "ML-KEM-512" || g.Function != "encapsulation" {
			continue
		}
		for _, c := range g.Tests {
			key, ciphertext, err := encapsulate(g.ParameterSet, c.EK, c.M)
			if err != nil || !bytes.Equal(key, want[c.TcID].K) || !bytes.Equal(ciphertext, want[c.TcID].C) {
				t.Errorf("%s test %d: another key or ciphertext, %v", g.ParameterSet, c.TcID, err)
			}
			cases++
		}
	}
	pass(t, n, "ACVP ML-KEM encapsulation", cases)
}

func encapsulate(set string, ek, random []byte) (key, ciphertext []byte, err error) {
	if set == "ML-KEM-768" {
		k, err := mlkem.NewEncapsulationKey768(ek)
		if err != nil {
			return nil, nil, err
		}
		return mlkemtest.Encapsulate768(k, random)
	}
	k, err := mlkem.NewEncapsulationKey1024(ek)
	if err != nil {
		return nil, nil, err
	}
	return mlkemtest.Encapsulate1024(k, random)
}

func encapsulationKey(set string, seed []byte) ([]byte, error) {
	if set == "ML-KEM-768" {
		k, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			return nil, err
		}
		return k.EncapsulationKey().Bytes(), nil
	}
	k, err := mlkem.NewDecapsulationKey1024(seed)
	if err != nil {
		return nil, err
	}
	return k.EncapsulationKey().Bytes(), nil
}

func decapsulate(set string, seed, c []byte) ([]byte, error) {
	if set == "ML-KEM-768" {
		k, err := mlkem.NewDecapsulationKey768(seed)
		if err != nil {
			return nil, err
		}
		return k.Decapsulate(c)
	}
	k, err := mlkem.NewDecapsulationKey1024(seed)
	if err != nil {
		return nil, err
	}
	return k.Decapsulate(c)
}

// mlkemCases is the form of Wycheproof's ML-KEM files.
type mlkemCases struct {
	TestGroups []struct {
		ParameterSet string `json:"parameterSet"`
		Tests        []struct {
			TcID   int      `json:"tcId"`
			Seed   hexBytes `json:"seed"`
			EK     hexBytes `json:"ek"`
			M      hexBytes `json:"m"`
			C      hexBytes `json:"c"`
			K      hexBytes `json:"K"`
			Result string   `json:"result"`
		} `json:"tests"`
	} `json:"testGroups"`
}

// wycheproofMLKEMKeyGen runs against crypto/mlkem, as all of ML-KEM here.
func wycheproofMLKEMKeyGen(t *testing.T, dir string, n *tally) {
	cases := 0
	for _, file := range []string{"mlkem_768_keygen_seed_test.json", "mlkem_1024_keygen_seed_test.json"} {
		var v mlkemCases
		read(t, &v, dir, file)
		for _, g := range v.TestGroups {
			for _, c := range g.Tests {
				cases++
				ek, err := encapsulationKey(g.ParameterSet, c.Seed)
				if ok := err == nil && bytes.Equal(ek, c.EK); ok != (c.Result == "valid") {
					t.Errorf("%s test %d: %v, %v, want %s", g.ParameterSet, c.TcID, ok, err, c.Result)
				}
			}
		}
	}
	pass(t, n, "Wycheproof ML-KEM keyGen", cases)
}

// wycheproofMLKEMEncapsulate has keys whose coefficients are no residues: FIPS 203, 7.2 wants them refused.
func wycheproofMLKEMEncapsulate(t *testing.T, dir string, n *tally) {
	cases := 0
	for _, file := range []string{"mlkem_768_encaps_test.json", "mlkem_1024_encaps_test.json"} {
		var v mlkemCases
		read(t, &v, dir, file)
		for _, g := range v.TestGroups {
			for _, c := range g.Tests {
				cases++
				key, ciphertext, err := encapsulate(g.ParameterSet, c.EK, c.M)
				if ok := err == nil && bytes.Equal(key, c.K) && bytes.Equal(ciphertext, c.C); ok != (c.Result == "valid") {
					t.Errorf("%s test %d: %v, %v, want %s", g.ParameterSet, c.TcID, ok, err, c.Result)
				}
			}
		}
	}
	pass(t, n, "Wycheproof ML-KEM encapsulation", cases)
}

// wycheproofMLKEMDecapsulate has keys as seeds, which is the form crypto/mlkem takes, and ciphertexts that have to end in
// the implicit rejection's key.
func wycheproofMLKEMDecapsulate(t *testing.T, dir string, n *tally) {
	cases := 0
	for _, file := range []string{"mlkem_768_test.json", "mlkem_1024_test.json"} {
		var v mlkemCases
		read(t, &v, dir, file)
		for _, g := range v.TestGroups {
			for _, c := range g.Tests {
				cases++
				k, err := decapsulate(g.ParameterSet, c.Seed, c.C)
				if ok := err == nil && bytes.Equal(k, c.K); ok != (c.Result == "valid") {
					t.Errorf("%s test %d: %v, want %s", g.ParameterSet, c.TcID, ok, c.Result)
				}
			}
		}
	}
	pass(t, n, "Wycheproof ML-KEM decapsulation", cases)
}
