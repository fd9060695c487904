// Package taxii fetches objects from TAXII 2.1 collections (OASIS standard of 10 June 2021): discovery, API roots,
// collections, and the objects of one, page after page, from where the last visit ended.
//
// The server is a stranger: its answers are bounded in bytes, pages and time, its certificate is verified, and what it
// says of itself is used for nothing but the next request to itself. Credentials go over TLS alone, or to this host.
package taxii

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// mediaType is what every request asks for.
const mediaType = "application/taxii+json;version=2.1"

// Bounds of a visit.
const (
	MaxResponse    = 64 << 20 // bytes of one answer
	MaxPages       = 20_000
	MaxCollections = 256
	maxRoots       = 32
	pageSize       = 1000
	requestTime    = 2 * time.Minute
)

// Errors of a visit, beside those of the network.
var (
	ErrRefused  = errors.New("the server refused") // 401, 403: the credentials are wrong, or missing
	ErrNotFound = errors.New("not there")          // 404
	ErrProtocol = errors.New("not TAXII 2.1")      // what came is something else, or past a bound
	ErrPlain    = errors.New("credentials are not sent without TLS")
)

// Client visits one server. It is safe for concurrent use.
type Client struct {
	// HTTP carries requests; nil is http.DefaultClient. Redirects to other hosts are not followed.
	HTTP *http.Client
	// User and Password are for basic authentication, Token for a bearer's.
	User, Password string
	Token          string

	most int64 // bytes of one answer; 0 is MaxResponse
}

// Collection is one that a server offers.
type Collection struct {
	Root        string `json:"-"` // the URL of its API root, ending in /
	ID          string `json:"id"`
	Title       string `json:"title"`
	Description string `json:"description"`
	CanRead     bool   `json:"can_read"`
}

type discovery struct {
	Title    string   `json:"title"`
	Default  string   `json:"default"`
	APIRoots []string `json:"api_roots"`
	Versions []string `json:"versions"` // of an API root
}

type envelope struct {
	More    bool              `json:"more"`
	Next    string            `json:"next"`
	Objects []json.RawMessage `json:"objects"`
}

// Collections lists those that can be read at a URL: of a discovery endpoint those of all its API roots on the same host,
// of an API root its own, of a collection itself.
func (c *Client) Collections(ctx context.Context, at string) ([]Collection, error) {
	u, err := url.Parse(at)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%.200q is no URL", at)
	}
	u.Fragment = ""
	u.Path = strings.TrimSuffix(u.Path, "/") + "/"
	if root, id, ok := strings.Cut(u.Path, "/collections/"); ok && strings.Count(id, "/") >= 1 {
		id, _, _ = strings.Cut(id, "/")
		u.Path = root + "/"
		one := Collection{Root: u.String()}
		if _, err := c.get(ctx, one.Root+"collections/"+url.PathEscape(id)+"/", &one); err != nil {
			return nil, err
		}
		one.ID = cmp.Or(one.ID, id)
		return []Collection{one}, nil
	}
	var d discovery
	if _, err := c.get(ctx, u.String(), &d); err != nil {
		return nil, err
	}
	roots := []string{u.String()}
	if len(d.APIRoots) > 0 || d.Default != "" {
		roots = roots[:0]
		for _, r := range append(d.APIRoots, d.Default) {
			abs, err := u.Parse(r)
			if r == "" || err != nil || abs.Host != u.Host || abs.Scheme != u.Scheme { // what it may be told is for this host
				continue
			}
			abs.Path = strings.TrimSuffix(abs.Path, "/") + "/"
			if s := abs.String(); !contains(roots, s) && len(roots) < maxRoots {
				roots = append(roots, s)
			}
		}
	}
	var out []Collection
	for _, root := range roots {
		var list struct {
			Collections []Collection `json:"collections"`
		}
		if _, err := c.get(ctx, root+"collections/", &list); err != nil {
			if len(roots) > 1 && (errors.Is(err, ErrNotFound) || errors.Is(err, ErrRefused)) {
				continue
			}
			return nil, err
		}
		for _, one := range list.Collections {
			if one.Root = root; one.CanRead && one.ID != "" && len(out) < MaxCollections {
				out = append(out, one)
			}
		}
	}
	return out, nil
}

