package inventory

import (
	"archive/zip"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/sim/world"
)

func shop(name string) string { return filepath.Join("testdata", "shop", name) }

func shopFiles() []File {
	return []File{{Path: shop("scan.xml")}, {Path: shop("values.csv")}, {Path: shop("shop.cdx.json")}, {Path: shop("backend.spdx.json"), Host: "198.18.7.20"}, {Path: shop("backend.spdx.json"), Host: "ledgerdb.example"}}
}

func codes(ws []Warning) []string {
	var list []string
	for _, w := range ws {
		list = append(list, w.Code)
	}
	return list
}

// A scan, an inventory, bills of materials and advisories become one scenario that can be run.
func TestImport(t *testing.T) {
	s, warnings, err := Import(Options{Files: shopFiles(), OSV: []string{shop("osv")}})
	if err != nil {
		t.Fatal(err)
	}
	holes := map[string][]world.Vulnerability{}
	for _, h := range s.Hosts {
		holes[h.Name] = h.Vulnerabilities
	}
	local := world.Vulnerability{ID: "DISTRO-EXAMPLE-2026-0002", Package: "kettle", Exploit: 0.42} // its vector is that of what it is made of
	for name, want := range map[string][]world.Vulnerability{
		"shop.example":     {local, {ID: "EXAMPLE-2026-0001", Package: "teapotd", Port: 80, Exploit: 0.9}},
		"orders.example":   {local, {ID: "EXAMPLE-2026-0001", Package: "teapotd", Port: 8080, Exploit: 0.9}},
		"ledgerdb.example": {local, {ID: "EXAMPLE-2026-0003", Package: "elephantdb-15", Port: 5432, Exploit: 0.38}},
		"mail.example":     nil,
	} {
		if !slices.Equal(holes[name], want) {
			t.Errorf("%s: %+v\nwant %+v", name, holes[name], want)
		}
	}
	want := []string{"columns-unread", "assumed-zones", "components-unknown", "no-control", "no-port", "no-secrets", "chances", "assumed-attacker", "assumed-links", "assumed-response"}
	if got := codes(warnings); !slices.Equal(got, want) {
		t.Errorf("warnings %v\nwant     %v", got, want)
	}
	if s.Hosts[3].Value != 20 || s.Hosts[3].Detect != 0.4 {
		t.Errorf("the inventory's values are lost: %+v", s.Hosts[3])
	}
	w, err := world.New(s, world.Stream(1, 0))
	if err != nil {
		t.Fatal(err)
	}
	if r := w.Run(24 * time.Hour); r.Taken == 0 {
		t.Error("nothing happens in it")
	}
	var b bytes.Buffer
	if err := s.Write(&b); err != nil {
		t.Fatal(err)
	}
	if _, err := world.Read(&b); err != nil {
		t.Error(err)
	}
}

// A zip of the advisories is the same feed.
func TestZippedFeed(t *testing.T) {
	name := filepath.Join(t.TempDir(), "all.zip")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	files, err := filepath.Glob(shop("osv/*.json"))
	if err != nil || len(files) != 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		e, err := z.Create(filepath.Base(file))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	var text [2]bytes.Buffer
	for i, feed := range []string{shop("osv"), name} {
		s, _, err := Import(Options{Files: shopFiles(), OSV: []string{feed}})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Write(&text[i]); err != nil {
			t.Fatal(err)
		}
	}
	if text[0].String() != text[1].String() {
		t.Errorf("folder:\n%s\nzip:\n%s", text[0].String(), text[1].String())
	}
}

