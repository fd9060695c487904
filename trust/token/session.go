//go:build pkcs11

package token

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/omega-mesh/omega/trust/canonical"
	"github.com/omega-mesh/omega/trust/identity"
)

// Built says whether this binary can load a token's library.
const Built = true

// module is what is used of a token's library (*pkcs11.Ctx).
type module interface {
	GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error)
	GenerateKey(pkcs11.SessionHandle, []*pkcs11.Mechanism, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	GenerateKeyPair(s pkcs11.SessionHandle, m []*pkcs11.Mechanism, public, private []*pkcs11.Attribute) (pkcs11.ObjectHandle, pkcs11.ObjectHandle, error)
	CreateObject(pkcs11.SessionHandle, []*pkcs11.Attribute) (pkcs11.ObjectHandle, error)
	DestroyObject(pkcs11.SessionHandle, pkcs11.ObjectHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, most int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	EncryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Encrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	DecryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Decrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	SignInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Sign(pkcs11.SessionHandle, []byte) ([]byte, error)
	GenerateRandom(s pkcs11.SessionHandle, length int) ([]byte, error)
}

// Token is an open session with a token, logged in. It is safe for concurrent use: one command runs after the other.
type Token struct {
	label  string
	module module
	close  func() error

	mu      sync.Mutex
	session pkcs11.SessionHandle
	knows   map[uint]bool // mechanisms
}

// Open loads the library, finds the token, and logs in. The caller closes it.
func Open(opt Options) (*Token, error) {
	if opt.Module == "" {
		return nil, fmt.Errorf("token: no library is named: %w", ErrNone)
	}
	c := pkcs11.New(opt.Module)
	if c == nil {
		return nil, fmt.Errorf("token: %s is not a PKCS#11 library that loads: %w", opt.Module, ErrNone)
	}
	if err := c.Initialize(); err != nil {
		c.Destroy()
		return nil, fmt.Errorf("token: %s: %w", opt.Module, err)
	}
	end := func() error {
		err := c.Finalize()
		c.Destroy()
		return err
	}
	slot, label, err := find(c, opt.Label)
	if err != nil {
		return nil, errors.Join(err, end())
	}
	session, err := c.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("token: %s: %w", label, err), end())
	}
	if err := c.Login(session, pkcs11.CKU_USER, string(opt.PIN)); err != nil {
		var code pkcs11.Error
		if errors.As(err, &code) && (code == pkcs11.CKR_PIN_INCORRECT || code == pkcs11.CKR_PIN_LOCKED || code == pkcs11.CKR_PIN_LEN_RANGE || code == pkcs11.CKR_PIN_INVALID) {
			err = fmt.Errorf("%w: %w", ErrPIN, err)
		}
		return nil, errors.Join(fmt.Errorf("token: %s: %w", label, err), end())
	}
	t := &Token{label: label, module: c, session: session, close: func() error {
		return errors.Join(c.Logout(session), c.CloseSession(session), end())
	}}
	if err := t.learn(slot); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// find gives the slot of the token with that label; of the only token where label is empty.
func find(c *pkcs11.Ctx, label string) (slot uint, found string, err error) {
	slots, err := c.GetSlotList(true)
	if err != nil {
		return 0, "", fmt.Errorf("token: %w", err)
	}
	var there []string
	for _, s := range slots {
		info, err := c.GetTokenInfo(s)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // a reader without a card, or a new card
		}
		there = append(there, info.Label)
		if label == "" || info.Label == label {
			slot, found = s, info.Label
		}
	}
	matches := 0
	for _, l := range there {
		if label == "" || l == label {
			matches++
		}
	}
	if matches != 1 {
		return 0, "", fmt.Errorf("token: %d tokens match the label %q of those there (%q): name one with --pkcs11-token: %w", matches, label, there, ErrNone)
	}
	return slot, found, nil
}

// learn asks which mechanisms the token has.
func (t *Token) learn(slot uint) error {
	list, err := t.module.GetMechanismList(slot)
	if err != nil {
		return fmt.Errorf("token: %s: %w", t.label, err)
	}
	t.knows = map[uint]bool{}
	for _, m := range list {
		t.knows[m.Mechanism] = true
	}
	if !t.knows[pkcs11.CKM_AES_KEY_GEN] || !t.knows[pkcs11.CKM_AES_GCM] {
		return fmt.Errorf("token: %s has no AES-GCM, which seals the wrapping key: %w", t.label, ErrNone)
	}
	return nil
}

// Close logs out and lets go of the library.
func (t *Token) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.close()
}

// Kind implements identity.Store.
func (t *Token) Kind() identity.Kind { return identity.KindPKCS11 }

