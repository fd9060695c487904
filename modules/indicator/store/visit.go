package store

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules/indicator/feed"
	"github.com/omega-mesh/omega/modules/indicator/taxii"
)

// Bounds of a visit.
const (
	visitTime  = 10 * time.Minute
	maxObjects = 1_000_000 // of one TAXII source
	maxLine    = 4 << 20
)

// visit asks a source for what is new, and says whether there is some.
func (s *Store) visit(ctx context.Context, st *State) (changed bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, visitTime)
	defer cancel()
	switch st.Kind {
	case Path:
		return s.visitPath(st)
	case Web:
		return s.visitWeb(ctx, st)
	case TAXII:
		return s.visitTAXII(ctx, st)
	}
	return false, nil
}

// visitPath compares the files' names, sizes and times with those of the last time.
func (s *Store) visitPath(st *State) (bool, error) {
	files, err := within(st.Location)
	if err != nil {
		return false, err
	}
	var b strings.Builder
	for _, name := range files {
		info, err := os.Stat(name)
		if err != nil {
			return false, err
		}
		fmt.Fprintf(&b, "%s\x00%d\x00%d\n", name, info.Size(), info.ModTime().UnixNano())
	}
	sum := sha256.Sum256([]byte(b.String()))
	return s.moved(st, hex.EncodeToString(sum[:16])), nil
}

// moved notes a source's version and says whether it is another.
func (s *Store) moved(st *State, version string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.Version == version && version != "" {
		return false
	}
	st.Version, st.Fetched = version, s.now()
	return true
}

// client makes the HTTP client of a source: certificates are verified by this host's roots, and the source's own beside.
func client(st *State) (*http.Client, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	t.DisableKeepAlives = true
	if st.CA != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM([]byte(st.CA)) {
			return nil, fmt.Errorf("%w: the CA's file holds no certificate in PEM", ErrInvalid)
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &http.Client{Transport: t, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if len(via) > 5 || !taxii.Private(r.URL) {
			return fmt.Errorf("redirected to %s, which is not followed", r.URL.Host)
		}
		return nil
	}}, nil
}

// visitWeb fetches one file, if it is another than the last.
func (s *Store) visitWeb(ctx context.Context, st *State) (bool, error) {
	hc, err := client(st)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, st.Location, nil)
	if err != nil {
		return false, err
	}
	if st.Token != "" {
		req.Header.Set("Authorization", "Bearer "+st.Token)
	} else if st.User != "" {
		req.SetBasicAuth(st.User, st.Password)
	}
	_, absent := os.Stat(s.spool(st.ID))
	if st.Version != "" && absent == nil {
		if tag, ok := strings.CutPrefix(st.Version, "etag "); ok {
			req.Header.Set("If-None-Match", tag)
		} else {
			req.Header.Set("If-Modified-Since", st.Version)
		}
	}
	resp, err := hc.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return false, nil
	}
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("%s answered %s", req.URL.Host, resp.Status)
	}
	if err := s.replace(st.ID, resp.Body); err != nil {
		return false, err
	}
	version := resp.Header.Get("Last-Modified")
	if tag := resp.Header.Get("ETag"); tag != "" {
		version = "etag " + tag
	}
	s.moved(st, version[:min(len(version), 512)])
	return true, nil
}

// replace makes what is read the one file of a source.
func (s *Store) replace(id string, r io.Reader) error {
	f, err := os.CreateTemp(filepath.Join(s.dir, filesName), ".new-*")
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(r, feed.MaxFile+1))
	if err = errors.Join(err, f.Close()); err == nil && n > feed.MaxFile {
		err = fmt.Errorf("%w: more than %d MiB", feed.ErrTooLarge, feed.MaxFile>>20)
	}
	if err == nil {
		err = os.Rename(f.Name(), s.spool(id))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// visitTAXII appends what is new in each collection, an object a line.
func (s *Store) visitTAXII(ctx context.Context, st *State) (bool, error) {
	hc, err := client(st)
	if err != nil {
		return false, err
	}
	u, err := url.Parse(strings.TrimPrefix(st.Location, taxiiScheme))
	if err != nil {
		return false, err
	}
	wanted := u.Fragment
	c := &taxii.Client{HTTP: hc, User: st.User, Password: st.Password, Token: st.Token}
	all, err := c.Collections(ctx, u.String())
	if err != nil {
		return false, err
	}
	progress := map[string]string{}
	if _, err := os.Stat(s.spool(st.ID)); err == nil { // else what was fetched is gone: from the beginning
		s.mu.Lock()
		for k, v := range st.Progress {
			progress[k] = v
		}
		s.mu.Unlock()
	}
	f, err := os.OpenFile(s.spool(st.ID), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return false, err
	}
	w := bufio.NewWriter(f)
	size, _ := f.Seek(0, io.SeekEnd)
	taken, matched := 0, 0
	var errs []error
	for _, col := range all {
		if wanted != "" && col.ID != wanted && !strings.EqualFold(col.Title, wanted) {
			continue
		}
		matched++
		newest, err := c.Objects(ctx, col, progress[col.Root+col.ID], func(o json.RawMessage) error {
			line, err := json.Marshal(o) // compact: on one line
			if err != nil || len(line) > maxLine {
				return fmt.Errorf("%w: an object that is no JSON, or of more than %d MiB", ErrInvalid, maxLine>>20)
			}
			if size += int64(len(line)) + 1; size > feed.MaxFile {
				return fmt.Errorf("%w: more than %d MiB of objects", feed.ErrTooLarge, feed.MaxFile>>20)
			}
			taken++
			_, err = w.Write(append(line, '\n'))
			return err
		})
		progress[col.Root+col.ID] = newest
		if err != nil {
			errs = append(errs, fmt.Errorf("collection %.60q: %w", col.Title, err))
		}
	}
	if matched == 0 {
		errs = append(errs, fmt.Errorf("%w: none of %d collections that can be read is %q", ErrInvalid, len(all), wanted))
	}
	if err := errors.Join(w.Flush(), f.Sync(), f.Close()); err != nil {
		return taken > 0, errors.Join(append(errs, err)...) // what was noted is fetched again
	}
	s.mu.Lock()
	st.Progress = progress
	if taken > 0 {
		st.Fetched = s.now()
	}
	s.mu.Unlock()
	return taken > 0, errors.Join(errs...)
}

// newest reads a source's objects for the last version of each, and says of an object whether it is that.
func newest(name string) func(id, modified string) bool {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	seed := maphash.MakeSeed()
	last := map[uint64]string{} // by a hash of the id: ids are long
	in := bufio.NewScanner(f)
	in.Buffer(make([]byte, 64<<10), maxLine+1)
	for in.Scan() {
		var o struct{ ID, Modified string }
		if json.Unmarshal(in.Bytes(), &o) != nil || len(o.Modified) > 64 {
			continue
		}
		h := maphash.String(seed, o.ID)
		if old, ok := last[h]; (ok || len(last) < maxObjects) && o.Modified >= old {
			last[h] = o.Modified
		}
	}
	return func(id, modified string) bool {
		h := maphash.String(seed, id)
		switch old, ok := last[h]; {
		case !ok && len(last) >= maxObjects: // past the bound versions are not told apart
			return true
		case !ok || old != modified:
			return false
		}
		last[h] = "\xff" // a version that came twice counts once
		return true
	}
}
