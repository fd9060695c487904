package inventory

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Bounds of a JSON document that is streamed.
const (
	maxStream = 1 << 30 // bytes of a whole document
	maxText   = 4096    // bytes of a string that is kept, as it is written
	maxDepth  = 200     // of values within values
)

// stream reads a JSON document (RFC 8259) without holding it: what is not asked for is checked and passed over, whatever
// its size. After an error it must not be used further.
type stream struct {
	r     *bufio.Reader
	at    int64
	depth int
	kept  []byte
}

func newStream(r io.Reader) *stream { return &stream{r: bufio.NewReaderSize(r, 64<<10)} }

func (s *stream) errorf(format string, a ...any) error {
	return fmt.Errorf("byte %d: %s", s.at, fmt.Sprintf(format, a...))
}

func (s *stream) byte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == io.EOF {
		return 0, s.errorf("the file is truncated")
	}
	if err != nil {
		return 0, err
	}
	if s.at++; s.at > maxStream {
		return 0, s.errorf("larger than %d bytes", int64(maxStream))
	}
	return b, nil
}

func (s *stream) back() {
	if s.r.UnreadByte() == nil {
		s.at--
	}
}

// peek is the first byte of what comes next, white space passed over.
func (s *stream) peek() (byte, error) {
	for {
		b, err := s.byte()
		if err != nil {
			return 0, err
		}
		if b != ' ' && b != '\t' && b != '\n' && b != '\r' {
			s.back()
			return b, nil
		}
	}
}

func (s *stream) expect(want byte, what string) error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	if b != want {
		return s.errorf("%q where %s should be", b, what)
	}
	_, err = s.byte()
	return err
}

// list reads what stands between open and close, separated by commas; item reads one.
func (s *stream) list(open, end byte, what string, item func() error) error {
	if err := s.expect(open, what); err != nil {
		return err
	}
	if s.depth++; s.depth > maxDepth {
		return s.errorf("more than %d values within one another", maxDepth)
	}
	defer func() { s.depth-- }()
	for first := true; ; first = false {
		b, err := s.peek()
		if err != nil {
			return err
		}
		if first && b == end {
			_, err := s.byte()
			return err
		}
		if err := item(); err != nil {
			return err
		}
		if b, err = s.peek(); err != nil {
			return err
		}
		if _, err := s.byte(); err != nil {
			return err
		}
		switch b {
		case end:
			return nil
		case ',':
		default:
			return s.errorf("%q where a comma or %q should be", b, end)
		}
	}
}

// object reads an object; member must read, or skip, the value of each key.
func (s *stream) object(member func(key string) error) error {
	return s.list('{', '}', "an object", func() error {
		key, err := s.text()
		if err != nil {
			return err
		}
		if err := s.expect(':', "a colon"); err != nil {
			return err
		}
		return member(key)
	})
}

// array reads an array; element must read, or skip, each of its values.
func (s *stream) array(element func() error) error { return s.list('[', ']', "an array", element) }

// text reads a string of at most maxText bytes.
func (s *stream) text() (string, error) {
	if err := s.expect('"', "a string"); err != nil {
		return "", err
	}
	s.kept = append(s.kept[:0], '"')
	if err := s.rest(true); err != nil {
		return "", err
	}
	var text string
	if err := json.Unmarshal(s.kept, &text); err != nil {
		return "", s.errorf("%v", err)
	}
	return text, nil
}

// value reads a string into to; null leaves it empty.
func (s *stream) value(to *string) error {
	if b, err := s.peek(); err != nil {
		return err
	} else if b == 'n' {
		return s.skip()
	}
	text, err := s.text()
	*to = text
	return err
}

// rest reads a string after its opening quote.
func (s *stream) rest(keep bool) error {
	for {
		b, err := s.byte()
		if err != nil {
			return err
		}
		if keep {
			if s.kept = append(s.kept, b); len(s.kept) > maxText {
				return s.errorf("a string of more than %d bytes where a name should be", maxText)
			}
		}
		switch {
		case b == '"':
			return nil
		case b < 0x20:
			return s.errorf("a control character in a string")
		case b != '\\':
			continue
		}
		if b, err = s.byte(); err != nil {
			return err
		}
		if keep {
			s.kept = append(s.kept, b)
		}
		switch b {
		case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		case 'u':
			for range 4 {
				if b, err = s.byte(); err != nil {
					return err
				}
				if !(b >= '0' && b <= '9' || b|0x20 >= 'a' && b|0x20 <= 'f') {
					return s.errorf("a bad escape in a string")
				}
				if keep {
					s.kept = append(s.kept, b)
				}
			}
		default:
			return s.errorf("a bad escape in a string")
		}
	}
}

// skip checks a value of any kind and passes over it.
func (s *stream) skip() error {
	b, err := s.peek()
	if err != nil {
		return err
	}
	switch {
	case b == '{':
		return s.list('{', '}', "an object", func() error {
			if err := s.expect('"', "a key"); err != nil {
				return err
			}
			if err := s.rest(false); err != nil {
				return err
			}
			if err := s.expect(':', "a colon"); err != nil {
				return err
			}
			return s.skip()
		})
	case b == '[':
		return s.array(s.skip)
	case b == '"':
		if _, err := s.byte(); err != nil {
			return err
		}
		return s.rest(false)
	case b == 't':
		return s.word("true")
	case b == 'f':
		return s.word("false")
	case b == 'n':
		return s.word("null")
	case b == '-' || b >= '0' && b <= '9':
		return s.number()
	}
	return s.errorf("%q where a value should be", b)
}

func (s *stream) word(w string) error {
	for i := range len(w) {
		b, err := s.byte()
		if err != nil {
			return err
		}
		if b != w[i] {
			return s.errorf("%q within %s", b, w)
		}
	}
	return nil
}

// maxNumber bounds the digits of a number.
const maxNumber = 1000

func (s *stream) number() error {
	s.kept = s.kept[:0]
	for {
		b, err := s.r.ReadByte()
		if err == nil {
			s.at++
			if b == '-' || b == '+' || b == '.' || b|0x20 == 'e' || b >= '0' && b <= '9' {
				if s.kept = append(s.kept, b); len(s.kept) > maxNumber {
					return s.errorf("a number of more than %d digits", maxNumber)
				}
				continue
			}
			s.back()
		} else if err != io.EOF {
			return err
		}
		if !json.Valid(s.kept) {
			return s.errorf("%q is no number", clip(string(s.kept)))
		}
		return nil
	}
}

// end makes sure that nothing follows.
func (s *stream) end() error {
	for {
		b, err := s.r.ReadByte()
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		case b != ' ' && b != '\t' && b != '\n' && b != '\r':
			return s.errorf("more after the end of the document")
		}
		s.at++
	}
}
