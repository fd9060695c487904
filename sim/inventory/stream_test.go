package inventory

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The streamed reader accepts what the standard library accepts, its own bounds apart.
func FuzzStream(f *testing.F) {
	for _, x := range []string{`{"a":[1,-2.5e+3,"x\u00e9\n",true,false,null,{}],"b":[]}`, `[`, `{"a":1,}`, `"\ud800"`, ` 01 `, `{"a" 1}`, `nul`, `1e`, "\"\x01\""} {
		f.Add([]byte(x))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStream(bytes.NewReader(data))
		err := s.skip()
		if err == nil {
			err = s.end()
		}
		if valid := json.Valid(data); (err == nil) != valid && !(valid && (bytes.Count(data, []byte("["))+bytes.Count(data, []byte("{")) > maxDepth || len(data) > maxNumber)) {
			t.Fatalf("%q: %v, the standard library says %t", data, err, valid)
		}
	})
}

func FuzzBill(f *testing.F) {
	for _, name := range []string{"shop.cdx.json", "backend.spdx.json"} {
		good, err := os.ReadFile(filepath.Join("testdata", "shop", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(good)
	}
	f.Add([]byte(`{"@graph":[{"type":"software_Package","software_packageUrl":"pkg:npm/a@1"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, read := range []func(io.Reader, int) (*bill, error){readCycloneDX, readSPDX} {
			if b, err := read(bytes.NewReader(data), 10); err == nil && (len(b.components) > 10 || !json.Valid(data)) {
				t.Fatalf("accepted: %+v", b)
			}
		}
		_, _ = kindOf(bytes.NewReader(data))
	})
}

// noise is a bill of materials of about size bytes: components, each with a licence text of 100 KiB, dependencies in a
// ring, and at the end one string of 10 MiB that nobody asked for.
func noise(size int) (io.Reader, int) {
	licence := strings.Repeat("All rights reserved, even those. ", 3200)
	n := size / len(licence)
	readers := []io.Reader{strings.NewReader(`{"bomFormat":"CycloneDX","metadata":{"component":{"name":"big"}},"components":[`)}
	for i := range n {
		comma := ","
		if i == 0 {
			comma = ""
		}
		readers = append(readers, strings.NewReader(fmt.Sprintf(`%s{"name":"c%d","purl":"pkg:npm/c%d@1.0.0","licenses":[{"license":{"text":{"content":"`, comma, i, i)),
			strings.NewReader(licence), strings.NewReader(`"}}}]}`))
	}
	readers = append(readers, strings.NewReader(`],"dependencies":[{"ref":"a","dependsOn":["b"]},{"ref":"b","dependsOn":["a"]}],"extra":"`),
		io.LimitReader(letters{}, 10<<20), strings.NewReader(`"}`))
	return io.MultiReader(readers...), n
}

type letters struct{}

func (letters) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// A bill of 200 MB is read in the memory that its components take.
func TestLargeBill(t *testing.T) {
	size := 200 << 20
	if testing.Short() {
		size = 20 << 20
	}
	r, n := noise(size)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	b, err := readCycloneDX(r, MaxComponents)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if len(b.components) != n || b.subject != "big" {
		t.Errorf("%d components of %d, subject %q", len(b.components), n, b.subject)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d MiB were allocated for %d components", used>>20, n)
	}
}

func TestBillsRefused(t *testing.T) {
	deep := strings.Repeat(`{"components":[`, 1000)
	for want, text := range map[string]string{
		"is truncated":                  `{"bomFormat":"CycloneDX","components":[{"name":`,
		"not CycloneDX":                 `{"bomFormat":"Cyclone","components":[]}`,
		"an object":                     `{"bomFormat":"CycloneDX","components":[7]}`,
		"an array":                      `{"bomFormat":"CycloneDX","components":{}}`,
		"a string":                      `{"bomFormat":"CycloneDX","components":[{"purl":[]}]}`,
		"values within one another":     `{"bomFormat":"CycloneDX","components":[` + deep,
		"more than 4096 bytes where":    `{"bomFormat":"CycloneDX","components":[{"purl":"` + strings.Repeat("a", 10<<20) + `"}]}`,
		"more after the end":            `{"bomFormat":"CycloneDX"} {}`,
		"a bad escape":                  `{"bomFormat":"CycloneDX","x":"\q"}`,
		"a control character":           "{\"bomFormat\":\"CycloneDX\",\"x\":\"\x01\"}",
		"more than 300000 components":   `{"bomFormat":"CycloneDX","components":[{"purl":"pkg:npm/a@1"},{"purl":"pkg:npm/b@1"},{"purl":"pkg:npm/c@1"}]}`,
		"more than 1000 digits":         `{"bomFormat":"CycloneDX","x":` + strings.Repeat("1", 10<<20) + `}`,
		"more than 2 vulnerabilities":   `{"bomFormat":"CycloneDX","vulnerabilities":[{"id":"a","analysis":{"state":"resolved"}},{"id":"b","analysis":{"state":"resolved"}},{"id":"c","analysis":{"state":"resolved"}}]}`,
		"byte 4: 'x' where a colon":     `{"a"x`,
		"'}' where a string should be":  `{"bomFormat":"CycloneDX",}`,
		"'{' where a comma or '}' shou": `{"bomFormat":"CycloneDX" {`,
	} {
		_, err := readCycloneDX(strings.NewReader(text), 2)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("want %q, got %.300v", want, err)
		}
	}
	for want, text := range map[string]string{
		"no spdxVersion": `{"packages":[]}`,
		"an object":      `{"spdxVersion":"SPDX-2.3","packages":[[]]}`,
		"is truncated":   `{"spdxVersion":"SPDX-2.3","packages":[`,
	} {
		if _, err := readSPDX(strings.NewReader(text), 2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

func TestSPDX3(t *testing.T) {
	b, err := readSPDX(strings.NewReader(`{"@context":"x","@graph":[{"type":"software_Package","software_packageUrl":"pkg:npm/a@1"},{"type":"software_File"},{"type":["x"]}]}`), 5)
	if err != nil || len(b.components) != 1 || b.components[0].name != "a" {
		t.Errorf("%+v, %v", b, err)
	}
}
