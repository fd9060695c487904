package identity

import "strings"

// The letters of a proquint (Wilkerson, "A Proposal for Proquints", 2009): a consonant says four bits, a vowel two.
const (
	proquintConsonants = "bdfghjklmnprstvz"
	proquintVowels     = "aiou"
	wordsOfDID         = 5
)

// Words are the first 80 bits of d as five words that two people can read to each other ("lusab-babad-…"), to make sure
// that both mean the same identity. To make another identity with the same words takes some 2^80 attempts. Empty where d
// is no DID.
func (d DID) Words() string {
	h, err := d.Bytes()
	if err != nil {
		return ""
	}
	var b strings.Builder
	for i := range wordsOfDID {
		if i > 0 {
			b.WriteByte('-')
		}
		w := uint16(h[2*i])<<8 | uint16(h[2*i+1])
		b.WriteByte(proquintConsonants[w>>12])
		b.WriteByte(proquintVowels[w>>10&3])
		b.WriteByte(proquintConsonants[w>>6&15])
		b.WriteByte(proquintVowels[w>>4&3])
		b.WriteByte(proquintConsonants[w&15])
	}
	return b.String()
}
