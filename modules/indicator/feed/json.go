package feed

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/omega-mesh/omega/modules/indicator"
)

// object is a STIX object as far as it is asked for.
type object struct {
	Type        string `json:"type"`
	ID          string `json:"id"`
	Modified    string `json:"modified"`
	Name        string `json:"name"`
	Pattern     string `json:"pattern"`
	PatternType string `json:"pattern_type"`
	ValidFrom   string `json:"valid_from"`
	ValidUntil  string `json:"valid_until"`
	Revoked     bool   `json:"revoked"`
	Confidence  *int   `json:"confidence"`
}

// attribute is one of MISP's.
type attribute struct {
	Type    string `json:"type"`
	Value   string `json:"value"`
	IDs     flag   `json:"to_ids"`
	Deleted flag   `json:"deleted"`
}

// flag is a boolean as MISP writes it: true, "1", 1.
type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	*f = s == "true" || s == "1"
	return nil
}

// document reads one file of JSON, as it comes.
type document struct {
	in    *json.Decoder
	meter *meter
	opt   Options
	b     *indicator.Builder
	rep   *indicator.Report
	label string // of the MISP event in hand
}

// meter bounds what one object may take; it is set back at each.
type meter struct {
	r    io.Reader
	left int
}

func (m *meter) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, fmt.Errorf("%w: an object of more than %d MiB", ErrTooLarge, maxObject>>20)
	}
	n, err := m.r.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

func readJSON(in *bufio.Reader, opt Options, b *indicator.Builder, rep *indicator.Report) error {
	m := &meter{r: in}
	d := &document{in: json.NewDecoder(m), meter: m, opt: opt, b: b, rep: rep}
	for { // one document, or one a line
		m.left = maxObject
		err := d.value(0, "")
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("at byte %d: %w", d.in.InputOffset(), err)
		}
	}
}

// value reads any value: what is known by its key is taken, the rest is looked through.
func (d *document) value(depth int, key string) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: nested deeper than %d", ErrTooLarge, maxDepth)
	}
	t, err := d.in.Token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		for d.in.More() {
			d.meter.left = maxObject
			switch key {
			case "objects":
				err = d.stix()
			case "Attribute":
				err = d.misp()
			default:
				err = d.value(depth+1, "")
			}
			if err != nil {
				return err
			}
		}
		_, err = d.in.Token()
		return inside(err)
	case json.Delim('{'):
		return d.fields(depth)
	}
	return nil
}

// fields reads the members of an object. At the top it may be a STIX object itself, as in JSON Lines.
func (d *document) fields(depth int) error {
	var self object
	for d.in.More() {
		t, err := d.in.Token()
		if err != nil {
			return inside(err)
		}
		key, _ := t.(string)
		var to any
		switch key {
		case "type":
			to = &self.Type
		case "id":
			to = &self.ID
		case "modified":
			to = &self.Modified
		case "name":
			to = &self.Name
		case "pattern":
			to = &self.Pattern
		case "pattern_type":
			to = &self.PatternType
		case "valid_from":
			to = &self.ValidFrom
		case "valid_until":
			to = &self.ValidUntil
		case "revoked":
			to = &self.Revoked
		case "confidence":
			to = &self.Confidence
		case "info":
			to = &d.label
		}
		if to == nil || depth > 0 && key != "info" {
			if err := d.value(depth+1, key); err != nil {
				return inside(err)
			}
			continue
		}
		var raw json.RawMessage
		if err := d.in.Decode(&raw); err != nil {
			return inside(err)
		}
		if err := json.Unmarshal(raw, to); err != nil && self.Type != "" && self.Type != "bundle" {
			d.rep.Reject("an object's "+key+" is of the wrong type", string(raw[:min(len(raw), 80)]))
		}
	}
	if _, err := d.in.Token(); err != nil {
		return inside(err)
	}
	if depth == 0 && self.Type != "" && self.Type != "bundle" {
		return d.take(&self)
	}
	return nil
}

