package store

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/omega-mesh/omega/modules/indicator"
)

func open(t *testing.T, dir string, opt Options) *Store {
	t.Helper()
	s, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func texts(all ...string) func() (io.Reader, error) {
	return func() (io.Reader, error) {
		if len(all) == 0 {
			return nil, io.EOF
		}
		r := strings.NewReader(all[0])
		all = all[1:]
		return r, nil
	}
}

func has(t *testing.T, s *Store, value string, want bool) {
	t.Helper()
	if _, ok := s.Lookup("", value); ok != want {
		t.Errorf("%s: found is %v", value, ok)
	}
}

func TestHandedOver(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, Options{})
	add := func(name, text string) (State, error) {
		return s.Add(t.Context(), Source{Name: name, Kind: Kept, Confidence: 80}, texts(text, "second.example\n"))
	}
	st, err := add("My list!", "evil.example\n???\n")
	if err != nil || st.ID != "my-list" || st.Report.Taken != 2 || indicator.Total(st.Report.Rejected) != 1 {
		t.Fatalf("%+v %v", st, err)
	}
	if again, err := add("my list", "other.example\n"); err != nil || again.ID != "my-list-2" || again.Report.Duplicate != 1 {
		t.Errorf("%+v %v", again, err)
	}
	has(t, s, "x.evil.example", true)
	m, _ := s.Lookup("", "evil.example")
	s.Sightings.Record(&m, 7)

	// Another life knows the same.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_ = s.Run(ctx)
	s = open(t, dir, Options{})
	if err := s.Refresh(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	has(t, s, "other.example", true)
	if all := s.Sightings.All(); len(all) != 1 || all[0].Value != "evil.example" || all[0].Source != "my-list" {
		t.Errorf("%+v", all)
	}
	if err := s.Remove(t.Context(), "my-list-2"); err != nil {
		t.Fatal(err)
	}
	has(t, s, "other.example", false)
	has(t, s, "second.example", true)
	if err := s.Remove(t.Context(), "my-list-2"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, filesName)); len(left) != 1 {
		t.Errorf("%v", left)
	}
	if _, err := s.Add(t.Context(), Source{Name: "x", Kind: Kept, Confidence: 1}, texts("127.0.0.1\n")); !errors.Is(err, ErrInvalid) || len(s.Sources()) != 1 {
		t.Errorf("a list of nothing: %v, %d sources", err, len(s.Sources()))
	}
}

func TestEndOfWhatNamesNone(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	at := time.Unix(1764000000, 0)
	s.now = func() time.Time { return at }
	if _, err := s.Add(t.Context(), Source{Name: "x", Kind: Kept, Confidence: 1, TTL: time.Hour}, texts("evil.example\n")); err != nil {
		t.Fatal(err)
	}
	has(t, s, "evil.example", true)
	at = at.Add(2 * time.Hour)
	has(t, s, "evil.example", false)
	_ = s.Refresh(t.Context(), "")
	if n := s.Current.Load().Len(); n != 0 {
		t.Errorf("%d are kept past their end", n)
	}
}

func TestConfiguredFolder(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a.txt", "evil.example\n")
	write(".hidden", "hidden.example\n")
	s := open(t, t.TempDir(), Options{Configured: []string{folder}})
	s.refresh(t.Context())
	has(t, s, "evil.example", true)
	has(t, s, "hidden.example", false)
	before := s.Current.Load()
	if s.refresh(t.Context()); s.Current.Load() != before {
		t.Error("what did not change is read again")
	}
	write("b.json", `{"objects":[{"type":"indicator","pattern":"[ipv4-addr:value = '203.0.113.9']"}]}`)
	s.refresh(t.Context())
	has(t, s, "203.0.113.9", true)
	id := s.Sources()[0].ID
	if err := s.Remove(t.Context(), id); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	s.refresh(t.Context())
	has(t, s, "203.0.113.9", true) // it failed, and what it gave stands
	if st := s.Sources()[0]; st.Error == "" {
		t.Error("nothing is said of the folder that is gone")
	}
	for _, bad := range []string{"relative", "http://feeds.example/x", "ftp://x/y", "https://user:secret@x/y", "taxii+http://x.example/"} {
		if _, err := Open(t.TempDir(), Options{Configured: []string{bad}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// A file by HTTPS and a collection, from a server that only the given CA vouches for.
func TestFromTheNetwork(t *testing.T) {
	text, object := "evil.example\n", `{"type":"indicator","id":"i","modified":"1","pattern":"[ipv4-addr:value = '203.0.113.9']"}`
	fetched := 0
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, password, _ := r.BasicAuth(); password != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		switch w.Header().Set("Content-Type", "application/taxii+json;version=2.1"); r.URL.Path {
		case "/list":
			w.Header().Set("ETag", fmt.Sprintf("%q", text))
			if r.Header.Get("If-None-Match") == fmt.Sprintf("%q", text) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			fetched++
			fmt.Fprint(w, text)
		case "/api/":
			fmt.Fprint(w, `{"title":"root","versions":["x"]}`)
		case "/api/collections/":
			fmt.Fprint(w, `{"collections":[{"id":"c","title":"Wanted","can_read":true},{"id":"d","title":"Other","can_read":true}]}`)
		case "/api/collections/c/objects/":
			if r.URL.Query().Get("added_after") == "2026-01-01T00:00:00Z" {
				object = `{"type":"indicator","id":"i","modified":"2","revoked":true}`
			}
			w.Header().Set("X-TAXII-Date-Added-Last", "2026-01-01T00:00:00Z")
			fmt.Fprintf(w, `{"objects":[%s]}`, object)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer web.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw}))
	dir := t.TempDir()
	s := open(t, dir, Options{})
	source := func(kind Kind, location string) Source {
		return Source{Name: string(kind), Kind: kind, Location: location, Confidence: 60, User: "me", Password: "secret", CA: ca}
	}
	if _, err := s.Add(t.Context(), source(Web, web.URL+"/list"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), source(TAXII, "taxii+"+web.URL+"/api/#wanted"), nil); err != nil {
		t.Fatal(err)
	}
	has(t, s, "evil.example", true)
	has(t, s, "203.0.113.9", true)
	for _, st := range s.Sources() {
		if st.Password != "" {
			t.Error("a password is shown")
		}
	}
	// After a restart: the same file is not fetched again, and the collection goes on where it was.
	s = open(t, dir, Options{})
	s.refresh(t.Context())
	has(t, s, "evil.example", true)
	has(t, s, "203.0.113.9", false) // its second version revokes it
	if fetched != 1 {
		t.Errorf("fetched %d times", fetched)
	}
	for name, bad := range map[string]Source{"no CA": {Name: "x", Kind: Web, Location: web.URL + "/list", Confidence: 1}, "no such collection": source(TAXII, "taxii+"+web.URL+"/api/#none"), "not there": source(Web, web.URL+"/none")} {
		if _, err := s.Add(t.Context(), bad, nil); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if n := len(s.Sources()); n != 2 {
		t.Errorf("%d sources", n)
	}
	if info, err := os.Stat(filepath.Join(dir, listName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the passwords' file: %v %v", info.Mode(), err)
	}
}