func TestImportRefuses(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := File{Path: put("one.csv", "name,services\na,ssh/22\n")}
	sbom := File{Path: put("one.json", `{"bomFormat":"CycloneDX","metadata":{"component":{"name":"x"}},"components":[{"purl":"pkg:npm/a@1.0.0"}]}`)}
	for want, o := range map[string]Options{
		"nothing to import":                {},
		"no such file":                     {Files: []File{{Path: filepath.Join(dir, "none")}}},
		"the file is empty":                {Files: []File{{Path: put("empty", "")}}},
		"give it with --osv":               {Files: []File{{Path: shop("osv/EXAMPLE-2026-0001.json")}}},
		"neither CycloneDX":                {Files: []File{{Path: put("x.json", `{"a":1}`)}}},
		"byte 8: the file is truncated":    {Files: []File{{Path: put("y.json", `{"a": [1`)}}},
		`no host "b"`:                      {Files: []File{one, {Path: sbom.Path, Host: "b"}}},
		"say so with --host":               {Files: []File{{Path: shop("scan.xml")}, sbom}},
		"neither a column name nor":        {Files: []File{{Path: put("b.csv", "ip;name\n1;2\n")}}},
		`"x" is no port`:                   {Files: []File{{Path: put("c.csv", "name,services\na,ssh/x\n")}}},
		"line 2, column value":             {Files: []File{{Path: put("d.csv", "name,value\na,much\n")}}},
		"wrong number of fields":           {Files: []File{{Path: put("e.csv", "name,value\na\n")}}},
		"two columns":                      {Files: []File{{Path: put("f.csv", "name,name\na,b\n")}}},
		"value is NaN":                     {Files: []File{{Path: put("g.csv", "name,value\na,NaN\n")}}},
		"detect is 7":                      {Files: []File{{Path: put("h.csv", "name,detect\na,7\n")}}},
		"address \"nowhere\" is none":      {Files: []File{{Path: put("i.csv", "name,address\na,nowhere\n")}}},
		"is empty, too long":               {Files: []File{{Path: put("j.csv", "name\n"+strings.Repeat("a", 10<<20)+"\n")}}},
		"inventory: larger than":           {Files: []File{{Path: put("k.csv", "name\na"+strings.Repeat("\n", maxTable))}}},
		`kind "pdf"`:                       {Files: []File{{Path: one.Path, Kind: "pdf"}}},
		"the file is truncated":            {Files: []File{one, sbom}, OSV: []string{put("osv1/a.json", `{"id":"X","affected":[`)}},
		"cannot unmarshal":                 {Files: []File{one, sbom}, OSV: []string{put("osv2/a.json", `{"id":7}`)}},
		"a record without an id":           {Files: []File{one, sbom}, OSV: []string{put("osv3/a.json", `[{}]`)}},
		"an advisory of more than 8388608": {Files: []File{one, sbom}, OSV: []string{put("osv4/a.json", `{"id":"`+strings.Repeat("a", 10<<20)+`"}`)}},
		"a record or an array of them":     {Files: []File{one, sbom}, OSV: []string{put("osv5/a.json", `7`)}},
		"not a valid zip file":             {Files: []File{one, sbom}, OSV: []string{put("osv6/a.zip", "PK")}},
	} {
		s, _, err := Import(o)
		if err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 500 {
			t.Errorf("want %q, got %v, %.300v", want, s, err)
		}
	}
}

// The specification's rules: listed versions, ranges with several events, limits, what cannot be judged.
func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		ecosystem, version, affected string
		want                         verdict
	}{
		"listed":                   {"Maven", "1.0", `{"versions":["1.0"]}`, vulnerable},
		"not listed":               {"Maven", "1.1", `{"versions":["1.0"],"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}`, unaffected},
		"no order, no list":        {"Maven", "1.1", `{"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"}]}]}`, unjudged},
		"commits only":             {"npm", "1.1.0", `{"ranges":[{"type":"GIT","events":[{"introduced":"0"}]}]}`, unjudged},
		"before the fix":           {"npm", "1.2.0", `{"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.2.1"}]}]}`, vulnerable},
		"the fix":                  {"npm", "1.2.1", `{"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.2.1"}]}]}`, unaffected},
		"its candidate":            {"npm", "1.2.1-rc.1", `{"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"fixed":"1.2.1"}]}]}`, vulnerable},
		"again, events in a heap":  {"npm", "2.5.0", `{"ranges":[{"type":"SEMVER","events":[{"fixed":"3.0.0"},{"introduced":"2.0.0"},{"fixed":"1.2.1"},{"introduced":"0"}]}]}`, vulnerable},
		"between":                  {"npm", "1.5.0", `{"ranges":[{"type":"SEMVER","events":[{"fixed":"3.0.0"},{"introduced":"2.0.0"},{"fixed":"1.2.1"},{"introduced":"0"}]}]}`, unaffected},
		"the last":                 {"Debian", "1.0-2", `{"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"last_affected":"1.0-2"}]}]}`, vulnerable},
		"after the last":           {"Debian", "1.0-3", `{"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"last_affected":"1.0-2"}]}]}`, unaffected},
		"before the limit":         {"npm", "1.0.0", `{"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"limit":"2.0.0"}]}]}`, vulnerable},
		"after the limit":          {"npm", "2.0.0", `{"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{"limit":"2.0.0"}]}]}`, unaffected},
		"a version that is none":   {"npm", "latest", `{"ranges":[{"type":"SEMVER","events":[{"introduced":"1.0.0"}]}]}`, unjudged},
		"in the second range only": {"PyPI", "2.0.post1", `{"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"1"}]},{"type":"ECOSYSTEM","events":[{"introduced":"2.0"}]}]}`, vulnerable},
	} {
		var got verdict
		err := readAdvisories(strings.NewReader(`{"id":"X","affected":[`+c.affected+`]}`), func(a *advisory) error {
			got = a.Affected[0].judge(component{ecosystem: c.ecosystem, version: c.version})
			return nil
		})
		if err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", name, got, err, c.want)
		}
	}
}

