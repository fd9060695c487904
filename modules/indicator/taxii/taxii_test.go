package taxii

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// server is a TAXII 2.1 server of one API root with two collections, the second of which cannot be read.
type server struct {
	objects []string // in the order they were added, a second apart
	asked   []string
	mangle  func(w http.ResponseWriter, r *http.Request) bool
	noNext  bool
}

func added(i int) time.Time { return time.Unix(1764000000+int64(i), 0).UTC() }

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.URL.RequestURI())
	if s.mangle != nil && s.mangle(w, r) {
		return
	}
	user, password, basic := r.BasicAuth()
	if !(basic && user == "me" && password == "secret" || r.Header.Get("Authorization") == "Bearer token") {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if r.Header.Get("Accept") != mediaType {
		w.WriteHeader(http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", mediaType)
	switch r.URL.Path {
	case "/taxii2/":
		fmt.Fprint(w, `{"title":"t","default":"/api1/","api_roots":["/api1/","https://elsewhere.example/api/","/gone/"]}`)
	case "/api1/":
		fmt.Fprint(w, `{"title":"r","versions":["application/taxii+json;version=2.1"],"max_content_length":1}`)
	case "/api1/collections/":
		fmt.Fprint(w, `{"collections":[{"id":"c1","title":"C2 addresses","can_read":true,"can_write":false},{"id":"c2","title":"hidden","can_read":false}]}`)
	case "/api1/collections/c1/":
		fmt.Fprint(w, `{"id":"c1","title":"C2 addresses","can_read":true}`)
	case "/api1/collections/c1/objects/":
		s.page(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// page gives two objects at a time.
func (s *server) page(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	from := 0
	if after, err := time.Parse(time.RFC3339Nano, q.Get("added_after")); err == nil {
		for from < len(s.objects) && !added(from).After(after) {
			from++
		}
	}
	if n := q.Get("next"); n != "" {
		_, _ = fmt.Sscanf(n, "page-%d", &from)
	}
	to := min(from+2, len(s.objects))
	if from == to {
		fmt.Fprint(w, `{}`)
		return
	}
	w.Header().Set("X-TAXII-Date-Added-Last", added(to-1).Format(time.RFC3339Nano))
	next := fmt.Sprintf(`,"next":"page-%d"`, to)
	if s.noNext {
		next = ""
	}
	fmt.Fprintf(w, `{"more":%v%s,"objects":[%s]}`, to < len(s.objects), next, strings.Join(s.objects[from:to], ","))
}

func start(t *testing.T) (*server, *httptest.Server, *Client) {
	t.Helper()
	s := &server{}
	for i := range 5 {
		s.objects = append(s.objects, fmt.Sprintf(`{"type":"indicator","id":"indicator--%d"}`, i))
	}
	web := httptest.NewTLSServer(s)
	t.Cleanup(web.Close)
	return s, web, &Client{HTTP: web.Client(), User: "me", Password: "secret"}
}

func visit(t *testing.T, c *Client, col Collection, after string) (n int, newest string, err error) {
	t.Helper()
	newest, err = c.Objects(t.Context(), col, after, func(json.RawMessage) error { n++; return nil })
	return n, newest, err
}

func TestACollectionPageByPage(t *testing.T) {
	for _, noNext := range []bool{false, true} {
		s, web, c := start(t)
		s.noNext = noNext
		for _, at := range []string{"/taxii2", "/api1/", "/api1/collections/c1/"} {
			all, err := c.Collections(t.Context(), web.URL+at)
			if err != nil || len(all) != 1 || all[0].ID != "c1" || all[0].Title != "C2 addresses" {
				t.Fatalf("%s: %+v %v", at, all, err)
			}
			n, newest, err := visit(t, c, all[0], "")
			if n != 5 || err != nil || newest != added(4).Format(time.RFC3339Nano) {
				t.Fatalf("%s: %d objects to %s: %v", at, n, newest, err)
			}
			// The next visit brings what is new alone.
			if n, again, err := visit(t, c, all[0], newest); n != 0 || err != nil || again != newest {
				t.Errorf("%d, %s, %v", n, again, err)
			}
			s.objects = append(s.objects, `{"type":"indicator","id":"indicator--new"}`)
			if n, _, err := visit(t, c, all[0], newest); n != 1 || err != nil {
				t.Errorf("%d new, %v", n, err)
			}
			s.objects = s.objects[:5]
		}
		if asked := strings.Join(s.asked, " "); strings.Contains(asked, "elsewhere") || !strings.Contains(asked, "match%5Btype%5D=indicator") {
			t.Error(asked)
		}
	}
}

func TestCredentials(t *testing.T) {
	_, web, c := start(t)
	if _, err := c.Collections(t.Context(), web.URL+"/taxii2/"); err != nil {
		t.Error(err)
	}
	token := &Client{HTTP: web.Client(), Token: "token"}
	if _, err := token.Collections(t.Context(), web.URL+"/taxii2/"); err != nil {
		t.Error(err)
	}
	wrong := &Client{HTTP: web.Client(), Token: "other"}
	if _, err := wrong.Collections(t.Context(), web.URL+"/taxii2/"); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if _, err := token.Collections(t.Context(), "http://taxii.example/taxii2/"); !errors.Is(err, ErrPlain) {
		t.Errorf("a token without TLS: %v", err)
	}
	// A certificate that nobody vouches for.
	strange := &Client{HTTP: &http.Client{}, Token: "token"}
	if _, err := strange.Collections(t.Context(), web.URL+"/taxii2/"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate: %v", err)
	}
}

func TestHostileServers(t *testing.T) {
	s, web, c := start(t)
	c.most = 4 << 20
	col := Collection{Root: web.URL + "/api1/", ID: "c1"}
	for name, m := range map[string]struct {
		answer func(w http.ResponseWriter)
		want   error
	}{
		"a loop":          {func(w http.ResponseWriter) { fmt.Fprint(w, `{"more":true,"next":"same","objects":[]}`) }, ErrProtocol},
		"more of nothing": {func(w http.ResponseWriter) { fmt.Fprint(w, `{"more":true}`) }, ErrProtocol},
		"no JSON":         {func(w http.ResponseWriter) { fmt.Fprint(w, `{"more":`) }, ErrProtocol},
		"no end": {func(w http.ResponseWriter) {
			for block := make([]byte, 1<<20); ; {
				if _, err := w.Write(block); err != nil {
					return
				}
			}
		}, ErrProtocol},
		"a page": {func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html") }, ErrProtocol},
		"away": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(http.StatusFound)
		}, ErrProtocol},
	} {
		s.mangle = func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Content-Type", mediaType)
			m.answer(w)
			return true
		}
		if _, _, err := visit(t, c, col, ""); !errors.Is(err, m.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.mangle = nil
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := c.Objects(ctx, col, "", func(json.RawMessage) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("a visit that nobody waits for goes on: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"more":true,"next":"x","objects":[{"type":"indicator"}]}`))
	f.Add([]byte(`{"api_roots":["/a/"],"default":"/b/"}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var e envelope
		if decode(body, &e) == nil {
			for _, o := range e.Objects {
				if !json.Valid(o) {
					t.Fatal("an object that is no JSON")
				}
			}
		}
		var d discovery
		_ = decode(body, &d)
	})
}
