//go:build !yara

package yara

// Built says whether this binary can match YARA rules.
const Built = false

// Version is libyara's; there is none here.
func Version() string { return "" }

// Rules are what New would give in a build with the tag yara.
type Rules struct{}

// New says that this binary has no YARA: ErrBuild.
func New([]Source, func(int)) (*Rules, []Rejected, error) { return nil, nil, ErrBuild }

// Len is 0.
func (*Rules) Len() int { return 0 }

// Scan says that this binary has no YARA: ErrBuild.
func (*Rules) Scan([]byte, Names) ([]Match, error) { return nil, ErrBuild }
