package ledger

import (
	"fmt"

	"github.com/omega-mesh/omega/swarm/event"
	"github.com/omega-mesh/omega/trust"
	"github.com/omega-mesh/omega/trust/canonical"
)

// EncodeFinding is the body of a KindFinding entry.
func EncodeFinding(f *event.Finding) ([]byte, error) { return encodeActivity(f) }

// DecodeFinding reads a KindFinding entry. ID and Peer are the entry's; Host is for the caller, who knows the members.
func DecodeFinding(e *Entry) (event.Finding, error) {
	var f event.Finding
	if e.Kind != KindFinding {
		return f, fmt.Errorf("ledger: %s is not a finding", e.Kind)
	}
	if err := canonical.Unmarshal(e.Body, &f, trust.MaxActivityBody); err != nil {
		return event.Finding{}, err
	}
	f.ID, f.Peer = e.ID(), string(e.Author)
	return f, nil
}

// EncodeReceipt is the body of a KindReceipt entry.
func EncodeReceipt(r *event.Receipt) ([]byte, error) { return encodeActivity(r) }

// DecodeReceipt reads a KindReceipt entry. ID and Peer are the entry's; Host is for the caller.
func DecodeReceipt(e *Entry) (event.Receipt, error) {
	var r event.Receipt
	if e.Kind != KindReceipt {
		return r, fmt.Errorf("ledger: %s is not a receipt", e.Kind)
	}
	if err := canonical.Unmarshal(e.Body, &r, trust.MaxActivityBody); err != nil {
		return event.Receipt{}, err
	}
	r.ID, r.Peer = e.ID(), string(e.Author)
	return r, nil
}

func encodeActivity(v any) ([]byte, error) {
	b, err := canonical.Marshal(v)
	if err == nil && len(b) > trust.MaxActivityBody {
		err = fmt.Errorf("ledger: body of %d bytes, at most %d: %w", len(b), trust.MaxActivityBody, canonical.ErrTooLong)
	}
	return b, err
}
