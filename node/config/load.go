package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/v2"
)

// maxFile bounds omega.yaml before it is parsed.
const maxFile = 1 << 20

// outside are variables of the environment that begin with OMEGA_ and are no settings.
var outside = map[string]bool{"OMEGA_DIR": true, "OMEGA_CONFIG": true, "OMEGA_TOKEN": true}

// Source is where Load looks.
type Source struct {
	// Dir is the state folder; empty means DefaultDir.
	Dir string
	// File is the configuration file; empty means Dir/omega.yaml, which need not exist.
	File string
	// Environ is in the form of os.Environ; nil means no variables.
	Environ []string
	// Flags holds the flags that were set, by key ("mode", "log_level"); values are strings, bools, ints or []string.
	Flags map[string]any
}

// DefaultDir is where a node keeps its state unless told: $OMEGA_DIR, /var/lib/omega as root, $XDG_STATE_HOME/omega else.
func DefaultDir() string {
	if d := os.Getenv("OMEGA_DIR"); d != "" {
		return d
	}
	if os.Geteuid() == 0 {
		return "/var/lib/omega"
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, "omega")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".local", "state", "omega")
}

// Load reads, in rising order of weight: defaults, the file, OMEGA_… variables, flags. The result is valid.
func Load(src Source) (*Config, error) {
	if src.Dir == "" {
		src.Dir = DefaultDir()
	}
	dir, err := filepath.Abs(src.Dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	c := Default(dir)
	c.origin = map[string]string{}

	file := src.File
	if file == "" {
		file = filepath.Join(dir, "omega.yaml")
	}
	switch raw, err := readBounded(file); {
	case errors.Is(err, os.ErrNotExist) && src.File == "":
	case err != nil:
		return nil, fmt.Errorf("configuration: %w", err)
	default:
		c.File = file
		k := koanf.New("/") // no key of ours holds a slash: nothing is split
		if err := k.Load(rawBytes(raw), yaml.Parser()); err != nil {
			return nil, fmt.Errorf("%w: %s: %v", ErrInvalid, file, err)
		}
		top := k.Raw()
		for _, key := range sorted(top) {
			if err := c.set(key, top[key], file); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	for _, kv := range src.Environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, "OMEGA_") || outside[name] {
			continue
		}
		if err := c.set(strings.ToLower(strings.TrimPrefix(name, "OMEGA_")), value, name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, key := range sorted(src.Flags) {
		if err := c.set(key, src.Flags[key], "--"+strings.ReplaceAll(key, "_", "-")); err != nil {
			return nil, err
		}
	}
	return c, c.Validate()
}

type field struct {
	key   string
	value reflect.Value
}

func fields(c *Config) []field {
	v := reflect.ValueOf(c).Elem()
	var out []field
	for i := range v.NumField() {
		if key := v.Type().Field(i).Tag.Get("koanf"); key != "" && key != "-" {
			out = append(out, field{key, v.Field(i)})
		}
	}
	return out
}

func (c *Config) set(key string, value any, origin string) error {
	for _, f := range fields(c) {
		if f.key != key {
			continue
		}
		if err := assign(f.value, value); err != nil {
			return fmt.Errorf("%w: %s: %v", ErrInvalid, key, err)
		}
		c.origin[key] = origin
		return nil
	}
	return fmt.Errorf("%w: there is no key %q; the nearest is %q", ErrInvalid, key, nearest(key, fields(c)))
}

// assign converts what YAML, a variable or a flag can hold to the field's type, and refuses all else.
func assign(dst reflect.Value, value any) error {
	switch dst.Kind() {
	case reflect.String:
		s, ok := value.(string)
		if !ok {
			return fmt.Errorf("%v is not text", value)
		}
		if len(s) > MaxValue {
			return fmt.Errorf("longer than %d bytes", MaxValue)
		}
		dst.SetString(s)
	case reflect.Bool:
		switch x := value.(type) {
		case bool:
			dst.SetBool(x)
		case string:
			b, err := strconv.ParseBool(x)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", x)
			}
			dst.SetBool(b)
		default:
			return fmt.Errorf("%v is neither true nor false", value)
		}
	case reflect.Int:
		switch x := value.(type) {
		case int:
			dst.SetInt(int64(x))
		case string:
			n, err := strconv.ParseInt(x, 10, 32)
			if err != nil {
				return fmt.Errorf("%q is not a whole number", x)
			}
			dst.SetInt(n)
		default:
			return fmt.Errorf("%v is not a whole number", value)
		}
	case reflect.Slice:
		list, err := toList(value)
		if err != nil {
			return err
		}
		dst.Set(reflect.ValueOf(list))
	}
	return nil
}

// toList takes a YAML list, a []string of a flag, or one string with commas.
func toList(value any) ([]string, error) {
	var list []string
	switch x := value.(type) {
	case nil:
	case []string:
		list = append(list, x...)
	case string:
		for part := range strings.SplitSeq(x, ",") {
			if part = strings.TrimSpace(part); part != "" {
				list = append(list, part)
			}
		}
	case []any:
		for _, e := range x {
			if n, whole := e.(int); whole {
				e = strconv.Itoa(n)
			}
			s, ok := e.(string)
			if !ok {
				return nil, fmt.Errorf("%v is not text", e)
			}
			list = append(list, s)
		}
	default:
		return nil, fmt.Errorf("%v is not a list", value)
	}
	if len(list) > MaxList {
		return nil, fmt.Errorf("%d values, more than %d", len(list), MaxList)
	}
	return list, nil
}

// nearest is the known key with the smallest edit distance (Levenshtein).
func nearest(key string, known []field) string {
	key = key[:min(len(key), 64)]
	best, bestD := "", 1<<30
	for _, f := range known {
		if d := distance(key, f.key); d < bestD {
			best, bestD = f.key, d
		}
	}
	return best
}

func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diag := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diag
			if a[i-1] != b[j-1] {
				cost++
			}
			diag = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(raw) > maxFile {
		err = fmt.Errorf("%w: %s: larger than %d bytes", ErrInvalid, path, maxFile)
	}
	return raw, err
}

// rawBytes is a koanf provider of bytes already read.
type rawBytes []byte

func (r rawBytes) ReadBytes() ([]byte, error)    { return r, nil }
func (r rawBytes) Read() (map[string]any, error) { return nil, errors.New("bytes only") }

func sorted(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
