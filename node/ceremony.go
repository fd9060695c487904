package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/authority"
	"github.com/omega-mesh/omega/trust/identity"
	"github.com/omega-mesh/omega/trust/root"
)

// genesis makes the swarm's first record with its operators and recovery keys, and says which of those were made here
// and must be carried elsewhere.
func genesis(l Layout, first *identity.Inception, opt InitOptions) (*authority.Genesis, []string, error) {
	k, n := opt.K, opt.Operators
	if k == 0 && n == 0 {
		k, n = 1, max(1, 1+len(opt.Inceptions))
		k = n/2 + 1
	}
	if n < 1+len(opt.Inceptions) || n > trust.MaxOperators || k > n || 2*k <= n {
		return nil, nil, fmt.Errorf("%w: %d of %d operators, %d inceptions given: K must be more than half of N, and N at most %d", ErrOperators, k, n, len(opt.Inceptions), trust.MaxOperators)
	}
	if opt.Recovery < 0 || opt.Recovery > trust.MaxRecoveryKeys {
		return nil, nil, fmt.Errorf("%w: %d recovery keys, at most %d", ErrOperators, opt.Recovery, trust.MaxRecoveryKeys)
	}
	operators := []*identity.Inception{first}
	for _, raw := range opt.Inceptions {
		i, err := identity.DecodeInception(raw)
		if err != nil {
			return nil, nil, fmt.Errorf("operator's inception: %w", err)
		}
		operators = append(operators, i)
	}
	var carry []string
	for i := len(operators) + 1; i <= n; i++ {
		dir := fmt.Sprintf("%s-%d", l.Operator(), i)
		op, err := NewOperator(dir, clip(fmt.Sprintf("operator-%d", i)), opt.Suite, opt.Passphrase, opt.Random)
		if err != nil {
			return nil, nil, err
		}
		operators = append(operators, op)
		carry = append(carry, dir)
	}
	g := authority.GenesisOptions{}
	for i := range opt.Recovery {
		key, err := root.GenerateRecovery(opt.Random)
		if err != nil {
			return nil, nil, err
		}
		text, err := key.Text(opt.Passphrase)
		if err != nil {
			return nil, nil, err
		}
		path := filepath.Join(l.Recovery(), fmt.Sprintf("recovery-%d.key", i+1))
		if err := os.MkdirAll(l.Recovery(), 0o700); err != nil {
			return nil, nil, fmt.Errorf("recovery key: %w", err)
		}
		if err := writeFile(path, text, 0o600); err != nil {
			return nil, nil, fmt.Errorf("recovery key: %w", err)
		}
		carry = append(carry, path)
		g.Recovery = append(g.Recovery, key.Public())
		g.RecoveryK = opt.Recovery/2 + 1
	}
	made, err := authority.NewGenesis(opt.Swarm, operators, k, g)
	return made, carry, err
}

// ErrOperators is wrapped where a number of operators or keys cannot be.
var ErrOperators = errors.New("operators")

// NewOperator makes an operator's keys in dir, or opens those that are there, and returns the record that others name it
// by. It needs neither node nor network: dir may be a stick in a host that has none.
func NewOperator(dir, name string, suite trust.Suite, passphrase []byte, random io.Reader) (*identity.Inception, error) {
	op, err := identity.Open(dir, identity.Options{Passphrase: passphrase})
	if errors.Is(err, identity.ErrNone) {
		if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
			return nil, fmt.Errorf("operator: %w", err)
		}
		op, err = identity.Create(dir, identity.Options{Name: name, Suite: suite, Passphrase: passphrase, Random: random})
	}
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	defer op.Close()
	return op.Inception(), nil
}
