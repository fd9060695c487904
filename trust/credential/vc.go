package credential

import (
	"encoding/base64"
	"encoding/json"
	"time"
)

// verifiable is a credential in the W3C data model (Verifiable Credentials 2.0).
type verifiable struct {
	Context   []string `json:"@context"`
	ID        string   `json:"id"`
	Type      []string `json:"type"`
	Issuer    string   `json:"issuer"`
	ValidFrom string   `json:"validFrom"`
	ValidTill string   `json:"validUntil"`
	Subject   subject  `json:"credentialSubject"`
	Proof     proof    `json:"proof"`
}

type subject struct {
	ID           string           `json:"id"`
	Swarm        string           `json:"swarm"`
	Roles        []string         `json:"roles,omitempty"`
	Capabilities []capabilityJSON `json:"capabilities,omitempty"`
	Depth        uint8            `json:"delegations"`
}

type capabilityJSON struct {
	Action string   `json:"action"`
	Peers  []string `json:"peers,omitempty"`
	MaxTTL float64  `json:"max_ttl_ms,omitempty"`
}

type proof struct {
	Type         string `json:"type"`
	Cryptosuite  string `json:"cryptosuite"`
	Method       string `json:"verificationMethod"`
	Purpose      string `json:"proofPurpose"`
	Value        string `json:"proofValue"`
	Experimental bool   `json:"experimental"`
}

// VC is c as a W3C Verifiable Credential 2.0, for tools that show such. No post-quantum cryptosuite of the W3C is final
// (vc-di-quantum-resistant-1.0 is a draft), so the proof is experimental: its value is the whole signed credential
// (multibase, base64url), which is what must be verified; the JSON around it is a view of it.
func (c *Credential) VC() ([]byte, error) {
	v := verifiable{
		Context: []string{"https://www.w3.org/ns/credentials/v2"}, ID: "urn:omega:credential:" + c.SerialText(),
		Type: []string{"VerifiableCredential", "OmegaCapabilityCredential"}, Issuer: string(c.Issuer),
		ValidFrom: c.NotBefore.Format(time.RFC3339Nano), ValidTill: c.NotAfter.Format(time.RFC3339Nano),
		Subject: subject{ID: string(c.Subject), Swarm: c.Swarm.String(), Roles: c.Roles, Depth: c.Depth},
		Proof: proof{
			Type: "DataIntegrityProof", Cryptosuite: "omega-cose-sign1-2026", Method: string(c.Issuer) + "#key", Purpose: "capabilityDelegation",
			Value: "u" + base64.RawURLEncoding.EncodeToString(c.raw), Experimental: true,
		},
	}
	for _, k := range c.Capabilities {
		one := capabilityJSON{Action: k.Action, MaxTTL: float64(k.MaxTTL) / float64(time.Millisecond)}
		for _, p := range k.Peers {
			one.Peers = append(one.Peers, string(p))
		}
		v.Subject.Capabilities = append(v.Subject.Capabilities, one)
	}
	return json.Marshal(v)
}