// NewWrap implements identity.Store: the wrapping key is sealed by an AES-256 key that the token made and keeps. One such
// key serves every wrapping key of this token.
func (t *Token) NewWrap(random io.Reader) (wrap, sealed []byte, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wrap = make([]byte, identity.WrapSize)
	id, nonce := make([]byte, idSize), make([]byte, nonceSize)
	for _, b := range [][]byte{wrap, id, nonce} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, nil, fmt.Errorf("token: read random: %w", err)
		}
	}
	key, id, err := t.wrapper(id)
	if err != nil {
		return nil, nil, err
	}
	w := sealedWrap{Key: id, Nonce: nonce}
	params := pkcs11.NewGCMParams(nonce, []byte(contextWrap), tagSize*8)
	defer params.Free()
	if err := t.module.EncryptInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, nil, t.failed("seal", err)
	}
	if w.Sealed, err = t.module.Encrypt(t.session, wrap); err != nil {
		return nil, nil, t.failed("seal", err)
	}
	if iv := params.IV(); len(iv) == nonceSize { // some tokens choose their own
		w.Nonce = iv
	}
	if sealed, err = canonical.Marshal(w); err != nil {
		return nil, nil, err
	}
	again, err := t.open(sealed)
	if err != nil {
		return nil, nil, err
	}
	defer clear(again)
	if string(again) != string(wrap) {
		return nil, nil, t.failed("seal: it gives back another key", ErrNone)
	}
	return wrap, sealed, nil
}

const (
	contextWrap = "omega/token/wrap/1"
	labelWrap   = "omega wrapping key"
)

// wrapper gives the token's AES key; where there is none, it makes one with that id.
func (t *Token) wrapper(id []byte) (pkcs11.ObjectHandle, []byte, error) {
	class := pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY)
	label := pkcs11.NewAttribute(pkcs11.CKA_LABEL, labelWrap)
	key, err := t.find(class, label, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES))
	if err == nil {
		a, err := t.module.GetAttributeValue(t.session, key, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_ID, nil)})
		if err == nil && len(a[0].Value) != idSize {
			err = ErrMalformed
		}
		if err != nil {
			return 0, nil, t.failed("the AES key's id", err)
		}
		return key, a[0].Value, t.keeps(key)
	}
	if !errors.Is(err, ErrMissing) {
		return 0, nil, err
	}
	key, err = t.module.GenerateKey(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, append(private(id),
		class, label, pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true)))
	if err != nil {
		return 0, nil, t.failed("make an AES key", err)
	}
	return key, id, t.keeps(key)
}

// Open implements identity.Store.
func (t *Token) Open(sealed []byte) ([]byte, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open(sealed)
}

func (t *Token) open(sealed []byte) ([]byte, error) {
	w, err := decodeWrap(sealed)
	if err != nil {
		return nil, err
	}
	key, err := t.find(pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_ID, w.Key))
	if err != nil {
		return nil, err
	}
	params := pkcs11.NewGCMParams(w.Nonce, []byte(contextWrap), tagSize*8)
	defer params.Free()
	if err := t.module.DecryptInit(t.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, t.failed("open", err)
	}
	wrap, err := t.module.Decrypt(t.session, w.Sealed)
	if err != nil {
		return nil, t.failed("open", err)
	}
	return wrap, nil
}

// Random fills p from the token's generator. The library cannot be interrupted: ctx is asked between calls.
func (t *Token) Random(ctx context.Context, p []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(p) > 0 && ctx.Err() == nil {
		b, err := t.module.GenerateRandom(t.session, min(len(p), 256))
		if err == nil && len(b) == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return t.failed("random", err)
		}
		p = p[copy(p, b):]
	}
	return ctx.Err()
}

func (t *Token) failed(what string, err error) error {
	return fmt.Errorf("token: %s: %s: %w", t.label, what, err)
}

// find gives the one object that matches; ErrMissing where there is none.
func (t *Token) find(template ...*pkcs11.Attribute) (pkcs11.ObjectHandle, error) {
	if err := t.module.FindObjectsInit(t.session, template); err != nil {
		return 0, t.failed("find", err)
	}
	found, _, err := t.module.FindObjects(t.session, 2)
	if err := errors.Join(err, t.module.FindObjectsFinal(t.session)); err != nil {
		return 0, t.failed("find", err)
	}
	switch len(found) {
	case 0:
		return 0, t.failed("find", ErrMissing)
	case 1:
		return found[0], nil
	}
	return 0, t.failed("find: two objects of one name", ErrMalformed)
}

// private are the attributes of what must not leave the token.
func private(id []byte) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
	}
}

// keeps checks that the token took those attributes as they were meant: some libraries ignore what they do not like.
func (t *Token) keeps(key pkcs11.ObjectHandle) error {
	a, err := t.module.GetAttributeValue(t.session, key, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
	})
	if err != nil {
		return t.failed("attributes", err)
	}
	if len(a) != 2 || !truth(a[0].Value) || truth(a[1].Value) {
		return t.failed("a key that may be read or taken out", ErrLeaks)
	}
	return nil
}

func truth(b []byte) bool { return len(b) > 0 && b[0] != 0 }

// ulong is a CK_ULONG as it lies in memory.
func ulong(n uint64) []byte { return binary.NativeEndian.AppendUint64(nil, n) }