// Whom a bill excuses is not given the hole, and a distribution's release counts.
func TestExcusedAndReleases(t *testing.T) {
	dir := t.TempDir()
	sbom, feed := filepath.Join(dir, "s.json"), filepath.Join(dir, "f.json")
	const hole = `"severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"}]`
	for _, f := range []struct{ path, text string }{
		{sbom, `{"bomFormat":"CycloneDX","metadata":{"component":{"name":"h"}},"components":[{"purl":"pkg:deb/debian/a@1?distro=debian-12"},{"components":[{"purl":"pkg:deb/debian/b@1"}]}],
			"vulnerabilities":[{"id":"CVE-1","analysis":{"state":"not_affected"}},{"id":"CVE-2","analysis":{"state":"exploitable"}}]}`},
		{feed, `[{"id":"D-1","aliases":["CVE-1"],` + hole + `,"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"versions":["1"]}]},
			{"id":"CVE-2",` + hole + `,"affected":[{"package":{"ecosystem":"Debian:12","name":"a"},"versions":["1"]}]},
			{"id":"CVE-3",` + hole + `,"affected":[{"package":{"ecosystem":"Debian:11","name":"a"},"versions":["1"]}]},
			{"id":"CVE-4",` + hole + `,"affected":[{"package":{"ecosystem":"Debian:11","name":"b"},"versions":["1"]}]}]`},
	} {
		if err := os.WriteFile(f.path, []byte(f.text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, warnings, err := Import(Options{Files: []File{{Path: sbom}}, OSV: []string{feed}})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, v := range s.Hosts[0].Vulnerabilities {
		ids = append(ids, v.ID)
	}
	if !slices.Equal(ids, []string{"CVE-2", "CVE-4"}) || s.Hosts[0].Name != "h" {
		t.Errorf("%s has %v", s.Hosts[0].Name, ids)
	}
	if got := codes(warnings); !slices.Contains(got, "release-unknown") || !slices.Contains(got, "no-network") {
		t.Errorf("warnings %v", got)
	}
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte("name,address,zone,value,escalate,detect,false_rate,services,decoys,accounts\na,192.0.2.1,z,1,0.5,0.5,0.1,ssh/22 80,2323,ann backup/root\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if hosts, _, err := readCSV(bytes.NewReader(data)); err == nil {
			imported(t, hosts)
		}
	})
}

func FuzzOSV(f *testing.F) {
	good, err := os.ReadFile(shop("osv/more.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"id":"X","affected":[{"package":{"ecosystem":"npm","name":"a"},"ranges":[{"type":"SEMVER","events":[{"introduced":"0"},{}]}]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		_ = readAdvisories(io.LimitReader(bytes.NewReader(data), 1<<20), func(a *advisory) error {
			for i := range a.Affected {
				for _, e := range []string{"npm", "Debian", "PyPI", "Maven"} {
					a.Affected[i].judge(component{ecosystem: e, version: "1.2.3"})
				}
			}
			_, _ = parseCVSS(vector(a.Severity))
			return nil
		})
	})
}