func contains(all []string, s string) bool {
	for _, x := range all {
		if x == s {
			return true
		}
	}
	return false
}

// Objects gives the indicators of a collection that were added after a time (as a server wrote it; "" is all), in its
// order. The result is that of the newest, to go on from at the next visit; it is sound also with an error, up to which
// everything was given.
func (c *Client) Objects(ctx context.Context, from Collection, addedAfter string, yield func(json.RawMessage) error) (newest string, err error) {
	newest = addedAfter
	base := from.Root + "collections/" + url.PathEscape(from.ID) + "/objects/"
	next := ""
	for range MaxPages {
		q := url.Values{"limit": {fmt.Sprint(pageSize)}, "match[type]": {"indicator"}}
		if addedAfter != "" {
			q.Set("added_after", addedAfter)
		}
		if next != "" {
			q.Set("next", next)
		}
		var page envelope
		h, err := c.get(ctx, base+"?"+q.Encode(), &page)
		if err != nil {
			return newest, err
		}
		for _, o := range page.Objects {
			if err := yield(o); err != nil {
				return newest, err
			}
		}
		if last := h.Get("X-TAXII-Date-Added-Last"); validTime(last) {
			newest = last
		}
		switch {
		case !page.More:
			return newest, nil
		case page.Next != "" && page.Next != next && len(page.Next) <= 4096:
			next = page.Next
		case page.Next == "" && newest != addedAfter: // a server without next goes on from the newest
			addedAfter, next = newest, ""
		default:
			return newest, fmt.Errorf("%w: there is more, and the server does not say where", ErrProtocol)
		}
	}
	return newest, fmt.Errorf("%w: more than %d pages", ErrProtocol, MaxPages)
}

func validTime(s string) bool {
	_, err := time.Parse(time.RFC3339Nano, s)
	return err == nil
}

// get asks for one resource.
func (c *Client) get(ctx context.Context, at string, to any) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", mediaType)
	switch {
	case c.Token == "" && c.User == "":
	case !Private(req.URL):
		return nil, fmt.Errorf("%s: %w", req.URL.Host, ErrPlain)
	case c.Token != "":
		req.Header.Set("Authorization", "Bearer "+c.Token)
	default:
		req.SetBasicAuth(c.User, c.Password)
	}
	hc := http.DefaultClient
	if c.HTTP != nil {
		hc = c.HTTP
	}
	one := *hc
	one.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme || len(via) > 3 {
			return fmt.Errorf("%w: redirected to %s", ErrProtocol, r.URL.Host)
		}
		return nil
	}
	resp, err := one.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("%s: %w: %s", req.URL.Path, ErrRefused, resp.Status)
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", req.URL.Path, ErrNotFound)
	case resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent:
		return nil, fmt.Errorf("%s: the server answered %s", req.URL.Path, resp.Status)
	}
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "application/taxii+json") && !strings.HasPrefix(t, "application/vnd.oasis.taxii+json") && !strings.HasPrefix(t, "application/json") {
		return nil, fmt.Errorf("%s: %w: the answer is %.60q", req.URL.Path, ErrProtocol, t)
	}
	most := cmp.Or(c.most, MaxResponse)
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", req.URL.Path, err)
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%s: %w: an answer of more than %d bytes", req.URL.Path, ErrProtocol, most)
	}
	if err := decode(body, to); err != nil {
		return nil, fmt.Errorf("%s: %w: %v", req.URL.Path, ErrProtocol, err)
	}
	return resp.Header, nil
}

// decode reads an answer; an empty one is an empty envelope, as some servers say that nothing is new.
func decode(body []byte, to any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil
	}
	return json.Unmarshal(body, to)
}

// Private says whether what is sent there is read by nobody else: TLS, or this host.
func Private(u *url.URL) bool {
	if u.Scheme == "https" || u.Hostname() == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err == nil && a.IsLoopback()
}