// inside says that a document ended before it was whole.
func inside(err error) error {
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it ends before it is whole: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// one reads a whole element; what is of the wrong type within it is rejected alone.
func (d *document) one(to any) (ok bool, err error) {
	var raw json.RawMessage
	if err := d.in.Decode(&raw); err != nil {
		return false, inside(err)
	}
	if err := json.Unmarshal(raw, to); err != nil {
		d.rep.Reject("an object does not read: its fields are of other types", string(raw[:min(len(raw), 80)]))
		return false, nil
	}
	return true, nil
}

func (d *document) stix() error {
	var o object
	if ok, err := d.one(&o); !ok {
		return err
	}
	return d.take(&o)
}

func (d *document) take(o *object) error {
	if d.opt.Keep != nil && !d.opt.Keep(o.ID, o.Modified) {
		return nil
	}
	switch {
	case o.Type != "indicator":
		d.rep.NotApply("an object that is no indicator: "+o.Type, o.ID)
		return nil
	case o.Revoked:
		d.rep.NotApply("its author revoked it", o.ID)
		return nil
	case o.PatternType != "" && o.PatternType != "stix":
		d.rep.NotApply("a pattern in the language "+o.PatternType, o.ID)
		return nil
	}
	it := d.opt.item()
	it.Label = o.Name
	if o.Confidence != nil && *o.Confidence >= 0 {
		it.Confidence = uint8(min(*o.Confidence, 100))
	}
	if o.ValidUntil != "" {
		end, err := time.Parse(time.RFC3339Nano, o.ValidUntil)
		if err != nil {
			d.rep.Reject("valid_until is no time", o.ValidUntil)
			return nil
		}
		it.Expires = end
	}
	if from, err := time.Parse(time.RFC3339Nano, o.ValidFrom); err == nil && !d.opt.Now.IsZero() && from.After(d.opt.Now) {
		d.rep.NotApply("it is not valid yet", o.ID)
		return nil
	}
	return d.b.Pattern(d.rep, o.Pattern, it)
}

func (d *document) misp() error {
	var a attribute
	if ok, err := d.one(&a); !ok {
		return err
	}
	switch {
	case bool(a.Deleted):
		d.rep.NotApply("it was deleted", a.Value)
		return nil
	case !bool(a.IDs):
		d.rep.NotApply("to_ids is not set: it is for people, not for detection", a.Value)
		return nil
	}
	it := d.opt.item()
	it.Label = d.label
	value := Refang(a.Value)
	first, second, both := strings.Cut(value, "|")
	switch a.Type {
	case "md5":
		return d.b.Add(d.rep, indicator.MD5, value, it)
	case "sha1":
		return d.b.Add(d.rep, indicator.SHA1, value, it)
	case "sha256":
		return d.b.Add(d.rep, indicator.SHA256, value, it)
	case "filename|md5", "filename|sha1", "filename|sha256", "malware-sample": // the digest is the file
		if !both {
			second = value
		}
		return d.b.Add(d.rep, indicator.SHA256, second, it)
	case "ip-src", "ip-dst":
		return d.b.Add(d.rep, indicator.Prefix, value, it)
	case "ip-src|port", "ip-dst|port": // the port is not asked: an address that serves malware seldom serves anything else
		return d.b.Add(d.rep, indicator.Prefix, first, it)
	case "domain", "domain|ip":
		return d.b.Add(d.rep, indicator.Domain, first, it)
	case "hostname", "hostname|port":
		it.Exact = true
		return d.b.Add(d.rep, indicator.Domain, first, it)
	case "url":
		return d.b.Add(d.rep, indicator.URL, value, it)
	case "filename":
		switch {
		case strings.HasPrefix(a.Value, "/"):
			return d.b.Add(d.rep, indicator.Path, a.Value, it)
		case strings.ContainsAny(a.Value, `\%`):
			d.rep.NotApply("a file name of Windows", a.Value)
			return nil
		}
		return d.b.Add(d.rep, indicator.Name, a.Value, it)
	}
	d.rep.NotApply("no event of this host has MISP's "+a.Type, a.Value)
	return nil
}
